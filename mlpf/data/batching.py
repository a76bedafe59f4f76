"""How events become batches: bucket lengths, and which events share a batch in an epoch. Pure numpy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

# Events shorter than a bin are padded to multiples of this: the cost of padding against many lengths.
SHORT_UNIT = 32
# Fills a short batch: an event without elements.
EMPTY_EVENT = -1


@dataclass(frozen=True)
class Batch:
    """One batch of a plan.

    Attributes:
        indices: [B] events, ``EMPTY_EVENT`` where there is none.
        length: padded number of elements N.
    """

    indices: IntArray
    length: int


@dataclass(frozen=True)
class BatchPlan:
    """The batches of one epoch, in order.

    Attributes:
        batches: every event is in exactly one of them.
        num_events: events in all batches, empty ones not counted.
        num_elements: elements of these events, padding not counted.
        padded_fraction: share of the elements in all batches that are padding.
    """

    batches: tuple[Batch, ...]
    num_events: int
    num_elements: int
    padded_fraction: float

    def __len__(self) -> int:
        """Return the number of batches, that is of training steps."""
        return len(self.batches)


def pad_length(num_elements: int, bin_size: int) -> int:
    """Return the smallest multiple of ``bin_size`` that holds ``num_elements``.

    Events that fit into one bin need not fill it: for them a multiple of ``SHORT_UNIT``.
    """
    unit = bin_size if num_elements > bin_size else SHORT_UNIT
    return min(
        max(1, math.ceil(num_elements / unit)) * unit, math.ceil(max(1, num_elements) / bin_size) * bin_size
    )


def pad_events(
    rows: Sequence[npt.NDArray[Any]], places: Sequence[int] | IntArray, shape: tuple[int, int, int]
) -> FloatArray:
    """Put the rows of events into one array, zero where there is no element or no event.

    Args:
        rows: per event [N_i, width].
        places: which of the B events of the result each one is.
        shape: (B, N, width) of the result, N at least the longest event.
    """
    padded = np.zeros(shape, np.float32)
    for place, values in zip(places, rows, strict=True):
        padded[place, : len(values)] = values
    return padded


def bucket_edges(max_elements: int, bin_size: int, growth: float) -> tuple[int, ...]:
    """Return rising bucket lengths as of ``pad_length``, neighbours in the ratio ``growth`` or more.

    Args:
        max_elements: elements of the longest event; the last edge holds it.
        bin_size: elements per bin S.
        growth: ratio of neighbouring edges, above 1; an infinite one gives a single bucket.
    """
    last = pad_length(max_elements, bin_size)
    if math.isinf(growth):
        return (last,)
    edges = [pad_length(1, bin_size)]
    while edges[-1] < last:
        edges.append(pad_length(max(math.floor(edges[-1] * growth), edges[-1] + 1), bin_size))
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

    Events of similar length share a batch. What is left over in a bucket moves up to the next
    one, so at most one batch per group is short; empty events fill it.

    Args:
        lengths: elements of each event.
        groups: (events, batch size) of each group; a batch holds events of one group.
        edges: bucket lengths, rising; the last one holds the longest event.
        seed: shuffles events and batches anew for each ``epoch``; None keeps the order of the
            events and of the buckets.
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
