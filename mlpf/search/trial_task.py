"""A trial as a task of an engine: its worker trains it in a process of its own."""

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

# Completed or failed: ended for good. Crashed: may be repeated. Stopped: goes on later. Refused: this worker
# cannot run any trial of the search.
State = Literal["completed", "failed", "crashed", "stopped", "refused"]


@dataclass(frozen=True)
class TrialOrder:
    """What a worker is to train.

    Attributes:
        directory: of the search, absolute.
        trial_id: the trial.
        run: name of the run; its configuration has been written.
        epochs: last epoch, from 1.
        program: words that start mlpf.
        arguments: options of every trial.
        num_cpus: threads.
        driver: id of the driver.
        max_seconds: longest wall time of all attempts together, None = no limit.
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
    """What came of an attempt.

    Attributes:
        state: see ``State``.
        worker: the slot that it ran in.
        seconds: wall time of all attempts.
        reason: why it failed, crashed, stopped or was refused.
        kind: of a failure.
        progressed: it has a newer checkpoint than before.
        pilot: pilot job of the worker, by its end; empty if that does not end.
        objective: of a completed trial.
        best_epoch: epoch that the objective belongs to.
        metrics: record of that epoch, and what was measured of the network.
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


def train_trial(order: TrialOrder) -> TrialEnd:
    """Train one trial up to its rung; returns early, with all saved, when it must stop.

    Raises:
        CheckpointError: the directory of the search is damaged.
        OSError: it cannot be written.
    """
    worker = os.environ.get(SLOT_VARIABLE, "")
    if not sees_directory(order.directory):
        reason = (
            f"{order.directory}: worker {worker} does not see the directory of the search; all nodes need "
            "it: choose -o on a file system that they share"
        )
        return TrialEnd("refused", worker, 0.0, reason)
    if pilot_job_ends():
        # There is no time for anything. The next worker may be in the same pilot job.
        time.sleep(_LATE_SECONDS)
        return TrialEnd("stopped", worker, 0.0, "late", progressed=False)
    if not is_in_charge(order.directory, order.driver):
        # Or this node does not see yet that the driver took over: it asks again.
        time.sleep(_NAP_SECONDS)
        return TrialEnd("stopped", worker, 0.0, "driver", progressed=False)
    files = TrialFiles(order.directory, order.run)
    write_json(files.place, {"trial_id": order.trial_id, "worker": worker, "since": time.time()})
    before = _latest(files)
    cost = _Cost(files.cost, order.trial_id)
    end = _train(order, cost)
    return _judge(order, files, end, worker, cost.total, _latest(files) != before)


def _latest(files: TrialFiles) -> Any:
    return read_json(RunDirectory(files.run_dir).pointer("latest"), dict)


def _train(order: TrialOrder, cost: "_Cost") -> ChildEnd:
    """Run the training; wait for an earlier process of this run that still saves."""
    command = [*order.program, "hypertune", "trial", str(order.directory), order.run]
    command += ["--epochs", str(order.epochs), "--num-cpus", str(order.num_cpus), *order.arguments]
    log = order.directory / LOGS_FOLDER / f"{order.run}.log"
    log.parent.mkdir(exist_ok=True)
    left = None if order.max_seconds is None else max(0.0, order.max_seconds - cost.before)
    conditions = StopConditions(order.directory, order.driver, left)
    end = run_training(command, log, conditions, environment={"KERAS_BACKEND": "tensorflow"}, note=cost.note)
    cost.add(end.seconds)
    return end


def _judge(
    order: TrialOrder, files: TrialFiles, end: ChildEnd, worker: str, seconds: float, progressed: bool
) -> TrialEnd:
    """Say what an exit code means."""
    outcome = read_json(files.outcome, dict)
    if end.code == 0:
        return _completed(order, files, outcome, worker, seconds)
    if end.code == EXIT_FAILED:
        kind = outcome.get("kind") or "error"
        return TrialEnd("failed", worker, seconds, outcome.get("reason", ""), kind)
    asked = end.code in (EXIT_STOPPED, -signal.SIGTERM) or (end.reason != "" and end.code == -signal.SIGKILL)
    if asked and end.reason == "time":
        hours = (order.max_seconds or 0.0) / 3600
        return TrialEnd(
            "failed", worker, seconds, f"longer than hypertune.max_trial_hours, {hours:g} h", "time"
        )
    if asked:
        pilot = os.environ.get(PILOT_END_VARIABLE, "")
        return TrialEnd(
            "stopped", worker, seconds, end.reason or "signal", progressed=progressed, pilot=pilot
        )
    if end.code == EXIT_BAD_INPUT:
        return TrialEnd("refused", worker, seconds, f"worker {worker}, run {order.run}: {end.said}")
    return TrialEnd("crashed", worker, seconds, f"{end.how}: {end.said}", "crash")


def _completed(
    order: TrialOrder, files: TrialFiles, outcome: Mapping[str, Any], worker: str, seconds: float
) -> TrialEnd:
    """Return the objective and what is recorded beside it."""
    own = {name: outcome[name] for name in NETWORK_METRICS if outcome.get(name) is not None}
    history = [r | own for r in read_json(RunDirectory(files.run_dir).history, list)[: order.epochs]]
    try:
        value, epoch = objective_value(search_section(read_search_config(order.directory)), history)
    except ValueError as error:
        return TrialEnd("failed", worker, seconds, str(error), "nan")
    metrics = history[epoch - 1] | {"trained_epochs": len(history)}
    return TrialEnd("completed", worker, seconds, objective=value, best_epoch=epoch, metrics=metrics)


class _Cost:
    """Wall time of all attempts at a trial, in a file that outlives the worker.

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
        """Write now and then what the present attempt has cost so far: a worker may die in it."""
        if seconds - self._noted >= _NOTE_SECONDS:
            self._noted = seconds
            self._write(self.before + seconds)

    def add(self, seconds: float) -> None:
        """Write what an attempt has cost that is over."""
        self.total = self.before + seconds
        self._write(self.total)

    def _write(self, total: float) -> None:
        write_json(self._path, self._all | {self._trial_id: total})
