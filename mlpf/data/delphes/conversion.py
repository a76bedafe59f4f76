"""What preparing a Delphes file is, whatever it is stored as: chunks of usable events, and an account."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from mlpf import __version__
from mlpf.data.events import Events
from mlpf.data.flat_tables import BoolArray, FloatArray
from mlpf.physics.schemas import SCHEMAS

SCHEMA = SCHEMAS["delphes"]
EMPTY_EVENT = "no tracks and no towers"
NOT_FINITE = "not a number"

# Reason -> quantity -> [E]: what the targets of each event leave out.
Losses = dict[str, dict[str, FloatArray]]


class PreparedChunk(NamedTuple):
    """All events of a chunk, usable or not.

    Attributes:
        events: E events.
        bad: reason -> [E] True where an event cannot be used.
        losses: what the targets leave out; None where the file cannot say.
    """

    events: Events
    bad: dict[str, BoolArray]
    losses: Losses | None = None


class DelphesFilePreparation(ABC):
    """Reads a file chunk by chunk into events of the schema ``delphes``.

    Events that cannot be used are left out and counted by reason in ``metadata["skipped"]``. What the targets
    of the others leave out is summed in ``metadata["lost"]``, if the file can say.

    Args:
        path: the file.

    Attributes:
        truth_version: version of the rules behind the targets.
    """

    truth_version: ClassVar[str]

    def __init__(self, path: Path):
        self._path = path
        self._forget()

    def _forget(self) -> None:
        self._num_read = 0
        self._skipped: Counter[str] = Counter()
        self._counters: Counter[str] = Counter()
        self._lost: dict[str, dict[str, float]] = {}

    @abstractmethod
    def _read(self) -> Iterator[PreparedChunk]:
        """Yield all events, some at a time."""

    def chunks(self) -> Iterator[Events]:
        """Yield the usable events in file order, some at a time; each call begins at the first.

        Raises:
            DataError: the file cannot be read.
        """
        self._forget()
        for events, bad, losses in self._read():
            self._num_read += len(events)
            keep = np.ones(len(events), dtype=bool)
            for reason, broken in {
                **bad,
                NOT_FINITE: _not_finite(events),
                EMPTY_EVENT: _empty(events),
            }.items():
                if count := int((broken & keep).sum()):
                    self._skipped[reason] += count
                keep &= ~broken
            self._add(losses or {}, keep)
            if keep.any():
                yield events if keep.all() else events.select(keep)

    def _add(self, losses: Losses, keep: BoolArray) -> None:
        for reason, quantities in losses.items():
            totals = self._lost.setdefault(reason, dict.fromkeys(quantities, 0.0))
            for name, values in quantities.items():
                totals[name] += float(values[keep].sum())

    @property
    def metadata(self) -> dict[str, Any]:
        """What describes the file; complete after the last chunk."""
        return {
            "source": self._path.name,
            "source_bytes": self._path.stat().st_size,
            "truth_version": self.truth_version,
            "mlpf_version": __version__,
            "events_read": self._num_read,
            "skipped": dict(self._skipped),
            "counters": {name: count for name, count in self._counters.items() if count},
            **({"lost": self._lost} if self._lost else {}),
        }


def _not_finite(events: Events) -> BoolArray:
    """Return [E] True where a number of an event is not finite."""
    broken = np.zeros(len(events), dtype=bool)
    for jagged in events.jagged.values():
        rows = np.flatnonzero(~np.isfinite(jagged.values).all(axis=1))
        broken[np.searchsorted(jagged.offsets, rows, side="right") - 1] = True
    return broken


def _empty(events: Events) -> BoolArray:
    """Return [E] True where an event has no element."""
    counts = [np.diff(events.jagged[f"X_{kind.name}"].offsets) for kind in SCHEMA.kinds]
    return np.sum(counts, axis=0) == 0
