"""Events of prepared splits -> shuffled, padded batches through tf.data."""

import hashlib
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mlpf.config.data_schema import BatchingConfig
from mlpf.data.dataset.prepared_events import PreparedEvents
from mlpf.data.feeding.batch_plan import (
    EMPTY_EVENT,
    Batch,
    BatchPlan,
    FloatArray,
    WeightedEvents,
    bucket_edges,
    pad_events,
    plan_epoch,
)
from mlpf.data.flat_tables import IntArray, Table, offsets_from_counts
from mlpf.errors import DataError
from mlpf.physics.features import TARGETS
from mlpf.physics.schemas import SCHEMAS, EventSchema

DEFAULT_FIELDS = ("X", "ygen")

_READ_CHUNK = 512
_PARALLEL_FETCHES = 2


def field_widths(schema: EventSchema) -> dict[str, int]:
    """Return the columns of each array that a batch can hold: ``X``, ``ygen``, ``ycand``."""
    return {"X": schema.num_features, "ygen": len(TARGETS), "ycand": len(TARGETS)}


class EventSplit(Protocol):
    """The part of a prepared split that the pipeline uses."""

    @property
    def num_events(self) -> int:
        """Number of events."""

    @property
    def lengths(self) -> IntArray:
        """[n] elements of each event."""

    def fetch(self, indices: Any, fields: Sequence[str] = DEFAULT_FIELDS) -> PreparedEvents:
        """Return some events."""


class EventPool:
    """Events of several splits with one numbering, as padded arrays.

    Args:
        splits: (split, largest number of events or None) of each dataset; the first events are used.
        fields: arrays of an event to read, of ``field_widths``.
        memory_limit: decoded events stay in memory up to this number of bytes; later epochs then copy
            them instead of decoding. Every process keeps all events, because all are shuffled.
        schema: schema of the events.

    Attributes:
        widths: columns of each of the ``fields``.
        lengths: [n] elements of each event.
        num_bad_values: NaN or infinite values of X that were set to 0 so far.
    """

    def __init__(
        self,
        splits: Sequence[tuple[EventSplit, int | None]],
        fields: Sequence[str] = DEFAULT_FIELDS,
        memory_limit: int = BatchingConfig().memory_limit_bytes,
        schema: EventSchema = SCHEMAS["clic"],
    ):
        self._splits = [split for split, _ in splits]
        counts = [split.num_events if most is None else min(most, split.num_events) for split, most in splits]
        self._first = np.cumsum([0, *counts])
        self.fields = tuple(fields)
        self.widths = {name: field_widths(schema)[name] for name in self.fields}
        self.lengths: IntArray = np.concatenate(
            [np.asarray(s.lengths[:n], np.int64) for s, n in zip(self._splits, counts, strict=True)]
            or [np.empty(0, np.int64)]
        )
        self.num_bad_values = 0
        self._lock = threading.Lock()
        self._stored: Table | None = None
        row_bytes = 4 * sum(self.widths.values())
        if int(self.lengths.sum()) * row_bytes <= memory_limit:
            self._stored = self._read_all()

    @property
    def num_events(self) -> int:
        """Number of events in the pool."""
        return len(self.lengths)

    @property
    def in_memory(self) -> bool:
        """True if all events are decoded already."""
        return self._stored is not None

    def events_of(self, position: int) -> IntArray:
        """Return the numbers of the events of split number ``position``."""
        return np.arange(self._first[position], self._first[position + 1])

    def locate(self, indices: IntArray) -> tuple[IntArray, IntArray]:
        """Return number of the split and position in the split of some events, both like ``indices``."""
        number = np.searchsorted(self._first, indices, side="right") - 1
        return number, indices - self._first[number]

    def fetch_padded(self, indices: IntArray, length: int) -> dict[str, FloatArray]:
        """Return the fields of some events, zero-padded.

        Args:
            indices: [B] events; ``EMPTY_EVENT`` gives an event without elements.
            length: padded number of elements N.

        Returns:
            Arrays [B, N, width], float32.

        Raises:
            DataError: an event has not as many rows as elements.
        """
        if self._stored is not None:
            return pad_events(self._stored, indices, length)
        real = np.flatnonzero(indices != EMPTY_EVENT)
        table, order = self._read(indices[real])
        places = np.full(len(indices), EMPTY_EVENT)
        places[real] = order
        return pad_events(table, places, length)

    def fetch(self, indices: IntArray, fields: Sequence[str] = DEFAULT_FIELDS) -> PreparedEvents:
        """Return some events without padding, with NaN and infinite inputs set to 0.

        Args:
            indices: events.
            fields: some of the fields of the pool.

        Raises:
            DataError: an event has not as many rows as elements.
        """
        table, events = (self._stored, indices) if self._stored is not None else self._read(indices)
        return PreparedEvents(table.select(fields).take(events), {}, {})

    def _read(self, indices: IntArray) -> tuple[Table, IntArray]:
        """Decode some events and clean X.

        Returns:
            The events, split after split, and the position of each of ``indices`` in them.
        """
        owner, position = self.locate(indices)
        order = np.argsort(owner, kind="stable")
        parts = []
        for number in np.unique(owner).tolist():
            wanted = order[owner[order] == number]
            table = self._splits[number].fetch(position[wanted], self.fields).elements.select(self.fields)
            self._check_rows(table, indices[wanted], number)
            parts.append(self._clean(table))
        if not parts:
            nothing = {name: np.empty((0, width), np.float32) for name, width in self.widths.items()}
            parts = [Table(nothing, offsets_from_counts(np.empty(0, np.int64)))]
        return parts[0] if len(parts) == 1 else Table.concatenate(parts), np.argsort(order)

    def _check_rows(self, table: Table, indices: IntArray, number: int) -> None:
        """Refuse an event of unexpected length, which would shift all later events without an error."""
        expected = self.lengths[indices]
        if (wrong := np.flatnonzero(table.counts != expected)).size:
            i = wrong[0]
            raise DataError(
                f"dataset {number + 1} of {len(self._splits)}, event {indices[i] - self._first[number]}: "
                f"{table.counts[i]} rows, expected {expected[i]}; build the dataset again"
            )

    def _clean(self, table: Table) -> Table:
        """Set NaN and infinite values of X to 0 and count them."""
        finite = np.isfinite(table["X"]) if "X" in self.fields else np.ones(0, bool)
        if finite.all():
            return table
        with self._lock:
            self.num_bad_values += int(finite.size - finite.sum())
        X = np.where(finite, table["X"], np.float32(0))
        return Table(table.columns | {"X": X}, table.offsets)

    def _read_all(self) -> Table:
        """Decode every event."""
        offsets = offsets_from_counts(self.lengths)
        columns = {name: np.empty((offsets[-1], width), np.float32) for name, width in self.widths.items()}
        for number in range(len(self._splits)):
            events = self.events_of(number)
            for first in range(0, len(events), _READ_CHUNK):
                indices = events[first : first + _READ_CHUNK]
                rows = slice(offsets[indices[0]], offsets[indices[-1] + 1])
                for name, values in self._read(indices)[0].columns.items():
                    columns[name][rows] = values
        return Table(columns, offsets)


@dataclass(frozen=True)
class Epoch:
    """The batches of one epoch.

    Attributes:
        plan: which event is in which batch, for all ranks and all steps.
        batches: dicts of [B / ranks, N, width] float32 tensors: the rows of this rank, from the requested
            first step on.
    """

    plan: BatchPlan
    batches: Iterable[dict[str, tf.Tensor]]


class BatchLoader:
    """Makes the batches of each epoch from a pool of events.

    Several processes (ranks) share a batch. All make the same plan, and each reads only its own equal part of
    every batch. All ranks take the same number of steps with the same padded lengths.

    Args:
        pool: the events.
        groups: (events, batch size) of each group; the events as ``WeightedEvents`` of each dataset, or all
            together, each once per epoch. Batch sizes are those of all ranks together.
        edges: bucket lengths; the last one holds the longest event.
        seed: shuffles anew every epoch; None keeps one fixed order.
        ranks: (rank of this process, number of ranks).

    Raises:
        ValueError: no such rank, or a batch that cannot be divided equally.
    """

    def __init__(
        self,
        pool: EventPool,
        groups: Sequence[tuple[IntArray | Sequence[WeightedEvents], int]],
        edges: Sequence[int],
        seed: int | None = None,
        ranks: tuple[int, int] = (0, 1),
    ):
        rank, num_ranks = ranks
        if not 0 <= rank < num_ranks:
            raise ValueError(f"rank {rank} of {num_ranks}, expected one of 0 to {num_ranks - 1}")
        for _, batch_size in groups:
            if batch_size % num_ranks:
                raise ValueError(f"a batch of {batch_size} events is no multiple of {num_ranks} ranks")
        self.pool = pool
        self._groups = [(_weighted_events(events), int(size)) for events, size in groups]
        self._edges = tuple(edges)
        self._seed = seed
        self._ranks = ranks

    def plan(self, epoch: int) -> BatchPlan:
        """Return the plan of ``epoch``, the same on every rank. All epochs have as many batches."""
        groups = []
        for number, (datasets, batch_size) in enumerate(self._groups):
            drawn = [
                dataset.draw(epoch, None if self._seed is None else (self._seed, number, place))
                for place, dataset in enumerate(datasets)
            ]
            groups.append((np.concatenate(drawn), batch_size))
        return plan_epoch(self.pool.lengths, groups, self._edges, seed=self._seed, epoch=epoch)

    def epoch(self, epoch: int, first_step: int = 0) -> Epoch:
        """Return the batches of ``epoch``, fetched ahead of their use.

        Args:
            epoch: number of the epoch.
            first_step: number of batches to leave out, because they were done before.

        Raises:
            ValueError: the epoch has fewer batches than ``first_step``.
        """
        plan = self.plan(epoch)
        if not 0 <= first_step <= len(plan):
            raise ValueError(f"epoch {epoch} has {len(plan)} batches, cannot start after {first_step}")
        rank, num_ranks = self._ranks
        batches = [batch.share(rank, num_ranks) for batch in plan.batches[first_step:]]
        return Epoch(plan, prefetched(self.pool, batches))

    def fingerprint(self) -> str:
        """Return a fingerprint of events, groups, buckets and order; equal on all ranks and in a resumed run.

        It changes with events, weights, batch sizes, buckets and seed, but not with the directory of the data
        or the use of memory.
        """
        digest = hashlib.blake2b(digest_size=16)
        arrays = [self.pool.lengths, np.asarray(self._edges)]
        settings: list[Any] = [self._seed]
        for datasets, batch_size in self._groups:
            arrays += [dataset.events for dataset in datasets]
            settings.append([batch_size, *(float(dataset.weight) for dataset in datasets)])
        for array in arrays:
            digest.update(f"{len(array)}:".encode())
            digest.update(array.astype("<i8").tobytes())
        digest.update(repr(settings).encode())
        return digest.hexdigest()


def _weighted_events(events: IntArray | Sequence[WeightedEvents]) -> list[WeightedEvents]:
    """Return the events of a group with their weights."""
    if isinstance(events, np.ndarray):
        return [WeightedEvents(events.astype(np.int64))]
    return list(events)


def prefetched(pool: EventPool, batches: Sequence[Batch]) -> tf.data.Dataset:
    """Return ``batches`` as a dataset that fetches and pads in the background."""

    def fetch(number: npt.NDArray[np.int64]) -> list[FloatArray]:
        batch = batches[int(number)]
        return list(pool.fetch_padded(batch.indices, batch.length).values())

    def named(number: tf.Tensor) -> dict[str, tf.Tensor]:
        arrays = tf.numpy_function(fetch, [number], [tf.float32] * len(pool.fields), stateful=False)
        named_arrays = dict(zip(pool.fields, arrays, strict=True))
        for name, array in named_arrays.items():
            array.set_shape((None, None, pool.widths[name]))
        return named_arrays

    options = tf.data.Options()
    options.threading.private_threadpool_size = _PARALLEL_FETCHES
    # There is nothing to tune, and its thread sleeps 10, 20, 40 ... ms. The end of an epoch waits until it
    # wakes up, at most for the duration of the epoch.
    options.autotune.enabled = False
    dataset = tf.data.Dataset.range(len(batches))
    dataset = dataset.map(named, num_parallel_calls=_PARALLEL_FETCHES, deterministic=True)
    return dataset.prefetch(2 * _PARALLEL_FETCHES).with_options(options)


def length_buckets(pools: Sequence[EventPool], unit: int, growth: float) -> tuple[int, ...]:
    """Return the bucket lengths that hold every event of ``pools`` (infinite growth: one bucket)."""
    longest = max((int(pool.lengths.max()) for pool in pools if pool.num_events), default=0)
    return bucket_edges(longest, unit, growth)
