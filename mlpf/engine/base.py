"""The interface of all engines."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from mlpf.errors import MLPFError

# Variables that a task finds in its environment.
SLOT_VARIABLE = "MLPF_SLOT"
PILOT_END_VARIABLE = "MLPF_PILOT_END"
PILOT_MARGIN_VARIABLE = "MLPF_PILOT_MARGIN"


class TaskLost(MLPFError):
    """The worker of a task ended before the task did, more often than retries allow."""

    exit_code = 1


class EngineFailed(MLPFError):
    """The engine cannot start, or ended before its tasks did."""


@dataclass(frozen=True)
class Slot:
    """What one task may use. All slots of an engine are equal.

    Attributes:
        num_cpus: cores.
        num_gpus: GPUs.
    """

    num_cpus: int = 1
    num_gpus: int = 0


class Engine(ABC):
    """Runs functions in other processes. As a context manager it leaves no process behind.

    Futures are those of ``concurrent.futures``. If a function raises an error, the future raises it with the
    traceback of the worker; the task is not repeated. If a worker, its node or its pilot job ends, the task
    is repeated, at most ``retries`` times. After that the future raises ``TaskLost``.

    Environment of a task: ``MLPF_SLOT`` is the name of its slot. In a pilot job, ``MLPF_PILOT_END`` is the
    end of the job (Unix time, s), and ``MLPF_PILOT_MARGIN`` the time before it when the task must save (s).

    Attributes:
        num_slots: tasks that run at a time.
        slot: what each of them may use.
    """

    num_slots: int
    slot: Slot

    @abstractmethod
    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Give a task to the engine.

        Args:
            function: importable by name in the worker.
            arguments: must be picklable, like the return value.
        """

    @abstractmethod
    def shutdown(self, now: bool) -> None:
        """End all workers.

        Args:
            now: kill running tasks instead of waiting for them.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown(now=kind is not None)
