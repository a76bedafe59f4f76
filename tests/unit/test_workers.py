import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlpf.atomic import atomic_write
from mlpf.errors import DataError, MLPFError
from mlpf.workers import THREAD_VARIABLES, run_jobs


def square(x):
    return os.getpid(), x * x


def fail(x):
    raise DataError(f"no {x}")


def threads(x):
    return [os.environ.get(name) for name in THREAD_VARIABLES]


def die(x, folder):
    """Job 2 waits until the result of the first is seen, then is killed as if for its memory."""
    while x == 2 and not (folder / "seen").exists():
        time.sleep(0.01)
    if x == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_done_once(workers):
    results = list(run_jobs(square, [(i,) for i in range(5)], list("abcde"), workers))
    assert sorted(value for _, value in results) == [0, 1, 4, 9, 16]
    assert (os.getpid() in {pid for pid, _ in results}) == (workers == 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_come_through(workers):
    with pytest.raises(DataError, match="no 3"):
        list(run_jobs(fail, [(3,), (3,)], ["a", "b"], workers))


def test_children_use_one_thread_and_the_parent_keeps_its_own(monkeypatch):
    monkeypatch.setenv(THREAD_VARIABLES[0], "7")
    monkeypatch.delenv(THREAD_VARIABLES[1], raising=False)
    for found in run_jobs(threads, [(1,), (2,)], ["a", "b"], 2):
        assert found == ["1"] * len(THREAD_VARIABLES)
    assert threads(0)[:2] == ["7", None]


def test_a_killed_worker_is_an_error_that_names_what_is_unfinished(tmp_path):
    jobs = run_jobs(die, [(1, tmp_path), (2, tmp_path)], ["one.root", "two.root"], 2)
    assert next(jobs) == 1
    (tmp_path / "seen").touch()
    with pytest.raises(MLPFError, match=r"1 of 2 are unfinished: two\.root; what is finished is kept"):
        next(jobs)


PARENT = """
import sys
from tests.unit.test_workers import wait_for_ever
from mlpf.workers import run_jobs
if __name__ == "__main__":
    list(run_jobs(wait_for_ever, [(sys.argv[1], i) for i in range(2)], ["a", "b"], 2))
"""


def wait_for_ever(folder, i):
    with atomic_write(Path(folder) / f"started-{i}") as part:
        part.write_text(str(os.getpid()))
    time.sleep(60)


def wait_first(folder, i):
    """Like ``wait_for_ever`` for the first job; the process of the other one is idle soon."""
    if i == 0:
        wait_for_ever(folder, i)
    with atomic_write(Path(folder) / f"started-{i}") as part:
        part.write_text(str(os.getpid()))


def alive(pid):
    """Whether the process runs; one that ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def start_parent(folder, repo_root, function="wait_for_ever", **options):
    """Start ``PARENT`` in a session of its own; return it and its children once all of them work."""
    script = folder / "parent.py"
    script.write_text(PARENT.replace("wait_for_ever", function))
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    command = [sys.executable, script, folder]
    parent = subprocess.Popen(command, env=environment, start_new_session=True, **options)
    marks = [folder / f"started-{i}" for i in range(2)]
    deadline = time.monotonic() + 60
    while not all(m.exists() for m in marks) and time.monotonic() < deadline:
        time.sleep(0.02)
    return parent, [int(m.read_text()) for m in marks]


def wait_until_gone(pids):
    """Wait for processes to end, at most a minute."""
    deadline = time.monotonic() + 60
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(alive, pids))


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="asks /proc")
def test_workers_end_when_their_parent_is_killed(tmp_path, repo_root):
    parent, children = start_parent(tmp_path, repo_root)
    parent.kill()
    parent.wait()
    wait_until_gone(children)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="asks /proc")
def test_workers_end_in_silence_on_interrupt(tmp_path, repo_root):
    parent, children = start_parent(tmp_path, repo_root, "wait_first", stderr=subprocess.PIPE, text=True)
    time.sleep(0.2)  # until the second child waits for work
    os.killpg(parent.pid, signal.SIGINT)
    _, said = parent.communicate(timeout=60)
    wait_until_gone(children)
    assert (
        said.count("KeyboardInterrupt") == 1
    )  # that of the parent, which the command line turns into a word
    assert "Process Spawn" not in said
