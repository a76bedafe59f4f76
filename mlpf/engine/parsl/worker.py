"""Run tasks in a worker of a cluster, on the devices of its slot."""

import functools
import json
import os
import pickle
import signal
import socket
import threading
import traceback
from collections.abc import Mapping
from multiprocessing import connection, parent_process
from typing import Any

from mlpf.engine.base import SLOT_VARIABLE
from mlpf.machine.allocation import bind

# Variable in which the pilot passes environment and cores to its workers, one entry per worker.
GROUPS_VARIABLE = "MLPF_DEVICE_GROUPS"


class RemoteTraceback(Exception):
    """Traceback of an error in a worker. In the driver it is the cause of that error."""

    def __init__(self, text: str):
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def perform(payload: bytes) -> tuple[bool, bytes, str]:
    """Run one task.

    Args:
        payload: pickled function and its arguments.

    Returns:
        Whether it succeeded, the pickled result or error, the text of the traceback.
    """
    _settle()
    try:
        function, arguments = pickle.loads(payload)  # noqa: S301 - from the driver, over an encrypted channel
        return True, pickle.dumps(function(*arguments)), ""
    except BaseException as error:  # noqa: BLE001 - any error of the function goes to the driver
        return False, _pickled(error), traceback.format_exc()


def unpack(outcome: tuple[bool, bytes, str]) -> Any:
    """Return the result of a task, in the driver.

    Raises:
        BaseException: error of the task, with the traceback of the worker as its cause.
    """
    succeeded, data, text = outcome
    value = pickle.loads(data)  # noqa: S301 - from our workers, over an encrypted channel
    if succeeded:
        return value
    raise value from RemoteTraceback(text)


def _pickled(error: BaseException) -> bytes:
    """Pickle an error. If that fails, pickle its text instead."""
    try:
        data = pickle.dumps(error)
        pickle.loads(data)  # noqa: S301 - made in the line above
    except Exception:  # noqa: BLE001 - constructors of errors may raise anything
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return data


@functools.cache
def _settle() -> None:
    """Set up the slot of this worker, once. The worker ends when the manager ends, even during a task."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    os.environ.update(_slot(os.environ))


def _slot(environment: Mapping[str, str]) -> dict[str, str]:
    """Bind this process to the cores of its slot and return the variables of the slot."""
    rank = int(environment["PARSL_WORKER_RANK"])
    group = json.loads(environment[GROUPS_VARIABLE])[rank]
    bind(os.getpid(), frozenset(group["cpus"]))
    host = environment.get("SLURMD_NODENAME") or socket.gethostname()
    return {**group["environment"], SLOT_VARIABLE: f"{host}-{environment['PARSL_WORKER_BLOCK_ID']}.{rank}"}


def _end_with(sentinel: int) -> None:
    """End this process when the manager ends: the task is repeated elsewhere and must not run twice."""
    connection.wait([sentinel])
    os._exit(1)
