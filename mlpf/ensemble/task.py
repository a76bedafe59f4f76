"""The task that runs one training of an ensemble in a process of its own, until it ends or stops."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlpf.engine.base import SLOT_VARIABLE
from mlpf.engine.child import ChildEnd, StopConditions, run_training, sees_directory
from mlpf.ensemble.state import MemberFiles, MemberState, read_state
from mlpf.errors import EXIT_FAILED, ConfigError
from mlpf.files.atomic import read_json
from mlpf.files.run_directory import RunDirectory

# Interval at which the wall time of a training is written.
_NOTE_SECONDS = 10.0
# Allowed stops in a row without a new checkpoint. More mean that the pilot jobs are too short.
_MAX_STALLS = 2


@dataclass(frozen=True)
class MemberTask:
    """What a worker needs to run a training.

    Attributes:
        directory: directory of the ensemble.
        name: name of the training.
        command: program and arguments of the process.
        driver: id of the driver that gives the task.
        retries: how often a crashed training is repeated.
        max_seconds: maximum wall time of all attempts together, s; None = no limit.
    """

    directory: Path
    name: str
    command: Sequence[str]
    driver: str
    retries: int
    max_seconds: float | None = None


def train_member(task: MemberTask) -> MemberState:
    """Run the training in a process of its own; write and return its state.

    The state is ``waiting`` after a stop, or after a crash that may be retried. The driver then gives the
    training again, and it continues from its latest checkpoint.

    Raises:
        ConfigError: this node does not see the directory of the ensemble.
        OSError: it cannot be written.
    """
    if not sees_directory(task.directory):
        raise ConfigError(
            f"{task.directory}: worker {os.environ.get(SLOT_VARIABLE, '')} does not see the directory of the "
            "ensemble; choose -o on a file system that all nodes share"
        )
    files = MemberFiles(task.directory, task.name)
    state = read_state(files)
    before, noted = state.seconds, 0.0
    left = None if task.max_seconds is None else max(task.max_seconds - before, 0.0)
    state.state, state.kind, state.reason = "running", "", ""
    state.attempts += 1
    state.slot = os.environ.get(SLOT_VARIABLE, "")
    state.write(files)

    def note(seconds: float) -> None:
        nonlocal noted
        if seconds - noted >= _NOTE_SECONDS:
            state.seconds, noted = before + seconds, seconds
            state.write(files)

    files.outcome.unlink(missing_ok=True)
    reached = _checkpoint(files)
    end = run_training(task.command, files.log, StopConditions(task.directory, task.driver, left), note=note)
    state.seconds = before + end.seconds
    update_state(state, end, read_json(files.outcome, dict), moved=_checkpoint(files) != reached, task=task)
    state.write(files)
    return state


def update_state(
    state: MemberState, end: ChildEnd, outcome: dict[str, Any], *, moved: bool, task: MemberTask
) -> None:
    """Update the state of a training after its process ended.

    Args:
        state: state to update.
        end: how the process ended.
        outcome: contents of the outcome file, see ``training/loop/outcome.py``; empty if there is none.
        moved: whether it wrote a checkpoint.
        task: task of the training, for its retries.
    """
    said = str(outcome.get("reason", ""))
    if end.code == 0:
        state.state, state.reason, state.stalls = "completed", said, 0
    elif end.code == EXIT_FAILED and outcome.get("state") == "failed":
        state.fail(str(outcome.get("kind", "")), said)
    elif end.reason == "time":
        state.fail(
            "time",
            f"{state.seconds:.0f} s of training, the limit is {task.max_seconds:.0f} s; it is saved, "
            "continue with --resume --retry-failed and a larger --max-time",
        )
    elif end.reason or outcome.get("state") == "stopped":
        state.state, state.reason = "waiting", said or f"stopped: {end.how}"
        state.stalls = 0 if moved or end.reason == "driver" else state.stalls + 1
        if state.stalls > _MAX_STALLS:
            state.fail(
                "time",
                f"{state.stalls} stops in a row without a new checkpoint; ask for longer jobs",
            )
    else:
        state.crashes += 1
        state.stalls = 0
        reason = f"{end.how}: {said or end.said}"
        if state.crashes > task.retries:
            state.fail("crash", reason)
        else:
            state.state, state.reason = "waiting", reason


def _checkpoint(files: MemberFiles) -> str:
    """Return a text that changes with each checkpoint."""
    try:
        return RunDirectory(files.run_dir).pointer("latest").read_text(encoding="utf-8")
    except OSError:
        return ""
