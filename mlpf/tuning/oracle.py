"""What every search algorithm of keras-tuner lacks here: state that survives any death, leases, confirmation.

keras-tuner 1.4.8 writes its state in several files and not atomically, gives running trials away again when
its chief restarts, forgets why a trial failed, and keeps its lock for ever when a call raises. The mixin here
keeps one file, written whole after each change; the caller holds the lock and ends the process on an error,
so that the next one starts from the last whole state.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlpf.atomic import atomic_write
from mlpf.config.hypertune_schema import ParameterSpace
from mlpf.config.schema import Config
from mlpf.config.search_space import search_section
from mlpf.errors import CheckpointError
from mlpf.tuning.hyperparameters import build_hyperparameters, decode, import_keras_tuner
from mlpf.tuning.state import DEFAULT_RUN, ORACLE_FILE, Status, TrialRecord, ranked

keras_tuner: Any = import_keras_tuner()
Trial = keras_tuner.engine.trial.Trial
TrialStatus = keras_tuner.engine.trial.TrialStatus

OBJECTIVE = "objective"
# Keys under which keras-tuner's Hyperband, and our ASHA, say what a promoted trial continues.
PARENT, INITIAL_EPOCH, EPOCHS, ROUND = "tuner/trial_id", "tuner/initial_epoch", "tuner/epochs", "tuner/round"

# keras-tuner raises inside its lock when so many trials failed in a row: we count ourselves.
_NEVER = 10**9


class SearchOracle(keras_tuner.Oracle):
    """Mixin in front of an oracle of keras-tuner. Calls must come one at a time.

    Args:
        directory: of the search.
        config: the whole configuration, with its section ``hypertune``.
        space: keys that are searched.
        clock: returns Unix time.
        algorithm: arguments of the oracle behind the mixin.

    Attributes:
        records: trial id -> what became of it.
        finished: nothing is left to do.
        problem: why the search gives up; empty if it does not.
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
        self.directory_path = directory
        self.max_epochs_of_trial = config.setup.num_epochs
        self.records: dict[str, TrialRecord] = {}
        self.finished = False
        self.problem = ""
        self._base_seed = config.setup.seed
        self._parameter_space = space
        self._clock = clock
        self._search_over = False
        self._to_confirm: list[dict[str, Any]] = []
        self._holders: dict[str, str] = {}
        super().__init__(
            objective=keras_tuner.Objective(OBJECTIVE, "min"),
            hyperparameters=build_hyperparameters(space),
            seed=self.hypertune.seed + 1,  # a seed of 0 means none to keras-tuner
            max_retries_per_trial=self.hypertune.max_retries,
            max_consecutive_failed_trials=_NEVER,
            allow_new_entries=False,
            tune_new_entries=False,
            **algorithm,
        )
        self.verbose = 0
        self._set_project_dir(str(directory), ".")

    # What the chief calls.

    def create_trial(self, tuner_id: str, holder: str = "", devices: int = 1, on_gpu: bool = False) -> Any:
        """Return the next trial for a worker; the one it has, if it did not end it.

        Args:
            tuner_id: the worker's id; the same after a restart.
            holder: the worker's process; another one than before has lost what the trial did since it saved.
            devices: GPUs, or cores, that the worker has for a trial.
            on_gpu: they are GPUs.

        Returns:
            A trial of keras-tuner: RUNNING; IDLE = ask again later; STOPPED = the search is over.
        """
        held = self.ongoing_trials.get(tuner_id)
        if held is not None:
            if holder == self._holders.get(tuner_id, holder):
                return held
            if self.lose(tuner_id):
                # Next in the queue: the worker whose trial it was gets it again.
                return self.create_trial(tuner_id, holder, devices, on_gpu)
        trial = self._next(tuner_id)
        if trial is None:
            idle = bool(self.ongoing_trials or self._retry_queue)
            self.finished = not idle
            self.save()
            return self._answer(TrialStatus.IDLE if idle else TrialStatus.STOPPED)
        record = self.records[trial.trial_id]
        trial.status = TrialStatus.RUNNING
        record.status, record.worker = "running", tuner_id
        record.devices, record.on_gpu = devices, on_gpu
        record.started = record.started or self._clock()
        self.ongoing_trials[tuner_id] = trial
        self._holders[tuner_id] = holder
        self.save()
        return trial

    def finish_trial(
        self,
        tuner_id: str,
        trial_id: str,
        status: str,
        *,
        metrics: dict[str, float] | None = None,
        best_epoch: int = 0,
        failure: str = "",
        kind: str = "",
        seconds: float | None = None,
    ) -> bool:
        """End a trial that a worker has run.

        Args:
            tuner_id: the worker.
            trial_id: the trial.
            status: COMPLETED, INVALID (may be repeated) or FAILED, as keras-tuner has them.
            metrics: completed: ``objective`` and all else.
            best_epoch: epoch that the objective belongs to.
            failure: why it failed.
            kind: kind of failure.
            seconds: wall time of all attempts.

        Returns:
            False if the worker does not have the trial (any more): its result does not count.
        """
        if not self.holds(tuner_id, trial_id):
            return False
        record = self.records[trial_id]
        record.seconds = record.seconds if seconds is None else seconds
        if status == TrialStatus.COMPLETED:
            record.metrics = {n: v for n, v in (metrics or {}).items() if n != OBJECTIVE}
            record.objective, record.best_epoch = (metrics or {})[OBJECTIVE], best_epoch
            super().update_trial(trial_id, {OBJECTIVE: record.objective}, step=best_epoch)
        else:
            record.failure, record.failure_kind = failure, kind or "crash"
            record.crashes += status == TrialStatus.INVALID
        self._end(trial_id, status, failure)
        self._check_failures()
        self.save()
        return True

    def holds(self, tuner_id: str, trial_id: str) -> bool:
        """Return whether a worker has a trial."""
        held = self.ongoing_trials.get(tuner_id)
        return held is not None and held.trial_id == trial_id

    def give_back(self, tuner_id: str) -> None:
        """Take a trial from a worker that stopped in order; the next one continues it."""
        self._requeue(tuner_id)
        self.save()

    def lose(self, tuner_id: str) -> bool:
        """Take a trial from a worker that died; return whether another attempt is allowed."""
        record = self.records[self._requeue(tuner_id)]
        record.losses += 1
        if again := record.losses <= self.hypertune.max_losses:
            self.save()
            return again
        self._retry_queue.remove(record.trial_id)
        record.failure = f"lost with its worker {record.losses} times (hypertune.max_losses)"
        record.failure_kind = "lost"
        self._end(record.trial_id, TrialStatus.FAILED, record.failure)
        self.save()
        return again

    def runs_to_keep(self) -> set[str]:
        """Return the runs whose checkpoints are needed: at work, to be continued, promotable, or best."""
        open_ = {r.run for r in self.records.values() if r.status in ("running", "waiting")}
        best = {r.run for r in ranked(self.records.values())[: max(1, self.hypertune.confirm.top)]}
        confirmed = {r.run for r in self.records.values() if r.purpose == "confirm"}
        promotable = set() if self._search_over else {self.records[i].run for i in self.promotable()}
        return open_ | best | confirmed | promotable

    def promotable(self) -> set[str]:
        """Return ids of completed trials that may still be promoted. Algorithms with rungs override it."""
        return set()

    # What becomes of trials.

    def _next(self, tuner_id: str) -> Any:
        """Return the trial to run next, None if there is none now."""
        self.tuner_ids.add(tuner_id)
        if self._retry_queue:
            return self.trials[self._retry_queue.pop(0)]
        if self.problem:
            return None
        if not self._search_over:
            trial = self._search_trial()
            if trial is not None or not self._search_over:
                return trial
        return self._confirm_trial() if self._to_confirm else None

    def _search_trial(self) -> Any:
        """Return a new trial of the algorithm; note the end of the search."""
        trial_id = f"{len(self.trials):04d}"
        spent = self._budget_spent()
        response = {"status": TrialStatus.STOPPED} if spent else self.populate_space(trial_id)
        if response["status"] == TrialStatus.RUNNING:
            return self._add(trial_id, response["values"])
        if response["status"] == TrialStatus.STOPPED and not self.ongoing_trials:
            self._search_over = True
            self._plan_confirmation()
        return None

    def _budget_spent(self) -> bool:
        granted = sum(r.epochs - r.initial_epoch for r in self.records.values() if r.purpose == "search")
        return self.hypertune.max_total_epochs is not None and granted >= self.hypertune.max_total_epochs

    def _add(self, trial_id: str, values: dict[str, Any]) -> Any:
        """Make a trial of the search."""
        hyperparameters = self.hyperparameters.copy()
        hyperparameters.values = dict(values)
        trial = Trial(hyperparameters, trial_id=trial_id, status=TrialStatus.RUNNING)
        parent = values.get(PARENT)
        self.trials[trial_id] = trial
        self._record_values(trial)
        self.start_order.append(trial_id)
        self.records[trial_id] = TrialRecord(
            trial_id=trial_id,
            run=self.records[parent].run if parent else trial_id,
            rung=int(values.get(ROUND, 0)),
            initial_epoch=int(values.get(INITIAL_EPOCH, 0)),
            epochs=int(values.get(EPOCHS, self.max_epochs_of_trial)),
            values=decode(self._parameter_space, trial.hyperparameters.values),
        )
        return trial

    def _plan_confirmation(self) -> None:
        """Train the best and the default configuration with other seeds: the gain gets an error."""
        section = self.hypertune.confirm
        best = ranked(self.records.values())[: section.top]
        for seed in range(self._base_seed + 1, self._base_seed + 1 + section.seeds):
            for record in best:
                self._to_confirm.append({"of": record.run, "seed": seed, "values": record.values})
            if best:
                self._to_confirm.append({"of": DEFAULT_RUN, "seed": seed, "values": {}})

    def _confirm_trial(self) -> Any:
        """Make a trial that confirms."""
        wanted = self._to_confirm.pop(0)
        trial_id = f"{len(self.trials):04d}"
        self.trials[trial_id] = trial = Trial(self.hyperparameters.copy(), trial_id=trial_id)
        self.start_order.append(trial_id)
        self.records[trial_id] = TrialRecord(
            trial_id=trial_id,
            run=f"confirm_{wanted['of']}_seed_{wanted['seed']}",
            purpose="confirm",
            epochs=self.max_epochs_of_trial,
            **wanted,
        )
        return trial

    def _end(self, trial_id: str, status: str, message: str) -> None:
        """Let keras-tuner end a trial: it scores it, or puts it into the queue again."""
        trial = self.trials[trial_id]
        trial.status, trial.message = status, message
        super().end_trial(trial)
        record = self.records[trial_id]
        ends: dict[str, Status] = {TrialStatus.COMPLETED: "completed", TrialStatus.FAILED: "failed"}
        record.status = ends.get(trial.status, "waiting")
        record.ended = self._clock()
        if record.status == "completed":
            record.failure = record.failure_kind = ""

    def _requeue(self, tuner_id: str) -> str:
        """Put a worker's trial in front of the queue; return its id."""
        trial = self.ongoing_trials.pop(tuner_id)
        self.records[trial.trial_id].status = "waiting"
        self._retry_queue.insert(0, trial.trial_id)
        return trial.trial_id

    def _check_failures(self) -> None:
        """Give up if one trial after the other crashes: the fault is not theirs."""
        most, last = self.hypertune.max_consecutive_failures, [self.records[i] for i in self.end_order]
        crashed = [r.status == "failed" and r.failure_kind in ("crash", "lost") for r in last[-most:]]
        if len(crashed) == most and all(crashed):
            self.problem = f"{most} trials in a row failed, the last: {last[-1].failure}"

    def _answer(self, status: str) -> Any:
        return Trial(self.hyperparameters.copy(), trial_id="", status=status)

    # One file instead of keras-tuner's many.

    def save(self) -> None:
        """Write the whole state, atomically."""
        with atomic_write(self.directory_path / ORACLE_FILE) as part:
            part.write_text(json.dumps(self.get_state(), default=_plain))

    def reload(self) -> None:
        """Go on from the file; trials of workers stay theirs.

        Raises:
            CheckpointError: it is damaged.
        """
        path = self.directory_path / ORACLE_FILE
        try:
            self.set_state(json.loads(path.read_text()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: damaged ({error}); start the search anew elsewhere") from None

    def get_state(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return super().get_state() | {
            "trials": {name: trial.get_state() for name, trial in self.trials.items()},
            "records": {name: record.to_json() for name, record in self.records.items()},
            "holders": self._holders,
            "search_over": self._search_over,
            "to_confirm": self._to_confirm,
            "finished": self.finished,
            "problem": self.problem,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Take the state of ``get_state``."""
        self.trials = {name: Trial.from_state(trial) for name, trial in state["trials"].items()}
        self.records = {name: TrialRecord.from_json(r) for name, r in state["records"].items()}
        self._holders = state["holders"]
        self._search_over, self._to_confirm = state["search_over"], state["to_confirm"]
        self.finished, self.problem = state["finished"], state["problem"]
        super().set_state(state)

    def _save_trial(self, trial: Any) -> None:
        """Write nothing: the one file holds all trials."""


def _plain(value: Any) -> Any:
    """Turn numbers of NumPy into those of Python."""
    return value.item()
