"""The driver of a search: gives trials to an engine, collects their results and keeps the state."""

import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mlpf.config.loading import write_resolved
from mlpf.config.schema import Config
from mlpf.config.search.space import trial_config
from mlpf.engine.base import Engine, EngineFailed, TaskLost
from mlpf.engine.child import SAVE_SECONDS, announce_driver, ask_all_to_stop, is_in_charge
from mlpf.errors import ConfigError, MLPFError, OutputExists
from mlpf.files.run_directory import RunDirectory
from mlpf.search.results.run_progress import spent_seconds
from mlpf.search.state import RUNS_FOLDER, TrialRecord
from mlpf.search.trial_files import TrialFiles
from mlpf.search.trial_task import TrialEnd, TrialTask, train_trial

if TYPE_CHECKING:  # keras-tuner is heavy
    from mlpf.search.oracle import SearchOracle

_TICK_SECONDS = 0.5
# Time after a request to stop: for trials to save, and for workers to report.
_LEAVE_SECONDS = SAVE_SECONDS + 30.0
# Allowed number of pilot jobs in a row that end before a trial has a new checkpoint.
_MAX_IDLE_PILOTS = 3
# The state is written at least this often, to keep the wall time of the search.
_STATE_SECONDS = 60.0
_SECONDS_PER_HOUR = 3600.0


class SearchFailed(MLPFError):
    """A search gave up or ended without a completed trial."""

    exit_code = 1


class NodeRefused(MLPFError):
    """A worker cannot run trials of this search, because its files or programs differ from the driver's."""


class TakenOver(OutputExists):
    """Another driver has taken over the search."""


class Stop(Protocol):
    """A request to stop."""

    @property
    def reason(self) -> str | None:
        """Why to stop; None = continue."""


class View(Protocol):
    """Shows a search to the user."""

    def update(self) -> None:
        """Show the present state; called about twice per second."""

    def close(self) -> None:
        """Show the last state."""


class Driver:
    """Runs a search until it is over or a stop is requested.

    Args:
        oracle: state of the search.
        engine: runs the trials.
        directory: directory of the search, visible to all workers.
        config: configuration of the search.
        program: command that starts mlpf.
        arguments: options of every trial.
        stop: request to stop, checked twice per second.
        view: shows the search.
        say: prints a line for the user.
    """

    def __init__(
        self,
        oracle: "SearchOracle",
        engine: Engine,
        directory: Path,
        config: Config,
        *,
        program: Sequence[str],
        arguments: Sequence[str],
        stop: Stop,
        view: View,
        say: Callable[[str], None],
    ):
        self._oracle, self._engine = oracle, engine
        self._directory, self._config = directory.absolute(), config
        self._program, self._arguments = tuple(program), tuple(arguments)
        self._stop, self._view, self._say = stop, view, say
        self._id = uuid.uuid4().hex
        self._running: dict[Future[TrialEnd], str] = {}
        # Trial -> pilot jobs that ended without a new checkpoint of the trial.
        self._idle_pilots: dict[str, set[str]] = {}
        self._removed: set[str] = set()
        self._begin, self._wall_before = time.monotonic(), oracle.wall_seconds
        self._saved = self._begin
        self._leaving = False

    def run(self) -> str | None:
        """Run the search.

        Returns:
            None if the search is over, else the reason of the stop.

        Raises:
            NodeRefused: a worker cannot run trials of this search. All other trials have saved.
            SearchFailed: pilot jobs are too short for a trial.
            TakenOver: another driver has taken over the search and its state.
            EngineFailed: the engine has ended. All trials wait again.
            KeyboardInterrupt: second Ctrl-C. Running trials are lost.
        """
        # Trials of an earlier driver that still run save and stop.
        announce_driver(self._directory, self._id)
        free = True
        try:
            while self._stop.reason is None:
                if free:
                    self._fill()
                if not self._running:
                    self._remove_checkpoints()
                    return None
                free = self._collect(_TICK_SECONDS)
            self._leave()
            return self._stop.reason
        except TakenOver:
            self._wait_for_saves()
            raise
        except Exception:
            self._leave()
            raise
        finally:
            self._view.close()

    def _fill(self) -> None:
        """Give trials to free slots."""
        slot = self._engine.slot
        devices = slot.num_gpus or slot.num_cpus
        while len(self._running) < self._engine.num_slots:
            record = self._oracle.next_trial(devices, on_gpu=slot.num_gpus > 0)
            if record is None:
                return
            try:
                self._describe(record)
            except ConfigError as error:
                self._oracle.fail(record.trial_id, str(error), "refused", 0.0)
                continue
            hours = self._oracle.hypertune.max_trial_hours
            task = TrialTask(
                self._directory,
                record.trial_id,
                record.run,
                record.epochs,
                self._program,
                self._arguments,
                slot.num_cpus,
                self._id,
                None if hours is None else hours * _SECONDS_PER_HOUR,
            )
            # The worker writes the file when it begins.
            TrialFiles(self._directory, record.run).worker.unlink(missing_ok=True)
            try:
                future = self._engine.submit(train_trial, task)
            except EngineFailed:
                self._oracle.give_back(record.trial_id)
                raise
            self._running[future] = record.trial_id

    def _describe(self, record: TrialRecord) -> None:
        """Write the configuration of a run, once."""
        file = TrialFiles(self._directory, record.run).config
        if not file.is_file():
            file.parent.mkdir(exist_ok=True)
            write_resolved(trial_config(self._config, record.values, record.seed), file)

    def _collect(self, seconds: float) -> bool:
        """Wait ``seconds`` for trials to end, record their results, return whether any ended."""
        done, _ = wait(self._running, timeout=seconds, return_when=FIRST_COMPLETED)
        if not self._leaving and not is_in_charge(self._directory, self._id):
            raise TakenOver(
                f"{self._directory}: another driver has taken over this search and its state; this one ends"
            )
        now = time.monotonic()
        self._oracle.wall_seconds = self._wall_before + now - self._begin
        for future in done:
            trial_id = self._running.pop(future)
            spent = spent_seconds(self._directory, self._oracle.records[trial_id])
            try:
                end = future.result()
            except TaskLost as error:
                self._say(f"trial {trial_id} lost its worker and continues on another one: {error}")
                self._oracle.lose(trial_id, spent)
                continue
            except Exception:  # the engine has ended, or the worker cannot read or write the directory
                self._oracle.give_back(trial_id, spent)
                raise
            self._take_up(trial_id, end)
        if done:
            self._remove_checkpoints()
        elif now - self._saved > _STATE_SECONDS:
            self._saved = now
            self._oracle.save()
        self._view.update()
        return bool(done)

    def _take_up(self, trial_id: str, end: TrialEnd) -> None:
        """Record the result of an attempt."""
        oracle = self._oracle
        oracle.records[trial_id].worker = end.worker
        if end.state == "completed":
            oracle.complete(trial_id, end.objective, end.best_epoch, dict(end.metrics), end.seconds)
        elif end.state == "failed":
            oracle.fail(trial_id, end.reason, end.kind, end.seconds)
        elif end.state == "crashed":
            oracle.crash(trial_id, end.reason, end.seconds)
        else:
            oracle.give_back(trial_id, end.seconds)
        if end.state == "refused":
            raise NodeRefused(end.reason)
        if end.state != "stopped" or end.progressed:
            self._idle_pilots.pop(trial_id, None)
        elif end.reason == "pilot":
            idle = self._idle_pilots.setdefault(trial_id, set())
            idle.add(end.pilot)
            if len(idle) >= _MAX_IDLE_PILOTS:
                raise SearchFailed(
                    f"trial {trial_id}: {_MAX_IDLE_PILOTS} pilot jobs in a row ended before it had a "
                    "checkpoint; give the site a longer walltime"
                )

    def _leave(self) -> None:
        """Let running trials save, then set all to waiting."""
        self._leaving = True
        ask_all_to_stop(self._directory)
        for future, trial_id in list(self._running.items()):
            if future.cancel():
                self._running.pop(future)
                self._oracle.give_back(trial_id)
        deadline = time.monotonic() + _LEAVE_SECONDS
        while self._at_work() and time.monotonic() < deadline:
            try:
                self._collect(_TICK_SECONDS)
            except Exception as error:  # noqa: BLE001 - the remaining trials must still save
                self._say(str(error))
        at_work = self._at_work()
        for future, trial_id in self._running.items():
            if future in at_work:
                self._say(f"trial {trial_id}: has not saved within {_LEAVE_SECONDS:g} s")
            self._oracle.give_back(trial_id, spent_seconds(self._directory, self._oracle.records[trial_id]))
        self._running.clear()
        self._oracle.save()

    def _wait_for_saves(self) -> None:
        """Let running trials save. The other driver collects their results."""
        wait(self._at_work(), timeout=_LEAVE_SECONDS)

    def _at_work(self) -> list[Future[TrialEnd]]:
        """Return the tasks that a worker has begun. Others still wait, for example for a pilot job."""
        records = self._oracle.records
        return [
            future
            for future, trial_id in self._running.items()
            if future.done() or TrialFiles(self._directory, records[trial_id].run).worker.is_file()
        ]

    def _remove_checkpoints(self) -> None:
        """Remove checkpoints that are not needed any more. Histories and logs stay."""
        known = {record.run for record in self._oracle.records.values()}
        needless = known - self._oracle.runs_to_keep() - self._removed
        for run in needless:
            folder = RunDirectory(self._directory / RUNS_FOLDER / run).checkpoints
            shutil.rmtree(folder, ignore_errors=True)
        self._removed |= needless
