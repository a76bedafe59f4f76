"""The state of a search: its trials, which runs next, and when it is over.

keras-tuner or our own algorithms with rungs choose the configurations. The state is one file, written
atomically and synced after each change.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlpf.config.schema import Config
from mlpf.config.search.schema import ParameterSpace
from mlpf.config.search.space import search_section
from mlpf.errors import CheckpointError
from mlpf.files.atomic import atomic_write
from mlpf.search.hyperparameters import build_hyperparameters, decode
from mlpf.search.keras_tuner_adapter import EPOCHS, INITIAL_EPOCH, PARENT, ROUND, Proposer
from mlpf.search.state import DEFAULT_RUN, ORACLE_FILE, TrialRecord, ranked

_SECONDS_PER_HOUR = 3600.0
# Kinds of failures whose cause may lie outside of the trials.
_CRASHES = ("crash", "lost", "time")


class SearchOracle(Proposer):
    """Mixin for an algorithm that keeps the state of the search. Not thread-safe.

    Args:
        directory: directory of the search.
        config: the whole configuration, with its section ``hypertune``.
        space: searched key -> its values.
        clock: returns Unix time.
        algorithm: arguments of the algorithm.

    Attributes:
        records: trial id -> state and results of the trial.
        end_order: ids of trials in the order of their end.
        finished: whether the search is over.
        problem: why the search gave up; empty if it did not.
        limit: limit of the whole search that was reached; empty if none.
        wall_seconds: wall time of all drivers, s.
    """

    def __init__(
        self,
        *,
        directory: Path,
        config: Config,
        space: dict[str, ParameterSpace],
        clock: Callable[[], float] = time.time,
        **algorithm: Any,
    ):
        self.hypertune = search_section(config)
        self.max_epochs_of_trial = config.setup.num_epochs
        self.records: dict[str, TrialRecord] = {}
        self.finished = False
        self.problem = self.limit = ""
        self.wall_seconds = 0.0
        self._file = directory / ORACLE_FILE
        self._base_seed = config.setup.seed
        self._parameter_space = space
        self._clock = clock
        self._search_over = False
        self._to_confirm: list[dict[str, Any]] = []
        self._queue: list[str] = []
        self._forgiven = 0
        super().__init__(hyperparameters=build_hyperparameters(space), seed=self.hypertune.seed, **algorithm)

    # Called by the driver.

    def next_trial(self, devices: int = 1, on_gpu: bool = False) -> TrialRecord | None:
        """Return the trial to run next; None = none now. If ``finished`` is set, the search is over.

        Args:
            devices: number of GPUs, or of cores, of its slot.
            on_gpu: whether ``devices`` counts GPUs.
        """
        record = self._next()
        if record is None:
            self.finished = not self._open()
        else:
            record.status, record.devices, record.on_gpu = "running", devices, on_gpu
            record.started = record.started or self._clock()
            self.mark_open(record.trial_id)
        self.save()
        return record

    def complete(
        self, trial_id: str, objective: float, best_epoch: int, metrics: dict[str, float], seconds: float
    ) -> None:
        """Record the results of a completed trial.

        Args:
            trial_id: the trial.
            objective: value that the search minimises.
            best_epoch: epoch of the objective.
            metrics: other recorded metrics.
            seconds: wall time of all attempts, s.
        """
        record = self.records[trial_id]
        record.objective, record.best_epoch, record.metrics = objective, best_epoch, metrics
        record.failure = record.failure_kind = ""
        self._end(record, "completed", seconds)

    def fail(self, trial_id: str, failure: str, kind: str, seconds: float) -> None:
        """Record the failure of a trial.

        Args:
            trial_id: the trial.
            failure: reason.
            kind: see ``TrialRecord.failure_kind``.
            seconds: wall time of all attempts, s.
        """
        record = self.records[trial_id]
        record.failure, record.failure_kind = failure, kind
        self._end(record, "failed", seconds)

    def crash(self, trial_id: str, failure: str, seconds: float) -> None:
        """Record a crash of a trial. The trial is repeated at most ``hypertune.max_retries`` times."""
        record = self.records[trial_id]
        record.crashes += 1
        if record.crashes > self.hypertune.max_retries:
            self.fail(trial_id, failure, "crash", seconds)
            return
        record.failure, record.failure_kind = failure, "crash"
        self._wait_again(record, seconds)

    def lose(self, trial_id: str, seconds: float = 0.0) -> None:
        """Record the loss of a trial with its worker or driver. It continues at most ``max_losses`` times."""
        record = self.records[trial_id]
        record.losses += 1
        if record.losses > self.hypertune.max_losses:
            failure = f"lost with its worker {record.losses} times (hypertune.max_losses)"
            self.fail(trial_id, failure, "lost", seconds)
            return
        self._wait_again(record, seconds)

    def give_back(self, trial_id: str, seconds: float = 0.0) -> None:
        """Set a trial that was stopped to waiting, at the front of the queue."""
        self._wait_again(self.records[trial_id], seconds)

    def resume(self) -> None:
        """Resume after a driver has ended. Trials that it had running count as lost.

        A search that gave up tries again. A search that had reached a limit continues if that was raised.
        """
        for record in self.records.values():
            if record.status == "running":
                self.lose(record.trial_id)
        if self.problem:
            self.problem, self.finished = "", False
            self._forgiven = len(self.end_order)
        if self.limit and not self._limit_reached():
            self.limit, self.finished = "", False
        self.save()

    def runs_to_keep(self) -> set[str]:
        """Return the runs whose checkpoints are needed: running, waiting, promotable or best."""
        open_ = {r.run for r in self.records.values() if r.status in ("running", "waiting")}
        best = {r.run for r in ranked(self.records.values())[: max(1, self.hypertune.confirm.top)]}
        confirmed = {r.run for r in self.records.values() if r.purpose == "confirm"}
        kept = confirmed if self.hypertune.confirm.keep_checkpoints else set()
        promotable = set() if self._search_over else {self.records[i].run for i in self.promotable()}
        return open_ | best | kept | promotable

    def promotable(self) -> set[str]:
        """Return ids of completed trials that may still be promoted. Overridden by algorithms with rungs."""
        return set()

    # Choice of the next trial.

    def _next(self) -> TrialRecord | None:
        """Return the trial to run next; None if there is none now."""
        if self._queue:
            return self.records[self._queue.pop(0)]
        self.limit = self._limit_reached()
        if self.problem or self.limit:
            return None
        if not self._search_over:
            record = self._search_trial()
            if record is not None or not self._search_over:
                return record
        return self._confirm_trial() if self._to_confirm else None

    def _open(self) -> bool:
        return any(r.status in ("running", "waiting") for r in self.records.values())

    def _limit_reached(self) -> str:
        """Return the limit of the whole search that is reached; empty if none. No trial begins after it."""
        section = self.hypertune
        hours = sum(r.seconds * r.devices for r in self.records.values()) / _SECONDS_PER_HOUR
        if section.max_device_hours is not None and hours >= section.max_device_hours:
            return f"hypertune.max_device_hours: {hours:.4g} of {section.max_device_hours:g} h are spent"
        wall = self.wall_seconds / _SECONDS_PER_HOUR
        if section.max_total_hours is not None and wall >= section.max_total_hours:
            return f"hypertune.max_total_hours: {wall:.4g} of {section.max_total_hours:g} h are over"
        return ""

    def _search_trial(self) -> TrialRecord | None:
        """Return a new trial of the algorithm; None if it has none now or the search has ended."""
        trial_id = f"{len(self.records):04d}"
        answer = "stopped" if self._epochs_spent() else self.propose(trial_id)
        if isinstance(answer, dict):
            return self._add(trial_id, answer)
        if answer == "stopped" and not self._open():
            self._search_over = True
            self._plan_confirmation()
        return None

    def _epochs_spent(self) -> bool:
        granted = sum(r.epochs - r.initial_epoch for r in self.records.values() if r.purpose == "search")
        return self.hypertune.max_total_epochs is not None and granted >= self.hypertune.max_total_epochs

    def _add(self, trial_id: str, values: dict[str, Any]) -> TrialRecord:
        """Add a trial of the search."""
        parent = values.get(PARENT)
        record = TrialRecord(
            trial_id=trial_id,
            run=self.records[parent].run if parent else trial_id,
            rung=int(values.get(ROUND, 0)),
            initial_epoch=int(values.get(INITIAL_EPOCH, 0)),
            epochs=int(values.get(EPOCHS, self.max_epochs_of_trial)),
            values=decode(self._parameter_space, self.add(trial_id, values)),
        )
        self.records[trial_id] = record
        return record

    def _plan_confirmation(self) -> None:
        """Add trials that train the best and the default configuration with other seeds."""
        section = self.hypertune.confirm
        best = ranked(self.records.values())[: section.top]
        for seed in range(self._base_seed + 1, self._base_seed + 1 + section.seeds):
            for record in best:
                self._to_confirm.append({"of": record.run, "seed": seed, "values": record.values})
            if best:
                self._to_confirm.append({"of": DEFAULT_RUN, "seed": seed, "values": {}})

    def _confirm_trial(self) -> TrialRecord:
        """Add a trial of the confirmation."""
        wanted = self._to_confirm.pop(0)
        trial_id = f"{len(self.records):04d}"
        record = TrialRecord(
            trial_id=trial_id,
            run=f"confirm_{wanted['of']}_seed_{wanted['seed']}",
            purpose="confirm",
            epochs=self.max_epochs_of_trial,
            **wanted,
        )
        self.records[trial_id] = record
        return record

    def mark_open(self, trial_id: str) -> None:
        """Tell the algorithm the result of a trial, unless it belongs to the confirmation."""
        if self.records[trial_id].purpose == "search":
            super().mark_open(trial_id)

    def _end(self, record: TrialRecord, status: Any, seconds: float) -> None:
        record.status, record.ended, record.seconds = status, self._clock(), max(record.seconds, seconds)
        self.end_order.append(record.trial_id)
        if record.purpose == "search":
            self.mark_ended(record.trial_id, record.objective if status == "completed" else None)
        self._check_failures()
        self.save()

    def _wait_again(self, record: TrialRecord, seconds: float) -> None:
        """Put a trial in front of the queue."""
        record.status, record.seconds = "waiting", max(record.seconds, seconds)
        self._queue.insert(0, record.trial_id)
        self.save()

    def _check_failures(self) -> None:
        """Give up if too many trials in a row crash: the cause is then outside of the trials."""
        most = self.hypertune.max_consecutive_failures
        last = [self.records[i] for i in self.end_order[self._forgiven :]][-most:]
        crashed = [r.status == "failed" and r.failure_kind in _CRASHES for r in last]
        if len(crashed) == most and all(crashed):
            self.problem = f"{most} trials in a row failed, the last: {last[-1].failure}"

    # The state file.

    def save(self) -> None:
        """Write the whole state, atomically and synced."""
        with atomic_write(self._file, sync=True) as part:
            part.write_text(json.dumps(self.get_state(), default=_plain), encoding="utf-8")

    def reload(self) -> None:
        """Read the state from its file.

        Raises:
            CheckpointError: it is damaged.
        """
        try:
            self.set_state(json.loads(self._file.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{self._file}: damaged ({error}); start the search again in another directory"
            ) from None

    def get_state(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return super().get_state() | {
            "records": {name: record.to_json() for name, record in self.records.items()},
            "queue": self._queue,
            "search_over": self._search_over,
            "to_confirm": self._to_confirm,
            "finished": self.finished,
            "problem": self.problem,
            "limit": self.limit,
            "forgiven": self._forgiven,
            "wall_seconds": self.wall_seconds,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the state that ``get_state`` returned."""
        self.records = {name: TrialRecord.from_json(r) for name, r in state["records"].items()}
        self._queue, self._forgiven = state["queue"], state["forgiven"]
        self._search_over, self._to_confirm = state["search_over"], state["to_confirm"]
        self.finished, self.problem, self.limit = state["finished"], state["problem"], state["limit"]
        self.wall_seconds = state["wall_seconds"]
        super().set_state(state)


def _plain(value: Any) -> Any:
    """Convert NumPy numbers to Python numbers."""
    return value.item()
