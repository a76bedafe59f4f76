"""What the end of a process means for a training."""

import json
import sys

import pytest

from mlpf.engine import child
from mlpf.engine.child import ChildEnd, announce_driver
from mlpf.ensemble.state import LOGS_FOLDER, STATES_FOLDER, MemberFiles, MemberState, read_state
from mlpf.ensemble.task import MemberTask, train_member, update_state
from mlpf.errors import ConfigError

FAILED = {"state": "failed", "kind": "nan", "reason": "loss is nan"}
STOPPED = {"state": "stopped", "kind": "", "reason": "SIGTERM, after 1 epochs"}


def task(folder, *words, retries=2, max_seconds=None):
    return MemberTask(folder, "a", words, "driver", retries, max_seconds)


@pytest.mark.parametrize(
    ("end", "outcome", "expected"),
    [
        (ChildEnd(0, "", 5, ""), {"state": "completed", "reason": "early"}, ("completed", "", "early")),
        (ChildEnd(0, "driver", 5, ""), {"state": "completed"}, ("completed", "", "")),
        (ChildEnd(3, "", 5, ""), FAILED, ("failed", "nan", "loss is nan")),
        (ChildEnd(75, "driver", 5, ""), STOPPED, ("waiting", "", STOPPED["reason"])),
        (ChildEnd(75, "pilot", 5, ""), STOPPED, ("waiting", "", STOPPED["reason"])),
        (ChildEnd(-15, "pilot", 5, ""), {}, ("waiting", "", "stopped: killed by SIGTERM")),
        (ChildEnd(75, "", 5, ""), STOPPED, ("waiting", "", STOPPED["reason"])),
        (
            ChildEnd(2, "", 5, "the end"),
            {"state": "failed", "kind": "error"},
            ("waiting", "", "exit code 2: the end"),
        ),
        (ChildEnd(-11, "", 5, "the end"), {}, ("waiting", "", "killed by SIGSEGV: the end")),
        (ChildEnd(3, "", 5, "the end"), {}, ("waiting", "", "exit code 3: the end")),
    ],
)
def test_state_after_a_process(tmp_path, end, outcome, expected):
    state = MemberState("running")
    update_state(state, end, outcome, moved=True, task=task(tmp_path))
    assert (state.state, state.kind, state.reason) == expected


def test_a_crash_is_retried_a_number_of_times(tmp_path):
    state, stages = MemberState("running"), []
    for _ in range(3):
        update_state(state, ChildEnd(1, "", 5, "x"), {}, moved=True, task=task(tmp_path, retries=2))
        stages.append(state.state)
    assert stages == ["waiting", "waiting", "failed"]
    assert (state.kind, state.crashes) == ("crash", 3)
    state.begin_again()
    assert (state.state, state.kind, state.crashes) == ("waiting", "", 0)


def test_a_training_that_is_too_long(tmp_path):
    state = MemberState("running", seconds=61.0)
    update_state(
        state, ChildEnd(75, "time", 5, ""), STOPPED, moved=True, task=task(tmp_path, max_seconds=60.0)
    )
    assert (state.state, state.kind) == ("failed", "time")
    assert "61 s of training, the limit is 60 s" in state.reason


def test_jobs_that_are_too_short_for_a_checkpoint(tmp_path):
    state, stages = MemberState("running"), []
    for moved in (False, False, True, False, False, False):
        update_state(state, ChildEnd(75, "pilot", 5, ""), STOPPED, moved=moved, task=task(tmp_path))
        stages.append(state.state)
    assert stages == ["waiting"] * 5 + ["failed"]
    assert state.kind == "time"


WRITES_OUTCOME = """
import json, sys
from pathlib import Path
Path(sys.argv[1]).write_text(json.dumps({"state": "failed", "kind": "nan", "reason": "said"}))
sys.exit(3)
"""


@pytest.fixture
def directory(tmp_path):
    for folder in (LOGS_FOLDER, STATES_FOLDER):
        (tmp_path / folder).mkdir()
    announce_driver(tmp_path, "driver")
    return tmp_path


def test_state_is_in_the_file(directory, monkeypatch):
    monkeypatch.setenv("MLPF_SLOT", "node-7")
    files = MemberFiles(directory, "a")
    state = train_member(task(directory, sys.executable, "-c", WRITES_OUTCOME, str(files.outcome)))
    assert (state.state, state.kind, state.reason) == ("failed", "nan", "said")
    assert (state.attempts, state.slot) == (1, "node-7")
    assert read_state(files) == state


def test_an_outcome_of_before_does_not_count(directory):
    files = MemberFiles(directory, "a")
    files.outcome.write_text(json.dumps(FAILED), encoding="utf-8")
    state = train_member(task(directory, sys.executable, "-c", "import sys; print('why'); sys.exit(3)"))
    assert (state.state, state.crashes, state.reason) == ("waiting", 1, "exit code 3: why")
    again = train_member(task(directory, sys.executable, "-c", ""))
    assert (again.state, again.attempts, again.crashes) == ("completed", 2, 1)
    assert again.seconds > state.seconds


def test_a_program_of_another_driver_stops(directory):
    announce_driver(directory, "another")
    state = train_member(task(directory, sys.executable, "-c", "import time; time.sleep(100)"))
    assert (state.state, state.reason, state.stalls) == ("waiting", "stopped: killed by SIGTERM", 0)


def test_a_node_that_does_not_see_the_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "_SHARED_SECONDS", 0.0)
    with pytest.raises(ConfigError, match="choose -o on a file system that all nodes share"):
        train_member(task(tmp_path))


BUSY_ONCE = """
import sys
from pathlib import Path
seen = Path(sys.argv[1])
sys.exit(0 if seen.exists() else seen.touch() or 4)
"""


def test_a_run_that_is_still_saved_is_waited_for(directory, monkeypatch):
    monkeypatch.setattr(child, "_NAP_SECONDS", 0.01)
    state = train_member(task(directory, sys.executable, "-c", BUSY_ONCE, str(directory / "seen")))
    assert (state.state, state.attempts, state.crashes) == ("completed", 1, 0)
