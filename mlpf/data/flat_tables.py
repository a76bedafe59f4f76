"""Flat events: the container for events from the reader of a file to the evaluation.

Rows of all events are in one array, one event after the other, and ``offsets`` holds the first row of each
event. An index into a table counts rows of all events, so that no step needs a loop over events.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def offsets_from_counts(counts: npt.NDArray[np.integer] | BoolArray) -> IntArray:
    """Return [0, n0, n0 + n1, ...], one longer than ``counts``."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


def expand_ranges(starts: npt.NDArray[np.integer], counts: npt.NDArray[np.integer]) -> IntArray:
    """Concatenate the ranges [start, start + count)."""
    total = offsets_from_counts(counts)
    return np.arange(total[-1]) + np.repeat(np.asarray(starts, dtype=np.int64) - total[:-1], counts)


@dataclass(frozen=True)
class Table:
    """Columns of equal length n over E events, e.g. the particles of a chunk.

    Attributes:
        columns: name -> array of shape [n] or [n, F].
        offsets: [E + 1], rows of event e are offsets[e] to offsets[e + 1].
    """

    columns: dict[str, npt.NDArray]
    offsets: IntArray

    def __getitem__(self, name: str) -> npt.NDArray:
        """Return one column."""
        return self.columns[name]

    def __len__(self) -> int:
        """Return the number of rows n."""
        return int(self.offsets[-1])

    @property
    def num_events(self) -> int:
        """Number of events E."""
        return len(self.offsets) - 1

    @property
    def counts(self) -> IntArray:
        """Rows per event, [E]."""
        return np.diff(self.offsets)

    @property
    def event(self) -> IntArray:
        """Event of each row, [n]."""
        return np.repeat(np.arange(self.num_events), self.counts)

    def take(self, events: IntArray | BoolArray) -> "Table":
        """Return some events, in the given order.

        Args:
            events: positions of events, each from 0 to E - 1, or [E] booleans.
        """
        counts = self.counts[events]
        rows = expand_ranges(self.offsets[:-1][events], counts)
        # take and compress are five to fifteen times as fast as indexing a matrix by brackets.
        return Table(
            {name: v.take(rows, axis=0) for name, v in self.columns.items()}, offsets_from_counts(counts)
        )

    def select(self, names: Sequence[str]) -> "Table":
        """Return the table with some of its columns."""
        return Table({name: self.columns[name] for name in names}, self.offsets)

    def where(self, keep: BoolArray) -> "Table":
        """Return the rows where ``keep`` [n] is True. All events stay, also empty ones."""
        return Table(
            {name: v.compress(keep, axis=0) for name, v in self.columns.items()},
            offsets_from_counts(keep)[self.offsets],
        )

    def sum(self, values: npt.NDArray) -> FloatArray:
        """Sum ``values`` [n] over the rows of each event, [E]."""
        return np.bincount(self.event, weights=values, minlength=self.num_events).astype(np.float64)

    def split(self, sizes: Sequence[int] | None = None) -> Iterator["Table"]:
        """Yield tables of consecutive events. They share memory with this table.

        Args:
            sizes: numbers of events of the tables, with sum E; by default one table per event.
        """
        sizes = [1] * self.num_events if sizes is None else sizes
        if sum(sizes) != self.num_events:
            raise ValueError(f"{sum(sizes)} events asked for, the table has {self.num_events}")
        first = 0
        for size in sizes:
            offsets = self.offsets[first : first + size + 1]
            start, stop = int(offsets[0]), int(offsets[-1])
            yield Table({name: v[start:stop] for name, v in self.columns.items()}, offsets - start)
            first += size

    @classmethod
    def concatenate(cls, tables: Sequence["Table"]) -> "Table":
        """Join tables of the same columns in order; at least one table.

        Raises:
            ValueError: no table, or the names of their columns differ.
        """
        if not tables or any(set(t.columns) != set(tables[0].columns) for t in tables):
            raise ValueError("tables to concatenate: expected one at least, all with the same columns")
        columns = {name: np.concatenate([t.columns[name] for t in tables]) for name in tables[0].columns}
        return cls(columns, offsets_from_counts(np.concatenate([t.counts for t in tables])))

    @classmethod
    def one_row_per_event(cls, columns: dict[str, npt.NDArray]) -> "Table":
        """Make a table of columns [E] or [E, F]; at least one column."""
        return cls(columns, np.arange(len(next(iter(columns.values()))) + 1))

    @classmethod
    def from_events(
        cls, events: Sequence[Mapping[str, npt.NDArray]], names: Sequence[str] | None = None
    ) -> "Table":
        """Make a table of at least one event.

        Args:
            events: per event, column name -> array whose first axis are the rows of the event.
            names: columns of the table, at least one; default all of the first event.

        Raises:
            ValueError: no event, or the columns of an event differ in length.
        """
        if not events:
            raise ValueError("no event to make a table of")
        names = tuple(events[0]) if names is None else names
        counts = {name: np.array([len(e[name]) for e in events]) for name in names}
        first = next(iter(counts.values()))
        for name, count in counts.items():
            if (count != first).any():
                raise ValueError(f"event {int(np.argmax(count != first))}: {name} has another number of rows")
        columns = {name: np.concatenate([e[name] for e in events]) for name in names}
        return cls(columns, offsets_from_counts(first))

    def to_arrow(self) -> dict[str, pa.Array]:
        """Return each column as one list per event (of lists of F numbers for a matrix)."""
        offsets = pa.array(self.offsets)
        arrays = {}
        for name, values in self.columns.items():
            flat = pa.array(np.ascontiguousarray(values).reshape(-1))
            rows = flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
            arrays[name] = pa.LargeListArray.from_arrays(offsets, rows)
        return arrays

    @classmethod
    def from_arrow(cls, arrays: Mapping[str, pa.Array]) -> "Table":
        """Make a table of the result of ``to_arrow``, also if it was stored as parquet in between.

        Raises:
            ValueError: no array, an array holds something else than lists of numbers, or the lists of an
                event differ in length.
        """
        columns, found = {}, None
        for name, array in arrays.items():
            values, offsets = _flattened(name, array)
            if found is not None and not np.array_equal(found, offsets):
                raise ValueError(f"{name} has other numbers of rows than {next(iter(arrays))}")
            columns[name], found = values, offsets
        if found is None:
            raise ValueError("no array to make a table of")
        return cls(columns, found)


def _flattened(name: str, array: pa.Array) -> tuple[npt.NDArray, IntArray]:
    """Return the values [n] or [n, F] and the offsets of an array of lists."""
    if not isinstance(array, pa.ListArray | pa.LargeListArray) or array.null_count:
        raise ValueError(f"{name} is {array.type}, expected a list per event")
    values, width = array.flatten(), None
    if isinstance(values, pa.FixedSizeListArray) and not values.null_count:
        values, width = values.flatten(), values.type.list_size
    if not pa.types.is_primitive(values.type) or values.null_count:
        raise ValueError(f"{name} is {array.type}, expected lists of numbers")
    offsets = offsets_from_counts(array.value_lengths().to_numpy())
    flat = values.to_numpy()
    return flat if width is None else flat.reshape(-1, width), offsets


@dataclass(frozen=True)
class Relation:
    """Links between two tables, arrays of shape [L].

    Attributes:
        source: row of the first table.
        target: row of the second table.
        weight: weight of the link; 1 if the file has no weights.
    """

    source: IntArray
    target: IntArray
    weight: FloatArray

    def __len__(self) -> int:
        """Return the number of links."""
        return len(self.source)
