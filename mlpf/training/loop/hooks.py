"""What a training tells those who watch it: hooks, progress, and the error of one that went wrong."""

from collections.abc import Callable
from typing import Protocol

from mlpf.errors import MLPFError
from mlpf.training.checkpoints.run_state import EpochRecord

EpochHook = Callable[[list[EpochRecord]], None]
StepHook = Callable[[int, EpochRecord], None]


class TrainingDiverged(MLPFError):
    """The loss became NaN or infinite, or its gradients at every loss scale.

    Args:
        message: for the user.
        epoch: epoch, from 1.
        step: step within the epoch, from 1.
        terms: loss of that step and its terms.
    """

    def __init__(self, message: str, epoch: int, step: int, terms: EpochRecord):
        super().__init__(message)
        self.epoch, self.step, self.terms = epoch, step, terms


class Progress(Protocol):
    """Shows how an epoch advances."""

    def start(
        self, epoch: int, num_epochs: int, num_events: int, num_elements: int, first_event: int
    ) -> None:
        """Begin an epoch of ``num_events`` with ``num_elements`` in all, ``first_event`` of them done."""

    def update(self, num_events: int, loss: float) -> None:
        """``num_events`` of the epoch are done, with this mean loss."""

    def finish(self, record: EpochRecord) -> None:
        """End an epoch with its record."""
