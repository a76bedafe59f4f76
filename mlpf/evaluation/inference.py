"""Run a model over the events of a dataset, in batches of few fixed shapes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mlpf.data.dataset.prepared_events import PreparedEvents
from mlpf.data.feeding.batch_plan import EMPTY_EVENT, bucket_edges, pad_events, plan_epoch
from mlpf.data.flat_tables import Table, offsets_from_counts
from mlpf.evaluation.particles import rows_from_outputs, with_types_only
from mlpf.forward import Forward
from mlpf.physics.features import PARTICLE_COLUMNS

# Name of the predictions among the columns of elements while batches are gathered.
_PREDICTED = "predicted"


class Split(Protocol):
    """The part of ``mlpf.data.dataset.split.PreparedSplit`` that inference uses."""

    @property
    def num_events(self) -> int:
        """Number of events."""

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Elements of each event, [num_events]."""

    def fetch(self, indices: Any, fields: Sequence[str] = ...) -> PreparedEvents:
        """Return the fields of the events at ``indices``."""


@dataclass(frozen=True)
class Inference:
    """Result of ``predict``.

    Attributes:
        events: the fetched fields, in the order of the dataset. ``X`` holds only the column of the element
            type, [n, 1], so that datasets of hits fit into memory.
        predicted: [n, 7] float32, rows of ``PARTICLE_COLUMNS``, one for each element of ``events``.
        seconds: time in the model; with ``warm_up`` without the tracing of the shapes.
        shapes: (B, N) of the batches, each traced once.
    """

    events: PreparedEvents
    predicted: npt.NDArray[np.float32]
    seconds: float
    shapes: tuple[tuple[int, int], ...]

    @property
    def events_per_second(self) -> float:
        """Events per second of model time."""
        return self.events.num_events / self.seconds if self.seconds > 0 else float("nan")


def predict(
    forward: Forward,
    split: Split,
    *,
    batch_size: int,
    bucket_size: int,
    growth: float,
    num_events: int = -1,
    fields: Sequence[str] = ("X", "ygen", "ycand"),
    none_threshold: float | None = None,
    warm_up: bool = True,
    on_batch: Callable[[int], None] | None = None,
) -> Inference:
    """Run a model over the first events of a split.

    Args:
        forward: X [B, N, F] -> outputs, e.g. ``graph_forward(model)``.
        split: the events.
        batch_size: events per batch B.
        bucket_size: batches are padded to multiples of this many elements.
        growth: ratio of neighbouring bucket lengths.
        num_events: first events only; -1 = all.
        fields: what to fetch beside the predictions; must contain ``X``.
        none_threshold: see ``rows_from_outputs``.
        warm_up: pass zeros of each shape first, so that ``seconds`` does not count tracing.
        on_batch: called after each batch with its number of events.
    """
    total = split.num_events if num_events < 0 else min(num_events, split.num_events)
    lengths = np.asarray(split.lengths)[:total]
    gathered = _Gathered(lengths)
    if total == 0:
        nothing = split.fetch(np.empty(0, np.int64), tuple(fields))
        gathered.add(np.empty(0, np.int64), nothing, np.empty((0, len(PARTICLE_COLUMNS)), np.float32))
        return Inference(*gathered.in_order(), 0.0, ())
    edges = bucket_edges(int(lengths.max()), bucket_size, growth)
    plan = plan_epoch(lengths, [(np.arange(total), batch_size)], edges)
    shapes: list[tuple[int, int]] = []
    seconds = 0.0
    for batch in plan.batches:
        indices = batch.indices[batch.indices != EMPTY_EVENT]
        fetched = split.fetch(indices, tuple(fields))
        places = np.full(len(batch.indices), EMPTY_EVENT)
        places[: len(indices)] = np.arange(len(indices))
        X = pad_events(fetched.elements.select(["X"]), places, batch.length)["X"]
        if X.shape[:2] not in shapes:
            if warm_up:
                # The first call of a shape traces the model, which is not part of its speed.
                forward(np.zeros_like(X))
            shapes.append((X.shape[0], X.shape[1]))
        start = time.perf_counter()
        outputs = forward(X)
        seconds += time.perf_counter() - start
        gathered.add(indices, fetched, rows_from_outputs(outputs, fetched.elements.counts, none_threshold))
        if on_batch is not None:
            on_batch(len(indices))
    return Inference(*gathered.in_order(), seconds, tuple(shapes))


class _Gathered:
    """Puts the events of batches into the order of the dataset.

    Elements are copied to their final place batch by batch. Joining all batches at the end needs twice the
    memory.

    Args:
        lengths: [E] elements of each event.
    """

    def __init__(self, lengths: npt.NDArray[np.int64]) -> None:
        self._offsets = offsets_from_counts(lengths)
        self._columns: dict[str, npt.NDArray] = {}
        self._others: list[PreparedEvents] = []
        self._indices: list[npt.NDArray[np.int64]] = []

    def add(
        self, indices: npt.NDArray[np.int64], events: PreparedEvents, predicted: npt.NDArray[np.float32]
    ) -> None:
        """Add the events at ``indices`` and the predictions for their elements."""
        elements = with_types_only(events).elements
        for name, values in (elements.columns | {_PREDICTED: predicted}).items():
            if name not in self._columns:
                self._columns[name] = np.empty((self._offsets[-1], values.shape[1]), values.dtype)
            gathered, first = self._columns[name], self._offsets[indices].tolist()
            # A slice per event is one copy of memory; see pad_events.
            for place, begin, end in zip(first, elements.offsets[:-1], elements.offsets[1:], strict=True):
                gathered[place : place + end - begin] = values[begin:end]
        self._others.append(replace(events, elements=elements.select([])))
        self._indices.append(indices)

    def in_order(self) -> tuple[PreparedEvents, npt.NDArray[np.float32]]:
        """Return all events and the predictions for their elements."""
        events = PreparedEvents.concatenate(self._others)
        self._others.clear()
        events = events.take(np.argsort(np.concatenate(self._indices)))
        columns = dict(self._columns)
        predicted = columns.pop(_PREDICTED)
        return replace(events, elements=Table(columns, self._offsets)), predicted
