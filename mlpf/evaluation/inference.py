"""Run a model over the events of a dataset, in batches of few fixed shapes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mlpf.data.feeding.batch_plan import EMPTY_EVENT, bucket_edges, pad_events, plan_epoch
from mlpf.evaluation.particles import ELEMTYPE, Array, rows_from_outputs
from mlpf.forward import Forward


class Split(Protocol):
    """What inference needs of ``mlpf.data.dataset.split.PreparedSplit``."""

    @property
    def num_events(self) -> int:
        """Number of events."""

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Elements of each event, [num_events]."""

    def fetch(self, indices: Any, fields: Sequence[str] = ...) -> list[dict[str, np.ndarray]]:
        """Return the fields of the events at ``indices``."""


@dataclass(frozen=True)
class Inference:
    """Result of ``predict``.

    Attributes:
        events: per event the fields that were fetched, in the order of the dataset; of ``X`` only the
            column of the element type, [N_i, 1]: the events of a dataset of hits must fit into memory.
        predicted: per event rows of ``PARTICLE_COLUMNS`` for each element, [N_i, 7].
        seconds: time spent in the model, tracing of the shapes not counted (with ``warm_up``).
        shapes: (B, N) of the batches, each traced once.
    """

    events: list[dict[str, np.ndarray]]
    predicted: list[Array]
    seconds: float
    shapes: tuple[tuple[int, int], ...]

    @property
    def events_per_second(self) -> float:
        """Events through the model per second."""
        return len(self.events) / self.seconds if self.seconds > 0 else float("nan")


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
    if total == 0:
        return Inference([], [], 0.0, ())
    lengths = np.asarray(split.lengths)[:total]
    edges = bucket_edges(int(lengths.max()), bucket_size, growth)
    plan = plan_epoch(lengths, [(np.arange(total), batch_size)], edges)
    events: list[dict[str, np.ndarray]] = [{}] * total
    predicted: list[Array] = [np.empty(0)] * total
    shapes: list[tuple[int, int]] = []
    seconds = 0.0
    for batch in plan.batches:
        indices = batch.indices[batch.indices != EMPTY_EVENT]
        fetched = split.fetch(indices, tuple(fields))
        rows = [event["X"] for event in fetched]
        shape = (len(batch.indices), batch.length, rows[0].shape[1])
        X = pad_events(rows, range(len(rows)), shape)
        if X.shape[:2] not in shapes:
            if warm_up:
                # The first call of a shape traces the model: not part of its speed.
                forward(np.zeros_like(X))
            shapes.append((X.shape[0], X.shape[1]))
        start = time.perf_counter()
        outputs = forward(X)
        seconds += time.perf_counter() - start
        particles = rows_from_outputs(outputs, list(map(len, rows)), none_threshold)
        for index, event, found in zip(indices, fetched, particles, strict=True):
            events[index] = {**event, "X": event["X"][:, [ELEMTYPE]]}
            predicted[index] = found
        if on_batch is not None:
            on_batch(len(indices))
    return Inference(events, predicted, seconds, tuple(shapes))
