"""Plan of batches: bucket lengths, and the events of each batch of an epoch. Pure numpy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlpf.data.flat_tables import IntArray, Table

FloatArray = npt.NDArray[np.float32]

# Fills a short batch: an event without elements.
EMPTY_EVENT = -1


@dataclass(frozen=True)
class WeightedEvents:
    """Events of one dataset, and how often an epoch takes each.

    An epoch takes round(weight n) of its n events, at least one: with weight 1 every event once, with 2
    twice, with 0.5 one half, and in the next epoch the other half. Epochs take events from a sequence of
    passes over all events, each pass in its own order, and start where the previous epoch stopped. After any
    number of epochs the numbers of times that two events were taken differ by at most one.

    Attributes:
        events: [n] numbers of the events.
        weight: passes over the events per epoch, above 0.
    """

    events: IntArray
    weight: float = 1.0

    @property
    def num_draws(self) -> int:
        """Number of events of an epoch; repeated events count each time."""
        return max(1, round(self.weight * len(self.events))) if len(self.events) else 0

    def draw(self, epoch: int, seed: Sequence[int] | None) -> IntArray:
        """Return the events of one epoch.

        Args:
            epoch: number of the epoch, from 1; 0 means 1.
            seed: seed of the orders of the passes; None keeps the order of ``events``.
        """
        size = len(self.events)
        if self.num_draws == size:
            return self.events  # all of them, whatever their order
        draws = max(epoch - 1, 0) * self.num_draws + np.arange(self.num_draws)
        passes, places = np.divmod(draws, size)
        drawn = np.empty(self.num_draws, np.int64)
        for number in np.unique(passes).tolist():
            order = np.arange(size)
            if seed is not None:
                order = np.random.default_rng([*seed, number]).permutation(size)
            now = passes == number
            drawn[now] = self.events[order[places[now]]]
        return drawn


@dataclass(frozen=True)
class Batch:
    """One batch of a plan.

    Attributes:
        indices: [B] events, or ``EMPTY_EVENT``.
        length: padded number of elements N.
    """

    indices: IntArray
    length: int

    def share(self, rank: int, num_ranks: int) -> "Batch":
        """Return the rows of one of several processes; B must be a multiple of their number."""
        size = len(self.indices) // num_ranks
        return Batch(self.indices[rank * size : (rank + 1) * size], self.length)


@dataclass(frozen=True)
class BatchPlan:
    """The batches of one epoch, in order.

    Attributes:
        batches: every event of the epoch is in exactly one of them.
        num_events: events in all batches; repeated events count each time, empty ones do not count.
        num_elements: elements of these events, without padding.
        padded_fraction: fraction of padding in the elements of all batches.
    """

    batches: tuple[Batch, ...]
    num_events: int
    num_elements: int
    padded_fraction: float

    def __len__(self) -> int:
        """Return the number of batches, that is of training steps."""
        return len(self.batches)


def pad_length(num_elements: int, unit: int) -> int:
    """Return the smallest multiple of ``unit``, above 0, that holds ``num_elements``."""
    return math.ceil(max(1, num_elements) / unit) * unit


def pad_events(table: Table, events: IntArray, length: int) -> dict[str, FloatArray]:
    """Put events of a table into arrays of one shape, padded with zeros.

    Args:
        table: columns [n, width].
        events: [B] positions in the table; ``EMPTY_EVENT`` gives an event without elements.
        length: padded number of elements N, at least that of the longest of these events.

    Returns:
        Column name -> [B, N, width] float32.
    """
    padded = {
        name: np.zeros((len(events), length, values.shape[1]), np.float32)
        for name, values in table.columns.items()
    }
    places = np.flatnonzero(events != EMPTY_EVENT)
    begin, end = table.offsets[:-1][events[places]], table.offsets[1:][events[places]]
    # A slice per event is one copy of memory; selecting rows by index takes two to ten times as long.
    for place, first, last in zip(places.tolist(), begin.tolist(), end.tolist(), strict=True):
        for name, values in table.columns.items():
            padded[name][place, : last - first] = values[first:last]
    return padded


def bucket_edges(max_elements: int, unit: int, growth: float) -> tuple[int, ...]:
    """Return increasing bucket lengths by ``pad_length``, with ratios of at least ``growth``.

    Args:
        max_elements: elements of the longest event; the last edge holds it.
        unit: every length is a multiple of it.
        growth: ratio of neighbouring edges, above 1; an infinite one gives a single bucket.
    """
    last = pad_length(max_elements, unit)
    if math.isinf(growth):
        return (last,)
    edges = [unit]
    while edges[-1] < last:
        edges.append(pad_length(max(math.floor(edges[-1] * growth), edges[-1] + 1), unit))
    edges[-1] = last
    return tuple(edges)


def plan_epoch(
    lengths: npt.NDArray[np.integer],
    groups: Sequence[tuple[IntArray, int]],
    edges: Sequence[int],
    *,
    seed: int | None = None,
    epoch: int = 0,
) -> BatchPlan:
    """Put every event into one batch.

    Events of similar length share a batch. Events that are left over in a bucket move to the next longer
    one. At most one batch per group is short; empty events fill it.

    Args:
        lengths: elements of each event.
        groups: (events, batch size) of each group; a batch holds events of one group.
        edges: bucket lengths, rising; the last one holds the longest event.
        seed: shuffles events and batches in each ``epoch``; None keeps the order of events and of
            buckets.
        epoch: number of the epoch.
    """
    rng = None if seed is None else np.random.default_rng([seed, epoch])
    batches = [
        batch
        for indices, batch_size in groups
        for batch in _plan_group(np.asarray(indices), lengths, batch_size, edges, rng)
    ]
    if rng is not None:
        batches = [batches[i] for i in rng.permutation(len(batches))]
    used = [batch.indices[batch.indices != EMPTY_EVENT] for batch in batches]
    slots = sum(batch.length * len(batch.indices) for batch in batches)
    filled = sum(int(np.sum(lengths[indices])) for indices in used)
    return BatchPlan(
        batches=tuple(batches),
        num_events=sum(len(indices) for indices in used),
        num_elements=filled,
        padded_fraction=1 - filled / slots if slots else 0.0,
    )


def _plan_group(
    indices: IntArray,
    lengths: npt.NDArray[np.integer],
    batch_size: int,
    edges: Sequence[int],
    rng: np.random.Generator | None,
) -> list[Batch]:
    """Return the batches of one group, shortest bucket first."""
    if rng is not None:
        indices = rng.permutation(indices)
    bucket = np.searchsorted(np.asarray(edges), lengths[indices])
    batches: list[Batch] = []
    left = np.empty(0, np.int64)
    for number in np.unique(bucket):
        length = int(edges[number])
        waiting = np.concatenate([left, indices[bucket == number]])
        num_full = len(waiting) // batch_size * batch_size
        batches += [Batch(part, length) for part in waiting[:num_full].reshape(-1, batch_size)]
        left = waiting[num_full:]
    if len(left):
        fill = np.full(batch_size - len(left), EMPTY_EVENT)
        batches.append(Batch(np.concatenate([left, fill]), length))
    return batches
