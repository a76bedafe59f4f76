"""The chief as a worker sees it: an oracle of keras-tuner whose calls go over the network."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from mlpf.errors import MLPFError
from mlpf.tuning.chief import SERVICE, TOKEN_KEY
from mlpf.tuning.oracle import OBJECTIVE, Trial, TrialStatus, keras_tuner
from mlpf.tuning.state import CHIEF_FILE, TrialRecord

_CALL_TIMEOUT_S = 10.0
_RETRY_S = 0.5
# Idle workers ask rarely: 0.1, 0.2, ... 5 s.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0


class ChiefUnreachable(MLPFError):
    """Nobody answers at the address of the chief."""

    exit_code = 1


class ChiefClient:
    """Calls the chief, waits for one that starts again, and follows it to another address.

    Args:
        directory: of the search; ``chief.json`` in it says where the chief is and holds the token.
        worker: id of the worker.
        launcher: who started it.
        process: this process of it.
        address: HOST:PORT to try first; None = that of ``chief.json``.
        patience: seconds without an answer after which to give up.
        stopped: asked while waiting; raises to end the wait.
    """

    def __init__(
        self,
        directory: Path,
        worker: str,
        launcher: str,
        process: str,
        *,
        address: str | None = None,
        patience: float = 600.0,
        stopped: Callable[[], None] = lambda: None,
    ):
        self._file = directory / CHIEF_FILE
        self._who = {"worker": worker, "launcher": launcher, "process": process}
        self._given = address
        self._patience = patience
        self._stopped = stopped
        self._channel: grpc.Channel | None = None
        self._connected: tuple[str, str] = ("", "")

    def call(self, name: str, *, patience: float | None = None, **arguments: Any) -> dict[str, Any]:
        """Call the chief.

        Args:
            name: one of ``mlpf.tuning.chief.CALLS``.
            patience: seconds without an answer after which to give up; None = those of the client.
            arguments: of the call.

        Raises:
            ChiefUnreachable: no answer for too long.
        """
        patience = self._patience if patience is None else patience
        request = json.dumps(self._who | arguments, default=float).encode()
        deadline = time.monotonic() + patience
        while True:
            try:
                return json.loads(self._try(name, request))
            except (grpc.RpcError, OSError, ValueError, KeyError) as error:
                reason = error.details() if isinstance(error, grpc.Call) else str(error)
            # The chief may have started again, elsewhere and with another token.
            self._disconnect()
            self._stopped()
            if time.monotonic() > deadline:
                raise ChiefUnreachable(
                    f"{self._file}: the chief has not answered for {patience:.0f} s ({reason}); is it "
                    "running, and can its address be reached from here?"
                )
            time.sleep(_RETRY_S)

    def _try(self, name: str, request: bytes) -> bytes:
        channel, token = self._connect()
        method = channel.unary_unary(f"/{SERVICE}/{name}")
        return method(request, timeout=_CALL_TIMEOUT_S, metadata=((TOKEN_KEY, token),), wait_for_ready=False)

    def _connect(self) -> tuple[grpc.Channel, str]:
        if self._channel is None:
            chief = json.loads(self._file.read_text())
            host = f"[{chief['address']}]" if ":" in chief["address"] else chief["address"]
            said = f"{host}:{chief['port']}"
            # Whoever gave an address may not know that the chief moved: try both in turn.
            address = said if self._given is None or self._given == self._connected[0] else self._given
            self._connected = (address, chief["token"])
            self._channel = grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])
        return self._channel, self._connected[1]

    def _disconnect(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None


class RemoteOracle(keras_tuner.Oracle):
    """The oracle that the tuner of a worker talks to.

    Args:
        client: calls the chief.
        pause: waits some seconds, less if the worker is to stop.
        devices: GPUs, or cores, that the worker has for a trial.
        on_gpu: they are GPUs.

    Attributes:
        record: of the trial that the worker has.
        result: what ``end_trial`` reports beside the status; the tuner fills it.
    """

    def __init__(
        self,
        client: ChiefClient,
        pause: Callable[[float], None] = time.sleep,
        devices: int = 1,
        on_gpu: bool = False,
    ):
        super().__init__(objective=keras_tuner.Objective(OBJECTIVE, "min"))
        self.record: TrialRecord | None = None
        self.result: dict[str, Any] = {}
        self._client = client
        self._pause = pause
        self._has = {"devices": devices, "on_gpu": on_gpu}
        self._metrics: dict[str, float] = {}

    def create_trial(self, tuner_id: str) -> Any:  # noqa: ARG002 (keras-tuner's)
        """Return the next trial, or one with status STOPPED; waits while there is none."""
        seconds = _FIRST_PAUSE_S
        while True:
            answer = self._client.call("create", **self._has)
            trial = Trial.from_state(answer["trial"])
            if trial.status != TrialStatus.IDLE:
                break
            self._pause(seconds)
            seconds = min(2 * seconds, _LONGEST_PAUSE_S)
        self.record = TrialRecord.from_json(answer["record"]) if answer["record"] else None
        self.result, self._metrics = {}, {}
        return trial

    def get_trial(self, trial_id: str) -> Any:
        """Return a trial without results: keras-tuner asks whether we reported some on the way."""
        return Trial(self.get_space(), trial_id=trial_id)

    def update_trial(self, trial_id: str, metrics: dict[str, float], step: int = 0) -> Any:  # noqa: ARG002 (keras-tuner's)
        """Keep the metrics: they are sent with the end of the trial, in one call."""
        self._metrics = dict(metrics)
        return self.get_trial(trial_id)

    def end_trial(self, trial: Any) -> None:
        """Report how a trial ended."""
        result = dict(self.result)
        if trial.status == TrialStatus.COMPLETED:
            result["metrics"] = self._metrics
        elif "failure" not in result:
            result["failure"] = str(trial.message).strip().splitlines()[-1]
        self._client.call("end", trial=trial.trial_id, status=trial.status, **result)
        self.record = None

    def save(self) -> None:
        """Nothing: the chief keeps the state."""

    def reload(self) -> None:
        """Nothing: the chief keeps the state."""
