"""The loop of a worker: keras-tuner's, with a training in a process of its own as trial."""

import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlpf.config.hypertune_schema import NETWORK_METRICS
from mlpf.config.loading import write_resolved
from mlpf.config.schema import Config
from mlpf.config.search_space import search_section, trial_config
from mlpf.errors import ConfigError
from mlpf.lifeline import Lifeline
from mlpf.run_files import HISTORY_FILE
from mlpf.tuning.client import RemoteOracle
from mlpf.tuning.objective import objective_value
from mlpf.tuning.oracle import OBJECTIVE, keras_tuner
from mlpf.tuning.state import LOGS_FOLDER, TrialRecord
from mlpf.tuning.trial_files import COMPLETED, FAILED, STOPPED, TrialFiles, read_json, write_json

FailedTrialError = keras_tuner.errors.FailedTrialError

_POLL_S = 0.1
# A training that was asked to stop saves first.
_STOP_S = 120.0
_LOG_LINES = 3


class WorkerAsked(keras_tuner.errors.FatalError):
    """The worker was asked to stop; its trial is saved. keras-tuner lets this error through."""


class TrialTaken(Exception):
    """The chief gave the trial to another worker."""


@dataclass
class Orders:
    """What others want of a running trial; set by the signal handler and the heartbeat.

    Attributes:
        stop: the worker is to stop, in order.
        pause: the chief was not heard for long: save, and wait for it.
        taken: the trial belongs to another worker now.
    """

    stop: bool = False
    pause: bool = False
    taken: bool = False


@dataclass
class Resources:
    """What a trial may use.

    Attributes:
        command: that runs mlpf.
        arguments: that every trial gets.
        environment: of the process of a trial.
        num_cpus: threads.
    """

    command: Sequence[str]
    arguments: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)
    num_cpus: int = 1


class SearchTuner(keras_tuner.engine.base_tuner.BaseTuner):
    """Runs the trials that the chief gives, one after the other, each as the ordinary training.

    Args:
        oracle: the chief.
        directory: of the search.
        config: the whole configuration of the search.
        worker: id of this worker.
        resources: what a trial may use.
        orders: what others want.
    """

    def __init__(
        self,
        oracle: RemoteOracle,
        directory: Path,
        config: Config,
        worker: str,
        resources: Resources,
        orders: Orders,
    ):
        super().__init__(oracle, directory=str(directory), project_name=".", overwrite=False)
        self.tuner_id = worker
        self._search_directory = directory
        self._config = config
        self._resources = resources
        self._orders = orders
        self._cost: Cost | None = None

    def _get_tuner_fname(self) -> str:
        """Return a file that is never there: a worker has no state to load."""
        return str(Path(self.directory) / ".no_state_of_workers")

    def save(self) -> None:
        """Nothing: the chief keeps the state."""

    @property
    def seconds(self) -> float:
        """Wall time of all attempts at the trial that runs."""
        cost = self._cost  # the heartbeat reads it while a trial ends
        return 0.0 if cost is None else cost.total()

    def keep_cost(self) -> None:
        """Write what the trial that runs has cost so far: a worker that dies has spent it too."""
        cost = self._cost
        if cost is not None:
            cost.save()

    def run_trial(self, trial: Any, *_arguments: Any, **_options: Any) -> dict[str, float]:
        """Train up to the trial's rung; return its metrics.

        Raises:
            FailedTrialError: it cannot be run; keras-tuner does not repeat it.
            RuntimeError: its process crashed; keras-tuner may repeat it.
            WorkerAsked: the worker is to stop.
            TrialTaken: another worker has it now.
        """
        record = self.oracle.record
        files = TrialFiles(self._search_directory, record.run)
        self._orders.pause = self._orders.taken = False
        try:
            self._describe(files, record)
        except ConfigError as error:
            self.oracle.result = {"failure": str(error), "kind": "refused"}
            raise FailedTrialError(str(error)) from None
        self._cost = Cost(files.cost, trial.trial_id)
        try:
            code = self._train(record)
        finally:
            self.keep_cost()
            self.oracle.result = {"seconds": self.seconds}
            self._cost = None
        outcome = read_json(files.outcome, dict)
        if code == FAILED:
            self.oracle.result |= {"failure": outcome.get("reason", ""), "kind": outcome.get("kind", "error")}
            raise FailedTrialError(outcome.get("reason", ""))
        if code != COMPLETED:
            reason = self._crash(record, code)
            self.oracle.result |= {"failure": reason, "kind": "crash"}
            raise RuntimeError(reason)
        return self._metrics(files, record, outcome)

    def _describe(self, files: TrialFiles, record: TrialRecord) -> None:
        """Write the configuration of a run, once."""
        if not files.config.is_file():
            files.config.parent.mkdir(exist_ok=True)
            write_resolved(trial_config(self._config, record.values, record.seed), files.config)

    def _train(self, record: TrialRecord) -> int:
        """Train in a process of its own; return its exit code."""
        while True:
            code = self._attempt(record)
            if self._orders.taken:
                raise TrialTaken(f"trial {record.trial_id} belongs to another worker now")
            if self._orders.stop:
                raise WorkerAsked
            if code != STOPPED:
                return code
            while self._orders.pause and not (self._orders.stop or self._orders.taken):
                time.sleep(_POLL_S)

    def _attempt(self, record: TrialRecord) -> int:
        """Start the training, watch it, and end it if others want so."""
        resources = self._resources
        command = [*resources.command, "hypertune", "trial", str(self._search_directory), record.run]
        command += ["--epochs", str(record.epochs), "--num-cpus", str(resources.num_cpus)]
        command += resources.arguments
        log = self._search_directory / LOGS_FOLDER / f"{record.run}.log"
        log.parent.mkdir(exist_ok=True)
        with log.open("ab") as output, Lifeline() as lifeline:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**resources.environment, **lifeline.environment},
                pass_fds=lifeline.pass_fds,
            )
            asked = None
            while process.poll() is None:
                orders, now = self._orders, time.monotonic()
                if asked is None and (orders.stop or orders.pause):
                    process.send_signal(signal.SIGTERM)
                    asked = now
                if orders.taken or (asked is not None and now - asked > _STOP_S):
                    process.kill()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_S)
            if asked is not None and process.returncode == -signal.SIGTERM:
                return STOPPED  # asked before it could listen: nothing is lost
            return process.returncode

    def _metrics(self, files: TrialFiles, record: TrialRecord, outcome: dict[str, Any]) -> dict[str, float]:
        """Return the objective and what is recorded beside it."""
        own = {n: outcome[n] for n in NETWORK_METRICS if outcome.get(n) is not None}
        history = [r | own for r in read_json(files.run_dir / HISTORY_FILE, list)[: record.epochs]]
        try:
            value, epoch = objective_value(search_section(self._config), history)
        except ValueError as error:
            self.oracle.result |= {"failure": str(error), "kind": "nan"}
            raise FailedTrialError(str(error)) from None
        self.oracle.result["best_epoch"] = epoch
        return history[epoch - 1] | {OBJECTIVE: value, "trained_epochs": len(history)}

    def _crash(self, record: TrialRecord, code: int) -> str:
        """Say how a process ended."""
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if code == -signal.SIGKILL:
            how += " (by the system, if its memory was short)"
        log = self._search_directory / LOGS_FOLDER / f"{record.run}.log"
        lines = [x.strip() for x in log.read_text(errors="replace").splitlines() if x.strip()]
        return f"{how}: {' | '.join(lines[-_LOG_LINES:])}"


class Cost:
    """Wall time of all attempts at a trial, in a file that outlives the worker.

    Args:
        path: file, one per run.
        trial_id: the trial.
    """

    def __init__(self, path: Path, trial_id: str):
        self._path = path
        self._trial_id = trial_id
        self._all: dict[str, float] = read_json(path, dict)
        self._before = self._all.get(trial_id, 0.0)
        self._started = time.monotonic()
        self._lock = threading.Lock()

    def total(self) -> float:
        """Return seconds of all attempts."""
        return self._before + time.monotonic() - self._started

    def save(self) -> None:
        """Write it; the heartbeat does, too."""
        with self._lock:
            write_json(self._path, self._all | {self._trial_id: self.total()})
