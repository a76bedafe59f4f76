"""One file of any format -> prepared events: the common part of all formats.

A format is a subclass of ``Conversion``, which recognises its files and yields chunks of events. This module
decides which events are left out, and describes the file.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from mlpf import __version__
from mlpf.config.detector import DetectorConfig
from mlpf.data.events import Events
from mlpf.data.flat_tables import BoolArray, FloatArray
from mlpf.data.source_file import SourceFile
from mlpf.physics.schemas import EventSchema

BAD_NUMBERS = "not a number"

# Reason -> quantity -> [E]: losses, which the targets of each event leave out.
Losses = dict[str, dict[str, FloatArray]]


class Chunk(NamedTuple):
    """All events of a chunk, usable or not.

    Attributes:
        events: E events.
        bad: reason -> [E] True if an event cannot be used. Events without elements or with numbers that
            are not finite need no entry.
        counters: numbers of unusual cases, by name.
        losses: what the targets leave out; empty if the file does not allow to compute it.
    """

    events: Events
    bad: Mapping[str, BoolArray]
    counters: Counter[str]
    losses: Losses = {}  # noqa: RUF012 - of a tuple, and never changed


class Conversion(ABC):
    """Reads an open file in chunks and computes everything that a dataset needs.

    Unusable events are left out and counted by reason in ``metadata["skipped"]``. ``metadata["lost"]`` holds
    the summed losses of the usable events, if the file allows to compute them.

    Args:
        source: the file, open as long as it is read.
        schema: what the events shall be made of, one of ``schemas``.
        detector: that they were measured with; default ``default_detector``.

    Attributes:
        name: of the format.
        suffixes: of its files, where a directory is given.
        schemas: what its events can be made of besides tracks (``--elements``) -> schema.
        truth_version: version of the rules behind the targets.
        default_detector: that of files of which nothing else is known; None = results depend on none.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    schemas: ClassVar[Mapping[str, EventSchema]]
    truth_version: ClassVar[str]
    default_detector: ClassVar[DetectorConfig | None] = None

    def __init__(self, source: SourceFile, schema: EventSchema, detector: DetectorConfig | None = None):
        self.source = source
        self.schema = schema
        self.detector = detector or self.default_detector
        self._forget()

    def _forget(self) -> None:
        self._num_read = 0
        self._skipped: Counter[str] = Counter()
        self._counters: Counter[str] = Counter()
        self._lost: dict[str, dict[str, float]] = {}

    @classmethod
    @abstractmethod
    def recognises(cls, source: SourceFile) -> bool:
        """Return whether a file is of this format."""

    @abstractmethod
    def read(self) -> Iterator[Chunk]:
        """Yield all events in file order, in chunks.

        Raises:
            DataError: the file cannot be read.
        """

    def chunks(self) -> Iterator[Events]:
        """Yield the usable events in file order, in chunks. Each call begins at the first event.

        Raises:
            DataError: the file cannot be read.
        """
        self._forget()
        for chunk in self.read():
            self._num_read += len(chunk.events)
            self._counters += chunk.counters
            keep = self._usable(chunk)
            for reason, quantities in chunk.losses.items():
                totals = self._lost.setdefault(reason, dict.fromkeys(quantities, 0.0))
                for name, values in quantities.items():
                    totals[name] += float(values[keep].sum())
            if keep.any():
                yield chunk.events if keep.all() else chunk.events.take(keep)

    def _usable(self, chunk: Chunk) -> BoolArray:
        """Return [E] True for usable events, and count the others by their first reason."""
        elements = [chunk.events[kind.name].counts for kind in self.schema.kinds]
        keep = np.ones(len(chunk.events), dtype=bool)
        for reason, bad in (
            *chunk.bad.items(),
            (empty_event(self.schema), np.sum(elements, axis=0) == 0),
            (BAD_NUMBERS, ~chunk.events.finite()),
        ):
            if count := int((bad & keep).sum()):
                self._skipped[reason] += count
            keep &= ~bad
        return keep

    @property
    def metadata(self) -> dict[str, Any]:
        """Description of the file, complete after the last chunk."""
        # Sorted, so that the description does not depend on the order of counting.
        return {
            "source": self.source.path.name,
            "source_bytes": self.source.num_bytes,
            "format": self.name,
            "truth_version": self.truth_version,
            **({} if self.detector is None else {"detector": self.detector.model_dump()}),
            "mlpf_version": __version__,
            "events_read": self._num_read,
            "skipped": dict(sorted(self._skipped.items())),
            "counters": {name: count for name, count in sorted(self._counters.items()) if count},
            **({"lost": dict(sorted(self._lost.items()))} if self._lost else {}),
        }


def empty_event(schema: EventSchema) -> str:
    """Return the reason of events without elements, which are left out."""
    return " and ".join(f"no {kind.name}s" for kind in schema.kinds)
