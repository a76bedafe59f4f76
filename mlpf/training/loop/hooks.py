"""Interfaces of the training loop: hooks, progress, and the error of a diverged training."""

from collections.abc import Callable
from typing import Protocol

from mlpf.errors import MLPFError
from mlpf.training.checkpoints.run_state import EpochRecord

EpochHook = Callable[[list[EpochRecord]], None]
StepHook = Callable[[int, EpochRecord], None]


class TrainingDiverged(MLPFError):
    """The loss became NaN or infinite, or the gradients did with every loss scale.

    Args:
        message: message for the user.
        epoch: epoch, from 1.
        step: step within the epoch, from 1.
        terms: loss of that step and its terms.
    """

    def __init__(self, message: str, epoch: int, step: int, terms: EpochRecord):
        super().__init__(message)
        self.epoch, self.step, self.terms = epoch, step, terms


class Progress(Protocol):
    """Shows the progress of an epoch."""

    def start(
        self, epoch: int, num_epochs: int, num_events: int, num_elements: int, first_event: int
    ) -> None:
        """Begin an epoch of ``num_events`` events and ``num_elements`` elements; some events may be done."""

    def update(self, num_events: int, loss: float) -> None:
        """Show that ``num_events`` of the epoch are done, with their mean loss."""

    def finish(self, record: EpochRecord) -> None:
        """End an epoch with its record."""
