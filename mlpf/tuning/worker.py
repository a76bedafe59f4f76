"""A worker of a search: asks the chief for trials until there are no more, and says that it is alive."""

import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mlpf.errors import ConfigError, MLPFError
from mlpf.tuning.chief import EXIT_BROKEN
from mlpf.tuning.client import ChiefClient, ChiefUnreachable, RemoteOracle
from mlpf.tuning.options import read_options
from mlpf.tuning.processes import started_by
from mlpf.tuning.state import read_search
from mlpf.tuning.tuner import Orders, Resources, SearchTuner, WorkerAsked

# Heartbeats per lease. Half a lease without an answer is the last moment to stop: the chief may have given
# the trial to another worker soon after.
_BEATS_PER_LEASE = 8
_PAUSE_AFTER = 0.5
_NAME_PATIENCE = 1.5
_RELEASE_PATIENCE_S = 5.0
_NAP_S = 0.1


class WorkerStopped(MLPFError):
    """A worker was asked to stop; its trial is saved and given back."""

    exit_code = 75
    label = "stopped"


def run(
    directory: Path,
    worker: str,
    launcher: str,
    *,
    chief: str | None = None,
    num_cpus: int = 1,
    gpus: int = 0,
) -> None:
    """Run trials until the search is over.

    Args:
        directory: of the search.
        worker: id, the same after a restart; must not contain "chief", as keras-tuner wants it.
        launcher: who starts it; the same after a restart.
        chief: HOST:PORT; None = as ``chief.json`` says.
        num_cpus: threads of a trial.
        gpus: GPUs of a trial, those that the environment shows.

    Raises:
        CheckpointError: not the directory of a search.
        ConfigError: the id is not possible, or taken.
        ChiefUnreachable: nobody answers for long.
        WorkerStopped: SIGTERM.
    """
    if "chief" in worker:
        raise ConfigError(f"--id {worker}: must not contain 'chief'; choose another name")
    config, arguments = read_search(directory).config, read_options(directory).arguments()
    orders = Orders()
    signal.signal(signal.SIGTERM, lambda *_: setattr(orders, "stop", True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher is asked, and asks us
    patience = _Patience(worker, orders)
    process = uuid.uuid4().hex
    client = ChiefClient(directory, worker, launcher, process, address=chief, stopped=patience.leave_if_asked)
    lease = _introduce(client, worker, patience.pause)
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    resources = Resources(started_by(), arguments, environment, num_cpus)
    oracle = RemoteOracle(client, patience.pause, gpus or num_cpus, gpus > 0)
    tuner = SearchTuner(oracle, directory, config, worker, resources, orders)
    beat_client = ChiefClient(directory, worker, launcher, process, address=chief)
    heart = threading.Thread(target=_live, args=(beat_client, oracle, tuner, orders, lease), daemon=True)
    heart.start()
    try:
        tuner.search()
    except (WorkerAsked, WorkerStopped):
        if oracle.record is not None:
            with suppress(ChiefUnreachable):
                orders.stop = False  # or the call would leave at once
                client.call("release", trial=oracle.record.trial_id, patience=_RELEASE_PATIENCE_S)
        raise WorkerStopped(f"{worker}: asked to stop; what was trained is saved") from None


class _Patience:
    """Waits, unless the worker is asked to stop."""

    def __init__(self, worker: str, orders: Orders):
        self._worker, self._orders = worker, orders

    def leave_if_asked(self) -> None:
        """End the wait if the worker is asked to stop."""
        if self._orders.stop:
            raise WorkerStopped(f"{self._worker}: asked to stop")

    def pause(self, seconds: float) -> None:
        """Wait some seconds."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.leave_if_asked()
            time.sleep(min(_NAP_S, left))


def _introduce(client: ChiefClient, worker: str, pause: Callable[[float], None]) -> float:
    """Say hello; return the length of a lease in s. A name may be held a while by one that just died."""
    started = time.monotonic()
    while True:
        answer = client.call("hello")
        lease = float(answer["lease_seconds"])
        if answer["accepted"]:
            return lease
        if time.monotonic() - started > _NAME_PATIENCE * lease:
            raise ConfigError(
                f"--name: a worker {worker} of another launcher is at work; choose another name"
            )
        pause(1.0)


def _live(
    client: ChiefClient, oracle: RemoteOracle, tuner: SearchTuner, orders: Orders, lease: float
) -> None:
    """Beat as long as the worker lives; a worker without heartbeat would train what others have."""
    try:
        _beat(client, oracle, tuner, orders, lease)
    except BaseException:
        logging.getLogger(__name__).exception("the heartbeat failed; the worker starts again")
        os._exit(EXIT_BROKEN)


def _beat(
    client: ChiefClient, oracle: RemoteOracle, tuner: SearchTuner, orders: Orders, lease: float
) -> None:
    """Say every now and then that the worker is alive, and hear whether its trial is still its own."""
    every = lease / _BEATS_PER_LEASE
    heard = time.monotonic()
    while True:
        time.sleep(every)
        record = oracle.record
        trial = "" if record is None else record.trial_id
        with suppress(OSError):  # a full disk now is no reason to die
            tuner.keep_cost()
        try:
            answer = client.call("beat", trial=trial, seconds=tuner.seconds, patience=every)
        except ChiefUnreachable:
            orders.pause = orders.pause or time.monotonic() - heard > _PAUSE_AFTER * lease
            continue
        heard, orders.pause = time.monotonic(), False
        if trial and oracle.record is record and not answer["yours"]:
            orders.taken = True
