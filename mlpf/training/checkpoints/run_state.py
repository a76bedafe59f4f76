"""Progress of a training: history of finished epochs and progress of the current one, as JSON."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

EpochRecord = dict[str, float]


@dataclass
class EpochProgress:
    """Progress within the current epoch, summed over interruptions.

    Attributes:
        step: finished steps.
        sums: [2][T] sums of values and of weights of the T loss terms.
        seconds: time of training steps, s.
        waited: part of ``seconds`` spent waiting for data, s.
        checkpoint_seconds: time of writing checkpoints, s.
        learning_rate: learning rate of the first step.
        first_update: number of weight updates before the epoch.
    """

    step: int = 0
    sums: list[list[float]] = field(default_factory=list)
    seconds: float = 0.0
    waited: float = 0.0
    checkpoint_seconds: float = 0.0
    learning_rate: float = 0.0
    first_update: int = 0


@dataclass
class RunState:
    """What a resumed training needs beside the variables of model and optimizer.

    Attributes:
        history: one record per finished epoch.
        current: progress of the epoch after those.
        fingerprint: identifies the training batches, see ``BatchLoader.fingerprint``.
    """

    history: list[EpochRecord] = field(default_factory=list)
    current: EpochProgress = field(default_factory=EpochProgress)
    fingerprint: str = ""

    @property
    def epoch(self) -> int:
        """Number of the current epoch, counted from 1."""
        return len(self.history) + 1

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> "RunState":
        """Return the state that ``to_json`` described.

        Raises:
            ValueError: an entry is missing or has another type.
        """
        if not isinstance(data, dict):
            raise ValueError(f"{str(data)[:40]!r}, expected a mapping")
        state = cls(**_checked(cls, data))
        if not all(isinstance(record, dict) for record in state.history):
            raise ValueError("history, expected a list of mappings")
        state.current = EpochProgress(**_checked(EpochProgress, state.current))
        return state


def _checked(kind: type, data: Any) -> dict[str, Any]:
    """Return the entries of ``data`` that are fields of ``kind``; check their types against its defaults."""
    wanted = asdict(kind())
    for name, default in wanted.items():
        found = data.get(name) if isinstance(data, dict) else None
        accepted = (int, float) if isinstance(default, float) else type(default)
        if not isinstance(found, accepted) or isinstance(found, bool):
            raise ValueError(f"{name} is {str(found)[:40]!r}, expected {type(default).__name__}")
    return {name: data[name] for name in wanted}


class StepSums:
    """Sums of the loss terms over steps. They are read from the device late and added in float64.

    Args:
        num_terms: number T of loss terms.
        total: sums [n, 2, T] results of n steps over ranks. All ranks must read at the same steps.
        sums: [2][T] sums of earlier steps; empty = none.
        num_steps: number of earlier steps.

    Attributes:
        first_bad: first step of the epoch, counted from 0, with sums that are not finite; None = none.
        bad_terms: [T] which terms were not finite in that step.
    """

    def __init__(
        self,
        num_terms: int,
        total: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
        sums: list[list[float]] | None = None,
        num_steps: int = 0,
    ):
        self._sum_up = total
        self._waiting: list[Any] = []
        self._total = np.array(sums, np.float64) if sums else np.zeros((2, num_terms))
        self._num_steps = num_steps
        self._reported = (num_steps, self._total.copy())
        self._suspect = np.zeros((2, num_terms))
        self.first_bad: int | None = None
        self.bad_terms = np.zeros(num_terms, bool)

    def add(self, sums: Any) -> None:
        """Add the [2, T] result of one step without reading it from the device."""
        self._waiting.append(sums)

    def read(self) -> npt.NDArray[np.float64]:
        """Return the sums [2, T] of all steps so far."""
        if not self._waiting:
            return self._total
        for numbers in self._sum_up(np.stack([sums.numpy().astype(np.float64) for sums in self._waiting])):
            if self.first_bad is None:
                self._suspect = numbers
            if self.first_bad is None and not np.isfinite(numbers).all():
                self.first_bad = self._num_steps
                self.bad_terms = ~np.isfinite(numbers[0])
            self._total += numbers
            self._num_steps += 1
        self._waiting.clear()
        return self._total

    def recent(self) -> npt.NDArray[np.float64] | None:
        """Return the sums [2, T] of the steps since the last call; None if there was no step."""
        total = self.read()
        num_steps, reported = self._reported
        if num_steps == self._num_steps:
            return None
        self._reported = (self._num_steps, total.copy())
        return total - reported

    @property
    def suspect(self) -> tuple[int, npt.NDArray[np.float64]]:
        """Number (from 0) and sums [2, T] of the first step that is not finite, else of the last step."""
        number = self._num_steps - 1 if self.first_bad is None else self.first_bad
        return number, self._suspect
