"""What every engine offers: tasks in, futures out."""

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
    """A task was lost with its worker, more often than it may be tried again."""

    exit_code = 1


class EngineFailed(MLPFError):
    """The engine cannot start, or has ended while tasks were left."""


@dataclass(frozen=True)
class Slot:
    """What each task may use; all slots of an engine are alike.

    Attributes:
        num_cpus: cores.
        num_gpus: GPUs.
    """

    num_cpus: int = 1
    num_gpus: int = 0


class Engine(ABC):
    """Runs functions in other processes. Use it as a context manager: no process is left after the block.

    Futures are those of ``concurrent.futures``: ``wait`` and ``as_completed`` work on them. An error of a
    function arrives with the traceback of the worker and is final. A task that was lost with its worker,
    node or pilot job runs again, at most ``retries`` times; after that its future raises ``TaskLost``.

    A task finds in its environment which slot it has (``MLPF_SLOT``) and, in a pilot job, when that ends
    (``MLPF_PILOT_END``, Unix time in s) and how long before that it must begin to save
    (``MLPF_PILOT_MARGIN``, in s).

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
            arguments: can be pickled, as can what the function returns.
        """

    @abstractmethod
    def shutdown(self, now: bool) -> None:
        """End all workers.

        Args:
            now: do not wait for tasks that run; they are killed.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown(now=kind is not None)
