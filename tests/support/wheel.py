"""The wheel in an environment of its own, where the checkout cannot be imported."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

# What the wheel is made of; copied, so that a build leaves nothing in the checkout.
_SOURCES = ("mlpf", "parameters", "scripts", "pyproject.toml", "README.md", "LICENSE", ".gitignore")


def build_wheel(repo_root, folder):
    """Build the wheel from a copy of the checkout, without network, and return its file."""
    source = folder / "source"
    source.mkdir(parents=True)
    for name in _SOURCES:
        if (repo_root / name).is_dir():
            shutil.copytree(
                repo_root / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
            )
        else:
            shutil.copy(repo_root / name, source / name)
    _pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder, source)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _pip(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "pip", *map(str, arguments), "--quiet", "--disable-pip-version-check"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Installation:
    """A virtual environment with the wheel in it, and an empty directory to work in.

    Attributes:
        environment: folder of the virtual environment.
        work: the directory.
    """

    environment: Path
    work: Path

    @classmethod
    def make(cls, wheel, folder):
        """Install a wheel; its dependencies are those of the Python that runs the tests."""
        environment, work = folder / "environment", folder / "work"
        venv.create(environment, with_pip=False)
        work.mkdir()
        _pip("--python", environment / "bin" / "python", "install", "--no-deps", "--no-index", wheel)
        (site_packages,) = environment.glob("lib/python*/site-packages")
        # Python reads no .pth file of these folders, so an editable checkout is not among what is found.
        folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        (site_packages / "dependencies.pth").write_text("\n".join(folders) + "\n", encoding="utf-8")
        return cls(environment, work)

    def run(self, *command):
        """Run a program of the environment in the empty directory."""
        variables = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
        return subprocess.run(
            [self.environment / "bin" / command[0], *map(str, command[1:])],
            cwd=self.work,
            env=variables | {"PATH": f"{self.environment / 'bin'}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True,
            text=True,
        )

    def mlpf(self, *arguments):
        """Run ``mlpf``; return what it prints."""
        done = self.run("mlpf", *arguments)
        assert done.returncode == 0, f"{arguments}: {done.stderr[-3000:]}"
        return done.stdout

    def code(self, text):
        """Run Python code; return the JSON of the last line that it prints."""
        done = self.run("python", "-c", text)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])
