"""The chief of a search: one process that gives trials to workers and keeps the state.

Workers call it with gRPC. Messages are JSON instead of keras-tuner's, which know no heartbeat, do not say who
sends them, and drop the reason of a failure. Every call carries the token of ``chief.json``, which only the
owner of the search can read; nothing is encrypted.
"""

import hmac
import json
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from mlpf.atomic import atomic_write
from mlpf.errors import ConfigError
from mlpf.run_files import CHECKPOINTS_FOLDER
from mlpf.tuning.algorithms import build_oracle
from mlpf.tuning.oracle import SearchOracle, TrialStatus
from mlpf.tuning.state import CHIEF_FILE, ORACLE_FILE, RUNS_FOLDER, read_search

SERVICE = "mlpf.Search"
TOKEN_KEY = "token"
# A broken chief ends: the launcher starts it again from the last whole state.
EXIT_BROKEN = 70

_THREADS = 4
_TICK_S = 0.5
# Workers ask at least this often; those silent for so long at the end are gone.
_FAREWELL_S = 15.0

log = logging.getLogger(__name__)


@dataclass
class Worker:
    """A worker as the chief knows it.

    Attributes:
        launcher: who started it.
        process: it itself, another one after each start.
        heard: time of its last call.
        told: knows that the search is over.
    """

    launcher: str
    process: str
    heard: float
    told: bool = False


class Chief:
    """What workers can call; all calls come one at a time.

    Args:
        oracle: gives trials and keeps the state.
        lease_seconds: silence after which a worker's trial is given to another.
        clock: monotonic seconds.
    """

    def __init__(
        self, oracle: SearchOracle, lease_seconds: float, clock: Callable[[], float] = time.monotonic
    ):
        self.lock = threading.Lock()
        self._oracle = oracle
        self._lease = lease_seconds
        self._clock = clock
        self._workers: dict[str, Worker] = {}
        # After a restart the workers that had trials get the time of a lease to be heard.
        self._leases = dict.fromkeys(oracle.ongoing_trials, clock())
        self._over_since: float | None = None

    def hello(self, worker: str, launcher: str, process: str) -> dict[str, Any]:
        """A worker begins. Refused if a worker of this name that another launcher started is alive."""
        known = self._workers.get(worker)
        if known is not None and known.launcher != launcher and self._clock() - known.heard < self._lease:
            return {"accepted": False, "lease_seconds": self._lease}
        self._hear(worker, launcher, process)
        return {"accepted": True, "lease_seconds": self._lease}

    def create(
        self, worker: str, launcher: str, process: str, devices: int = 1, on_gpu: bool = False
    ) -> dict[str, Any]:
        """Give a worker its next trial, which it will run on so many GPUs or cores."""
        self._hear(worker, launcher, process)
        trial = self._oracle.create_trial(worker, process, devices, on_gpu)
        if trial.status == TrialStatus.STOPPED:
            self._workers[worker].told = True
        record = self._oracle.records.get(trial.trial_id)
        return {"trial": trial.get_state(), "record": record.to_json() if record else None}

    def beat(
        self, worker: str, launcher: str, process: str, trial: str = "", seconds: float = 0.0
    ) -> dict[str, Any]:
        """A worker is alive; say whether the trial that it runs is still its own."""
        self._hear(worker, launcher, process)
        yours = self._oracle.holds(worker, trial)
        if yours:
            record = self._oracle.records[trial]
            record.seconds = max(record.seconds, seconds)
        return {"yours": yours}

    def end(
        self, worker: str, launcher: str, process: str, trial: str, status: str, **result: Any
    ) -> dict[str, Any]:
        """A worker has run a trial. The result of one that was taken from it does not count."""
        self._hear(worker, launcher, process)
        return {"accepted": self._oracle.finish_trial(worker, trial, status, **result)}

    def release(self, worker: str, launcher: str, process: str, trial: str) -> dict[str, Any]:
        """A worker stops in order and gives its trial back."""
        self._hear(worker, launcher, process)
        if yours := self._oracle.holds(worker, trial):
            self._oracle.give_back(worker)
        return {"accepted": yours}

    def sweep(self) -> None:
        """Take the trials of silent workers."""
        now = self._clock()
        for worker in list(self._oracle.ongoing_trials):
            if now - self._leases.setdefault(worker, now) > self._lease:
                log.warning("%s: silent for more than %g s, its trial goes to another", worker, self._lease)
                self._oracle.lose(worker)
                self._leases.pop(worker)

    @property
    def over(self) -> bool:
        """The search is over, and all workers that are alive know it."""
        if not self._oracle.finished:
            self._over_since = None
            return False
        now = self._clock()
        self._over_since = self._over_since or now
        silent = now - self._over_since > _FAREWELL_S
        return silent or all(w.told for w in self._workers.values() if now - w.heard < _FAREWELL_S)

    def _hear(self, worker: str, launcher: str, process: str) -> None:
        now = self._clock()
        self._leases[worker] = now
        known = self._workers.get(worker)
        if known is None or known.process != process:
            self._workers[worker] = Worker(launcher, process, now)
        else:
            known.heard = now


CALLS = ("hello", "create", "beat", "end", "release")


class _Handler(grpc.GenericRpcHandler):
    """Answers calls with JSON."""

    def __init__(self, chief: Chief, token: str, broken: Callable[[], None]):
        self._chief, self._token, self._broken = chief, token, broken

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of a call, None for an unknown one."""
        service, _, name = handler_call_details.method.strip("/").partition("/")
        if service != SERVICE or name not in CALLS:
            return None
        given = dict(handler_call_details.invocation_metadata).get(TOKEN_KEY, "")
        call = getattr(self._chief, name)
        if not hmac.compare_digest(str(given), self._token):
            return grpc.unary_unary_rpc_method_handler(_refuse)
        return grpc.unary_unary_rpc_method_handler(lambda request, _context: self._answer(call, request))

    def _answer(self, call: Callable[..., dict[str, Any]], request: bytes) -> bytes:
        try:
            with self._chief.lock:
                return json.dumps(call(**json.loads(request)), default=float).encode()
        except Exception:  # the state in memory may be half changed, that in the file is whole
            log.exception("the chief is broken; it starts again from %s", ORACLE_FILE)
            self._broken()
            raise


def _refuse(_request: bytes, context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.PERMISSION_DENIED, "the token is not that of chief.json")
    raise AssertionError("abort raises")


def run(directory: Path, address: str, port: int = 0) -> None:
    """Serve a search until it is over and its workers know.

    Args:
        directory: of the search, with its configuration; goes on from ``oracle.json`` if it is there.
        address: host name or address to listen on.
        port: port, 0 = a free one.

    Raises:
        CheckpointError: the directory is not that of a search, or its state is damaged.
        ConfigError: the address cannot be listened on.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    config = read_search(directory).config
    oracle = build_oracle(directory, config)
    if (directory / ORACLE_FILE).is_file():
        oracle.reload()
    else:
        oracle.save()
    chief = Chief(oracle, oracle.hypertune.lease_seconds)
    server, bound, token = _serve(chief, address, port)
    _announce(directory, address, bound, token)
    log.info("listening on %s:%d", address, bound)
    try:
        _watch(chief, oracle, directory)
    finally:
        server.stop(grace=1.0).wait()
    log.info("the search is over%s", f": {oracle.problem}" if oracle.problem else "")


def _serve(chief: Chief, address: str, port: int) -> tuple[grpc.Server, int, str]:
    """Start to listen; return the server, its port and its token."""
    token = secrets.token_hex(16)
    # Two chiefs on one port would share the calls: the kernel is to refuse the second.
    server = grpc.server(
        ThreadPoolExecutor(_THREADS), options=[("grpc.so_reuseport", 0)], maximum_concurrent_rpcs=None
    )
    server.add_generic_rpc_handlers([_Handler(chief, token, lambda: os._exit(EXIT_BROKEN))])
    host = f"[{address}]" if ":" in address else address
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        bound, reason = 0, str(error).splitlines()[0]
    else:
        reason = ""
    if bound == 0:
        raise ConfigError(
            f"--address {address} --port {port}: cannot listen there ({reason or 'taken'}); "
            "give an address of this machine and a free port, 0 for any"
        )
    server.start()
    return server, bound, token


def _announce(directory: Path, address: str, port: int, token: str) -> None:
    """Write where the chief is; only the owner may read it."""
    with atomic_write(directory / CHIEF_FILE) as part:
        part.touch(mode=0o600)
        part.chmod(0o600)
        part.write_text(json.dumps({"address": address, "port": port, "token": token, "pid": os.getpid()}))


def _watch(chief: Chief, oracle: SearchOracle, directory: Path) -> None:
    """Look after leases and disk until the search is over."""
    ended = -1
    while True:
        with chief.lock:
            chief.sweep()
            if chief.over:
                return
            num_ended, keep = len(oracle.end_order), oracle.runs_to_keep()
            known = {record.run for record in oracle.records.values()}
        if num_ended != ended:
            ended = num_ended
            remove_checkpoints(directory, known - keep)
        time.sleep(_TICK_S)


def remove_checkpoints(directory: Path, runs: Iterable[str]) -> None:
    """Remove the checkpoints of runs that nobody needs; histories and logs stay."""
    for run_ in runs:
        shutil.rmtree(directory / RUNS_FOLDER / run_ / CHECKPOINTS_FOLDER, ignore_errors=True)
