"""The task that trains one trial in a process of its own."""

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mlpf.config.search.schema import NETWORK_METRICS
from mlpf.config.search.space import search_section
from mlpf.engine.base import PILOT_END_VARIABLE, SLOT_VARIABLE
from mlpf.engine.child import (
    ChildEnd,
    StopConditions,
    is_in_charge,
    pilot_job_ends,
    run_training,
    sees_directory,
)
from mlpf.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_STOPPED
from mlpf.files.atomic import read_json, write_json
from mlpf.files.run_directory import RunDirectory
from mlpf.search.objective import objective_value
from mlpf.search.state import LOGS_FOLDER, read_search_config
from mlpf.search.trial_files import TrialFiles

_NOTE_SECONDS = 10.0
_NAP_SECONDS = 1.0
_LATE_SECONDS = 10.0

# Completed, failed: final. Crashed: may be repeated. Stopped: continues later. Refused: this worker cannot
# run trials of the search.
State = Literal["completed", "failed", "crashed", "stopped", "refused"]


@dataclass(frozen=True)
class TrialTask:
    """What a worker needs to train a trial.

    Attributes:
        directory: directory of the search, absolute.
        trial_id: the trial.
        run: name of the run; its configuration file must exist.
        epochs: last epoch, from 1.
        program: command that starts mlpf.
        arguments: options of every trial.
        num_cpus: threads.
        driver: id of the driver.
        max_seconds: maximum wall time of all attempts together, s; None = no limit.
    """

    directory: Path
    trial_id: str
    run: str
    epochs: int
    program: tuple[str, ...]
    arguments: tuple[str, ...]
    num_cpus: int
    driver: str
    max_seconds: float | None = None


@dataclass(frozen=True)
class TrialEnd:
    """Result of an attempt.

    Attributes:
        state: see ``State``.
        worker: slot that it ran in.
        seconds: wall time of all attempts, s.
        reason: why it failed, crashed, stopped or was refused.
        kind: kind of failure.
        progressed: whether it wrote a new checkpoint.
        pilot: end of the pilot job of the worker, as its identity; empty without an end.
        objective: objective of a completed trial.
        best_epoch: epoch of the objective.
        metrics: record of that epoch, number of parameters and inference time.
    """

    state: State
    worker: str
    seconds: float
    reason: str = ""
    kind: str = ""
    progressed: bool = True
    pilot: str = ""
    objective: float = 0.0
    best_epoch: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


def train_trial(task: TrialTask) -> TrialEnd:
    """Train one trial up to its rung. If it must stop, its state is saved first.

    Raises:
        CheckpointError: the directory of the search is damaged.
        OSError: it cannot be written.
    """
    worker = os.environ.get(SLOT_VARIABLE, "")
    if not sees_directory(task.directory):
        reason = (
            f"{task.directory}: worker {worker} does not see the directory of the search; choose -o on a "
            "file system that all nodes share"
        )
        return TrialEnd("refused", worker, 0.0, reason)
    if pilot_job_ends():
        # The pilot job is about to end. Wait, because the next worker may be in the same pilot job.
        time.sleep(_LATE_SECONDS)
        return TrialEnd("stopped", worker, 0.0, "late", progressed=False)
    if not is_in_charge(task.directory, task.driver):
        # Another driver took over, or this node does not see the new driver's file yet. The driver retries.
        time.sleep(_NAP_SECONDS)
        return TrialEnd("stopped", worker, 0.0, "driver", progressed=False)
    files = TrialFiles(task.directory, task.run)
    write_json(files.worker, {"trial_id": task.trial_id, "worker": worker, "since": time.time()})
    before = _latest(files)
    cost = _Cost(files.cost, task.trial_id)
    end = _train(task, cost)
    return _judge(task, files, end, worker, cost.total, _latest(files) != before)


def _latest(files: TrialFiles) -> Any:
    return read_json(RunDirectory(files.run_dir).pointer("latest"), dict)


def _train(task: TrialTask, cost: "_Cost") -> ChildEnd:
    """Run the training. Wait first if an earlier process of this run still saves."""
    command = [*task.program, "hypertune", "trial", str(task.directory), task.run]
    command += ["--epochs", str(task.epochs), "--num-cpus", str(task.num_cpus), *task.arguments]
    log = task.directory / LOGS_FOLDER / f"{task.run}.log"
    log.parent.mkdir(exist_ok=True)
    left = None if task.max_seconds is None else max(0.0, task.max_seconds - cost.before)
    conditions = StopConditions(task.directory, task.driver, left)
    end = run_training(command, log, conditions, environment={"KERAS_BACKEND": "tensorflow"}, note=cost.note)
    cost.add(end.seconds)
    return end


def _judge(
    task: TrialTask, files: TrialFiles, end: ChildEnd, worker: str, seconds: float, progressed: bool
) -> TrialEnd:
    """Return the result of an attempt from its exit code and outcome file."""
    outcome = read_json(files.outcome, dict)
    if end.code == 0:
        return _completed(task, files, outcome, worker, seconds)
    if end.code == EXIT_FAILED:
        kind = outcome.get("kind") or "error"
        return TrialEnd("failed", worker, seconds, outcome.get("reason", ""), kind)
    asked = end.code in (EXIT_STOPPED, -signal.SIGTERM) or (end.reason != "" and end.code == -signal.SIGKILL)
    if asked and end.reason == "time":
        hours = (task.max_seconds or 0.0) / 3600
        return TrialEnd(
            "failed", worker, seconds, f"longer than hypertune.max_trial_hours, {hours:g} h", "time"
        )
    if asked:
        pilot = os.environ.get(PILOT_END_VARIABLE, "")
        return TrialEnd(
            "stopped", worker, seconds, end.reason or "signal", progressed=progressed, pilot=pilot
        )
    if end.code == EXIT_BAD_INPUT:
        return TrialEnd("refused", worker, seconds, f"worker {worker}, run {task.run}: {end.said}")
    return TrialEnd("crashed", worker, seconds, f"{end.how}: {end.said}", "crash")


def _completed(
    task: TrialTask, files: TrialFiles, outcome: Mapping[str, Any], worker: str, seconds: float
) -> TrialEnd:
    """Return the result of a completed trial."""
    own = {name: outcome[name] for name in NETWORK_METRICS if outcome.get(name) is not None}
    history = [r | own for r in read_json(RunDirectory(files.run_dir).history, list)[: task.epochs]]
    try:
        value, epoch = objective_value(search_section(read_search_config(task.directory)), history)
    except ValueError as error:
        return TrialEnd("failed", worker, seconds, str(error), "nan")
    metrics = history[epoch - 1] | {"trained_epochs": len(history)}
    return TrialEnd("completed", worker, seconds, objective=value, best_epoch=epoch, metrics=metrics)


class _Cost:
    """Wall time of all attempts of a trial, kept in a file in case the worker dies.

    Args:
        path: file, one per run; trial id -> s.
        trial_id: the trial.
    """

    def __init__(self, path: Path, trial_id: str):
        self._path, self._trial_id = path, trial_id
        self._all: dict[str, float] = read_json(path, dict)
        self.before = self.total = self._all.get(trial_id, 0.0)
        self._noted = 0.0

    def note(self, seconds: float) -> None:
        """Write the wall time of the present attempt so far, every few seconds."""
        if seconds - self._noted >= _NOTE_SECONDS:
            self._noted = seconds
            self._write(self.before + seconds)

    def add(self, seconds: float) -> None:
        """Write the wall time of a finished attempt."""
        self.total = self.before + seconds
        self._write(self.total)

    def _write(self, total: float) -> None:
        write_json(self._path, self._all | {self._trial_id: total})
