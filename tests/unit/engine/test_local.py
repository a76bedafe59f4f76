"""The engine of one machine: results, errors, lost workers, and no process left."""

import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from concurrent.futures import CancelledError, wait
from contextlib import suppress
from pathlib import Path

import pytest

from mlpf.engine.base import SLOT_VARIABLE, TaskLost
from mlpf.engine.local import THREAD_VARIABLES, InProcessEngine, LocalEngine
from mlpf.errors import DataError
from mlpf.machine.allocation import DeviceGroup
from tests.support import pool_tasks
from tests.support.processes import alive, needs_proc, wait_until_gone
from tests.support.waiting import PATIENCE_SECONDS, wait_until


def local(workers=2, retries=1, **group):
    """An engine of workers that are all alike."""
    return LocalEngine([DeviceGroup(**group)] * workers, retries)


@pytest.fixture(params=["here", "local"])
def engine(request):
    """Both engines of one machine."""
    with InProcessEngine() if request.param == "here" else local() as opened:
        yield opened


def test_results_are_those_of_the_function(engine):
    futures = [engine.submit(pool_tasks.square, i) for i in range(5)]
    assert [f.result(PATIENCE_SECONDS)[1] for f in futures] == [0, 1, 4, 9, 16]
    processes = {f.result()[0] for f in futures}
    assert len(processes) <= engine.num_slots
    assert (os.getpid() in processes) == isinstance(engine, InProcessEngine)


def test_an_error_arrives_with_its_place_and_is_final(engine, tmp_path):
    error = engine.submit(pool_tasks.fail, 3).exception(PATIENCE_SECONDS)
    assert type(error) is DataError
    assert str(error) == "no 3"
    said = "".join(traceback.format_exception(error))
    assert 'raise DataError(f"no {x}")' in said
    assert "pool_tasks.py" in said
    with pytest.raises(DataError, match="the first time"):
        engine.submit(pool_tasks.fail_once, tmp_path).result(PATIENCE_SECONDS)
    assert pool_tasks.attempts(tmp_path, "fail") == 1


def test_a_lost_task_is_tried_again(tmp_path):
    with local(retries=2) as engine:
        lost = engine.submit(pool_tasks.killed, tmp_path, "a", 2)
        others = [engine.submit(pool_tasks.square, i) for i in range(4)]
        assert lost.result(PATIENCE_SECONDS) == 3
        assert [f.result(PATIENCE_SECONDS)[1] for f in others] == [0, 1, 4, 9]


def test_a_task_that_is_lost_too_often_is_named_and_others_go_on(tmp_path):
    with local(retries=1) as engine:
        lost = engine.submit(pool_tasks.killed, tmp_path, "a", 9)
        with pytest.raises(TaskLost, match=r"pool_tasks\.killed: its worker .* tried 2 time\(s\)"):
            lost.result(PATIENCE_SECONDS)
        assert pool_tasks.attempts(tmp_path, "a") == 2
        assert engine.submit(pool_tasks.square, 3).result(PATIENCE_SECONDS)[1] == 9


def test_workers_have_the_threads_of_their_group_and_the_parent_keeps_its_own(monkeypatch):
    monkeypatch.setenv(THREAD_VARIABLES[0], "7")
    monkeypatch.delenv(THREAD_VARIABLES[1], raising=False)
    with local(1, num_cpus=3) as engine:
        found = engine.submit(pool_tasks.threads).result(PATIENCE_SECONDS)
    assert found == ["3"] * len(THREAD_VARIABLES)
    assert pool_tasks.threads()[:2] == ["7", None]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity")
def test_workers_are_bound_to_the_cores_of_their_group():
    core = max(os.sched_getaffinity(0))
    with local(1, cpus=frozenset({core})) as engine:
        assert engine.submit(pool_tasks.cores).result(PATIENCE_SECONDS) == {core}


def test_each_worker_has_a_name_and_its_devices(tmp_path):
    groups = [DeviceGroup({"CUDA_VISIBLE_DEVICES": str(i)}, num_gpus=1) for i in range(2)]
    with LocalEngine(groups) as engine:
        assert (engine.num_slots, engine.slot.num_gpus) == (2, 1)
        running = [engine.submit(pool_tasks.wait_for_a_word, tmp_path, name) for name in "ab"]
        pool_tasks.processes(tmp_path, "a", "b")  # each worker has one task
        (tmp_path / "go").touch()
        wait(running)
        asked = (pool_tasks.environment, SLOT_VARIABLE, "CUDA_VISIBLE_DEVICES")
        seen = {tuple(engine.submit(*asked).result(PATIENCE_SECONDS)) for _ in range(4)}
    assert seen == {(f"{socket.gethostname()}-{i}", str(i)) for i in range(2)}
    assert SLOT_VARIABLE not in os.environ


@needs_proc
def test_an_idle_worker_that_dies_costs_nothing(tmp_path):
    with local(1) as engine:
        process, _ = engine.submit(pool_tasks.square, 1).result(PATIENCE_SECONDS)
        os.kill(process, signal.SIGKILL)
        wait_until_gone([process])
        other, value = engine.submit(pool_tasks.square, 2).result(PATIENCE_SECONDS)
    assert value == 4
    assert other != process


def test_a_function_that_cannot_be_pickled_is_its_own_error():
    with local(1) as engine:
        assert engine.submit(lambda: 1).exception(PATIENCE_SECONDS) is not None
        assert engine.submit(pool_tasks.square, 2).result(PATIENCE_SECONDS)[1] == 4


@needs_proc
def test_an_orderly_end_waits_for_what_runs(tmp_path):
    with local(1) as engine:
        running = engine.submit(pool_tasks.wait_for_a_word, tmp_path, "a")
        waiting = engine.submit(pool_tasks.square, 1)
        (process,) = pool_tasks.processes(tmp_path, "a")
        (tmp_path / "go").touch()
    assert running.result(0) == "a"
    assert waiting.cancelled() or waiting.result(0)[1] == 1
    assert not alive(process)
    with pytest.raises(RuntimeError, match="shut down"):
        engine.submit(pool_tasks.square, 1)


@needs_proc
def test_an_end_after_an_error_leaves_no_process(tmp_path):
    def break_off():
        with local(2, retries=5) as engine:
            futures.extend(engine.submit(pool_tasks.wait_for_ever, tmp_path, name) for name in "abc")
            pids.extend(pool_tasks.processes(tmp_path, "a", "b"))
            raise KeyboardInterrupt

    futures, pids = [], []
    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert not any(map(alive, pids))
    for future in futures[:2]:
        assert isinstance(future.exception(PATIENCE_SECONDS), TaskLost)
    with pytest.raises(CancelledError):
        futures[2].result(0)
    assert pool_tasks.attempts(tmp_path, "a") == pool_tasks.attempts(tmp_path, "b") == 1


# Whether a process ignores SIGINT it inherits from the shell: one that runs in the background does.
PARENT = """
import signal, sys
from mlpf.machine.allocation import DeviceGroup
from mlpf.engine.jobs import run_jobs
from mlpf.engine.local import LocalEngine
from tests.support import pool_tasks
folder, function, ignores = sys.argv[1:]
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN if ignores == "ignores" else signal.default_int_handler)
    jobs = [(folder, name) for name in "ab"]
    with LocalEngine([DeviceGroup()] * 2, 1) as engine:
        print(sorted(run_jobs(engine, getattr(pool_tasks, function), jobs, "ab")))
"""


def run_parent(folder, repo_root, function="wait_for_ever", sigint="heeds", **options):
    """Start ``PARENT`` in a session of its own."""
    script = folder / "parent.py"
    script.write_text(PARENT, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    command = [sys.executable, script, folder, function, sigint]
    return subprocess.Popen(command, env=environment, start_new_session=True, **options)


def start_parent(folder, *arguments, **options):
    """Start ``PARENT``; return it and its children once all of them work."""
    return run_parent(folder, *arguments, **options), pool_tasks.processes(folder, "a", "b")


@needs_proc
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_when_their_parent_is_killed(tmp_path, repo_root, kill):
    parent, children = start_parent(tmp_path, repo_root)
    parent.send_signal(kill)
    parent.wait()
    wait_until_gone(children)


@needs_proc
def test_workers_end_in_silence_on_interrupt(tmp_path, repo_root):
    parent, children = start_parent(tmp_path, repo_root, "wait_first", stderr=subprocess.PIPE, text=True)
    time.sleep(0.2)  # mostly the second child waits for work then; it must be silent in any case
    os.killpg(parent.pid, signal.SIGINT)
    _, said = parent.communicate(timeout=PATIENCE_SECONDS)
    assert not any(map(alive, children))
    assert (
        said.count("KeyboardInterrupt") == 1
    )  # that of the parent, which the command line turns into a word
    assert "Process Spawn" not in said


@needs_proc
def test_workers_that_begin_are_silent_on_interrupt_too(tmp_path, repo_root):
    parent = run_parent(tmp_path, repo_root, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(workers_of(parent.pid)) == 2, "two processes")
    os.killpg(parent.pid, signal.SIGINT)
    _, said = parent.communicate(timeout=PATIENCE_SECONDS)
    assert said.count("Traceback") == said.count("KeyboardInterrupt") == 1


def workers_of(pid):
    """Return the child processes that are to become workers, and whose Python has seen to SIGINT."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            text = (folder / "status").read_text(encoding="utf-8")
            status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
            handled = int(status["SigCgt"], 16) | int(status["SigIgn"], 16)
            ours = int(status["PPid"]) == pid and b"spawn_main" in (folder / "cmdline").read_bytes()
            if ours and handled & 1 << (signal.SIGINT - 1):
                found.append(int(folder.name))
    return found


def test_workers_of_a_parent_that_ignores_the_interrupt_go_on(tmp_path, repo_root):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    parent, _ = start_parent(tmp_path, repo_root, "wait_for_a_word", "ignores", **pipes)
    os.killpg(parent.pid, signal.SIGINT)
    (tmp_path / "go").touch()
    assert (*parent.communicate(timeout=PATIENCE_SECONDS), parent.returncode) == ("['a', 'b']\n", "", 0)
