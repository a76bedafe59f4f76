"""Python code in a process of its own: for what can be set only before TensorFlow starts."""

import json
import os
import subprocess
import sys


def run_code(repo_root, code, *arguments):
    """Run ``code`` and return what its last line of output holds as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=repo_root,
        env=os.environ | {"PYTHONPATH": str(repo_root), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


_WITHOUT = """
import sys
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, NotInstalled())
"""


def run_without(repo_root, package, code):
    """Run ``code`` as if a package were not installed; see ``run_code``."""
    return run_code(repo_root, _WITHOUT.format(package=package) + code)
