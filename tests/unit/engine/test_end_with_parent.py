import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlpf.engine.end_with_parent import EXIT_ORPHANED, VARIABLE, ParentPipe, end_with_parent
from tests.support.processes import wait_until_gone
from tests.support.waiting import PATIENCE_SECONDS, wait_until

# A parent, its child and its grandchild; each writes its process id, the two below hang on a pipe each.
FAMILY = """
import os, subprocess, sys, time
from pathlib import Path
from mlpf.engine.end_with_parent import ParentPipe, end_with_parent
folder, depth = Path(sys.argv[1]), int(sys.argv[2])
end_with_parent()
if depth:
    line = ParentPipe()
    command = [sys.executable, __file__, folder, str(depth - 1)]
    options = dict(pass_fds=line.pass_fds, start_new_session=True)
    subprocess.Popen(command, env={**os.environ, **line.environment}, **options)
part = folder / f"part-{depth}"
part.write_text(str(os.getpid()))
part.rename(folder / f"pid-{depth}")
while True:
    time.sleep(1)
"""

linux = pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="asks /proc")


@pytest.fixture
def family(tmp_path, repo_root):
    """Start three generations; return their process ids, the eldest first."""
    script = tmp_path / "family.py"
    script.write_text(FAMILY, encoding="utf-8")
    command = [sys.executable, script, tmp_path, "2"]
    eldest = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(repo_root)}, start_new_session=True
    )
    files = [tmp_path / f"pid-{depth}" for depth in (2, 1, 0)]
    try:
        wait_until(lambda: all(f.exists() for f in files), "three generations")
        yield [int(f.read_text(encoding="utf-8")) for f in files]
    finally:
        eldest.kill()
        eldest.wait()


@linux
def test_all_generations_end_with_the_eldest(family):
    os.kill(family[0], 9)
    wait_until_gone(family)


@linux
def test_a_grandchild_ends_with_its_own_parent(family):
    os.kill(family[1], 9)
    wait_until_gone(family[1:])
    os.kill(family[0], 0)  # raises if it is gone too


def run_child(code, repo_root, pipe=None, **environment):
    environment = {**os.environ, "PYTHONPATH": str(repo_root), **environment}
    fds = () if pipe is None else pipe.pass_fds
    if pipe is not None:
        environment |= pipe.environment
    return subprocess.Popen(
        [sys.executable, "-c", "from mlpf.engine.end_with_parent import *\nimport os, time\n" + code],
        pass_fds=fds,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_letting_go_ends_a_child_with_a_code_of_its_own(repo_root):
    with ParentPipe() as line:
        child = run_child("print(end_with_parent(), flush=True)\ntime.sleep(600)", repo_root, line)
        assert child.stdout.readline() == "True\n"
        assert child.poll() is None
    child.communicate(timeout=PATIENCE_SECONDS)
    assert child.returncode == EXIT_ORPHANED


def test_the_variable_does_not_reach_grandchildren(repo_root):
    with ParentPipe() as line:
        child = run_child(f"end_with_parent()\nprint({VARIABLE!r} in os.environ)", repo_root, line)
        assert child.communicate(timeout=PATIENCE_SECONDS)[0] == "False\n"
    assert child.returncode == 0


@pytest.mark.parametrize("value", ["999", "x", ""])
def test_a_variable_without_a_pipe_is_no_lifeline(repo_root, value):
    child = run_child("print(end_with_parent())", repo_root, **{VARIABLE: value})
    assert child.communicate(timeout=PATIENCE_SECONDS)[0] == "False\n"


def test_without_a_variable_nothing_happens(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert not end_with_parent()


def test_the_command_line_hangs_on_its_lifeline(tmp_path, repo_root):
    """A command that takes long: a million events."""
    with ParentPipe() as line:
        environment = {**os.environ, **line.environment}
        command = [sys.executable, str(repo_root / "mlpf" / "pipeline.py"), "simulate", "ttbar"]
        child = subprocess.Popen(
            [*command, "-n", "1000000", "-o", tmp_path],
            pass_fds=line.pass_fds,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        wait_until(lambda: any(tmp_path.iterdir()), "the command is at work")
    child.communicate(timeout=PATIENCE_SECONDS)
    assert child.returncode == EXIT_ORPHANED
