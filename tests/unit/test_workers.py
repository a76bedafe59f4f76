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
from tests.support.waiting import PATIENCE_SECONDS, wait_until


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


# Whether a process ignores SIGINT it inherits from the shell: one that runs in the background does.
PARENT = """
import signal, sys
from tests.unit import test_workers
from mlpf.workers import run_jobs
folder, function, ignores = sys.argv[1:]
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN if ignores == "ignores" else signal.default_int_handler)
    jobs = [(folder, i) for i in range(2)]
    print(sorted(run_jobs(getattr(test_workers, function), jobs, ["a", "b"], 2)))
"""


def started(folder, i):
    """Note that job ``i`` runs, and in which process."""
    with atomic_write(Path(folder) / f"started-{i}") as part:
        part.write_text(str(os.getpid()), encoding="utf-8")


def wait_for_ever(folder, i):
    started(folder, i)
    time.sleep(2 * PATIENCE_SECONDS)


def wait_first(folder, i):
    """Like ``wait_for_ever`` for the first job; the process of the other one is idle soon."""
    if i == 0:
        wait_for_ever(folder, i)
    started(folder, i)


def wait_for_a_word(folder, i):
    started(folder, i)
    wait_until((Path(folder) / "go").exists, "the word to go on")
    return i


def alive(pid):
    """Whether the process runs; one that ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def start_parent(folder, repo_root, function="wait_for_ever", sigint="heeds", **options):
    """Start ``PARENT`` in a session of its own; return it and its children once all of them work."""
    script = folder / "parent.py"
    script.write_text(PARENT, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    command = [sys.executable, script, folder, function, sigint]
    parent = subprocess.Popen(command, env=environment, start_new_session=True, **options)
    marks = [folder / f"started-{i}" for i in range(2)]
    wait_until(lambda: all(m.exists() for m in marks), "two workers")
    return parent, [int(m.read_text(encoding="utf-8")) for m in marks]


def wait_until_gone(pids):
    """Wait for processes to end."""
    wait_until(lambda: not any(map(alive, pids)), f"the end of {pids}")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="asks /proc")
def test_workers_end_when_their_parent_is_killed(tmp_path, repo_root):
    parent, children = start_parent(tmp_path, repo_root)
    parent.kill()
    parent.wait()
    wait_until_gone(children)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="asks /proc")
def test_workers_end_in_silence_on_interrupt(tmp_path, repo_root):
    parent, children = start_parent(tmp_path, repo_root, "wait_first", stderr=subprocess.PIPE, text=True)
    time.sleep(0.2)  # mostly the second child waits for work then; it must be silent in any case
    os.killpg(parent.pid, signal.SIGINT)
    _, said = parent.communicate(timeout=PATIENCE_SECONDS)
    wait_until_gone(children)
    assert (
        said.count("KeyboardInterrupt") == 1
    )  # that of the parent, which the command line turns into a word
    assert "Process Spawn" not in said


def test_workers_of_a_parent_that_ignores_the_interrupt_go_on(tmp_path, repo_root):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    parent, _ = start_parent(tmp_path, repo_root, "wait_for_a_word", "ignores", **pipes)
    os.killpg(parent.pid, signal.SIGINT)
    (tmp_path / "go").touch()
    assert (*parent.communicate(timeout=PATIENCE_SECONDS), parent.returncode) == ("[0, 1]\n", "", 0)
