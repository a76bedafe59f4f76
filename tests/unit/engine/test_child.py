import json
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from mlpf.engine import child
from mlpf.engine.base import PILOT_END_VARIABLE, PILOT_MARGIN_VARIABLE
from mlpf.engine.child import (
    DRIVER_FILE,
    SAVE_SECONDS,
    ChildEnd,
    StopConditions,
    announce_driver,
    ask_all_to_stop,
    is_in_charge,
    pilot_job_ends,
    program_before,
    run_child,
)
from tests.support.processes import wait_until_gone

# Says that it is ready, and waits for SIGTERM.
SAVES = """
import signal, sys, time
def save(*_):
    print("saved")
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
print("ready")
time.sleep(600)
"""
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(600)"
)
# A worker: its program is on a pipe, and writes its process id.
WORKER = """
import sys
from pathlib import Path
from mlpf.engine.child import StopConditions, run_child
folder = Path(sys.argv[1])
program = '''
import os, sys, time
from pathlib import Path
from mlpf.engine.end_with_parent import end_with_parent
end_with_parent()
part = Path(sys.argv[1]) / "part"
part.write_text(str(os.getpid()))
part.rename(part.with_name("pid"))
time.sleep(600)
'''
run_child([sys.executable, "-c", program, str(folder)], folder / "log", StopConditions(folder, "d"))
"""


@pytest.fixture
def start(tmp_path):
    """Run a program of Python; driver ``d`` is in charge."""
    announce_driver(tmp_path, "d")

    def run(code, *, max_seconds=None, **options):
        conditions = StopConditions(tmp_path, "d", max_seconds)
        return run_child([sys.executable, "-c", code], tmp_path / "log", conditions, **options)

    return run


def when_ready(folder, then):
    """Call ``then`` once the program has written its first line, in a thread."""

    def wait():
        while "ready" not in (folder / "log").read_text(encoding="utf-8"):
            time.sleep(0.02)
        then()

    (folder / "log").touch()
    threading.Thread(target=wait, daemon=True).start()


def test_output_goes_to_the_log_and_its_end_is_known(start, tmp_path):
    (tmp_path / "log").write_text("of before\n", encoding="utf-8")
    code = "import sys; print('one'); print(); print('two'); print('three', file=sys.stderr); print('four')"
    end = start(code)
    assert (end.code, end.reason, end.said) == (0, "", "two | three | four")
    assert (tmp_path / "log").read_text(encoding="utf-8").splitlines()[:2] == ["of before", "one"]
    assert end.seconds > 0


def test_a_program_gets_variables_and_no_input(start):
    end = start("import os, sys; print(os.environ['A'], repr(sys.stdin.read()))", environment={"A": "b"})
    assert end.said == "b ''"


@pytest.mark.parametrize(
    ("code", "how"),
    [
        (0, "exit code 0"),
        (7, "exit code 7"),
        (-11, "killed by SIGSEGV"),
        (-9, "killed by SIGKILL (perhaps by the system, for lack of memory)"),
    ],
)
def test_ends_in_words(code, how):
    assert ChildEnd(code, "", 1.0, "").how == how


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_signal_that_killed_a_program_is_its_code(start, number):
    end = start(f"import os; os.kill(os.getpid(), {number.value})")
    assert (end.code, end.reason) == (-number, "")


@pytest.mark.parametrize("change", [ask_all_to_stop, lambda folder: announce_driver(folder, "another")])
def test_a_program_saves_when_its_driver_is_not_in_charge(start, tmp_path, change):
    when_ready(tmp_path, lambda: change(tmp_path))
    end = start(SAVES)
    assert (end.code, end.reason, end.said) == (75, "driver", "ready | saved")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"other": 1}', None])
def test_a_file_that_cannot_be_read_changes_nothing(tmp_path, text):
    if text is not None:
        (tmp_path / DRIVER_FILE).write_text(text, encoding="utf-8")
    assert is_in_charge(tmp_path, "d")


def test_a_program_saves_before_its_pilot_job_ends(start, tmp_path, monkeypatch):
    monkeypatch.setenv(PILOT_END_VARIABLE, str(time.time() + SAVE_SECONDS + 600))
    when_ready(tmp_path, lambda: monkeypatch.setenv(PILOT_END_VARIABLE, str(time.time() + SAVE_SECONDS - 1)))
    end = start(SAVES)
    assert (end.code, end.reason) == (75, "pilot")


def test_a_pilot_job_that_does_not_end(monkeypatch):
    monkeypatch.delenv(PILOT_END_VARIABLE, raising=False)
    assert not pilot_job_ends()
    monkeypatch.setenv(PILOT_END_VARIABLE, "")
    assert not pilot_job_ends()


@pytest.mark.parametrize(
    ("left", "margin", "ends"), [(100, 150, True), (1000, 150, False), (100, None, True)]
)
def test_programs_save_as_long_before_the_end_as_the_engine_says(monkeypatch, left, margin, ends):
    monkeypatch.setenv(PILOT_END_VARIABLE, str(time.time() + left))
    monkeypatch.delenv(PILOT_MARGIN_VARIABLE, raising=False)
    if margin is not None:
        monkeypatch.setenv(PILOT_MARGIN_VARIABLE, str(margin))
    assert pilot_job_ends() == ends


def test_the_time_of_a_program_is_limited(start):
    end = start(SAVES, max_seconds=0.5)
    assert (end.code, end.reason) in {(75, "time"), (-signal.SIGTERM, "time")}  # before it was ready
    assert end.seconds > 0.5


def test_a_program_that_does_not_save_is_killed(start, tmp_path, monkeypatch):
    monkeypatch.setattr(child, "SAVE_SECONDS", 0.5)
    when_ready(tmp_path, lambda: ask_all_to_stop(tmp_path))
    end = start(STUBBORN)
    assert (end.code, end.reason) == (-signal.SIGKILL, "driver")


def test_the_time_is_told_while_a_program_runs(start):
    told = []
    end = start("import time; time.sleep(3.5)", note=told.append)
    assert len(told) >= 2
    assert told == sorted(told)
    assert 1.0 <= told[0] < told[-1] <= end.seconds


def test_an_error_of_the_caller_leaves_no_program(start, tmp_path):
    code = (
        "import os, time; from mlpf.engine.end_with_parent import end_with_parent; end_with_parent(); "
        "print('pid', os.getpid()); time.sleep(600)"
    )

    def refuse(_seconds):
        if "pid" in (tmp_path / "log").read_text(encoding="utf-8"):
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        start(code, note=refuse)
    pid = int((tmp_path / "log").read_text(encoding="utf-8").split()[1])
    wait_until_gone([pid])
    assert not psutil.pid_exists(pid)  # nor a zombie


def test_a_program_ends_when_its_worker_is_killed(tmp_path, repo_root):
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, tmp_path], env=os.environ | {"PYTHONPATH": str(repo_root)}
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    worker.kill()
    worker.wait()
    wait_until_gone([int((tmp_path / "pid").read_text(encoding="utf-8"))])


def test_the_driver_in_charge_is_one_file(tmp_path):
    announce_driver(tmp_path, "d")
    assert json.loads((tmp_path / DRIVER_FILE).read_text(encoding="utf-8")) == {"driver": "d"}
    assert (is_in_charge(tmp_path, "d"), is_in_charge(tmp_path, "e")) == (True, False)
    ask_all_to_stop(tmp_path)
    assert not is_in_charge(tmp_path, "d")


def test_child_programs_are_started_like_this_one(monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "some.program", "hypertune", "-o", "hypertune"])
    assert program_before("hypertune") == ["python", "-m", "some.program"]
    monkeypatch.setattr(sys, "orig_argv", ["python", "-c", "..."])
    assert program_before("hypertune")[0] == sys.executable
    assert program_before("hypertune")[1].endswith("pipeline.py")
