"""Events as parquet: one file per input file, one row per event, jagged arrays with named columns."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mlpf.data.flat_tables import BoolArray, IntArray, expand_ranges, offsets_from_counts
from mlpf.errors import DataError, SchemaMismatch, one_line
from mlpf.files.atomic import atomic_write
from mlpf.physics.schemas import SCHEMAS, EventSchema, schema_named

FORMAT_VERSION = 2
METADATA_KEY = b"mlpf"
# Files of the first format do not name their schema: there was only this one.
_FIRST_SCHEMA = "clic"


@dataclass(frozen=True)
class Jagged:
    """Rows of all events behind each other.

    Attributes:
        values: [n, F] float32.
        offsets: [E + 1].
    """

    values: npt.NDArray[np.float32]
    offsets: IntArray

    def __getitem__(self, event: int) -> npt.NDArray[np.float32]:
        """Return the rows of one event, [n_e, F]."""
        return self.values[self.offsets[event] : self.offsets[event + 1]]

    def __len__(self) -> int:
        """Return the number of events E."""
        return len(self.offsets) - 1


@dataclass(frozen=True)
class Events:
    """Prepared events of one file.

    Attributes:
        jagged: every field of ``schema.jagged_columns``.
        scalars: every field of ``schema.scalar_types``, [E] each.
        metadata: source, truth_version, counters and whatever else describes the file.
        schema: what the events are made of.
    """

    jagged: dict[str, Jagged]
    scalars: dict[str, npt.NDArray]
    metadata: dict[str, Any] = field(default_factory=dict)
    schema: EventSchema = SCHEMAS["clic"]

    def __len__(self) -> int:
        """Return the number of events E."""
        return len(self.scalars["event"])

    def select(self, keep: BoolArray) -> "Events":
        """Return the events with ``keep`` [E] True."""
        jagged = {}
        for name, values in self.jagged.items():
            counts = np.diff(values.offsets)[keep]
            rows = expand_ranges(values.offsets[:-1][keep], counts)
            jagged[name] = Jagged(values.values[rows], offsets_from_counts(counts))
        scalars = {n: v[keep] for n, v in self.scalars.items()}
        return Events(jagged, scalars, self.metadata, self.schema)

    def check(self, where: str) -> None:
        """Check the invariants: aligned rows, finite values, unique event numbers.

        Raises:
            DataError: names the first field that breaks one.
        """
        for name, columns in self.schema.jagged_columns.items():
            jagged = self.jagged[name]
            if jagged.values.shape[1:] != (len(columns),) or len(jagged) != len(self):
                raise DataError(
                    f"{where}: {name} has shape {jagged.values.shape} in {len(jagged)} events, "
                    f"expected {len(columns)} columns in {len(self)} events; run mlpf postprocess again"
                )
            if not np.isfinite(jagged.values).all():
                raise DataError(f"{where}: {name} holds NaN or infinity; run mlpf postprocess again")
        for kind in self.schema.kinds:
            first = f"X_{kind.name}"
            for name in (f"ygen_{kind.name}", f"ycand_{kind.name}"):
                if not np.array_equal(self.jagged[name].offsets, self.jagged[first].offsets):
                    raise DataError(
                        f"{where}: {name} and {first} differ in length; run mlpf postprocess again"
                    )
        if len(np.unique(self.scalars["event"])) != len(self):
            raise DataError(f"{where}: event numbers repeat; run mlpf postprocess again")


def concatenate(
    chunks: Sequence[Events], metadata: Mapping[str, Any], schema: EventSchema = SCHEMAS["clic"]
) -> Events:
    """Join chunks of one file in order; all are of ``schema``."""
    jagged = {
        name: Jagged(
            np.concatenate(
                [np.zeros((0, len(columns)), np.float32), *(c.jagged[name].values for c in chunks)]
            ),
            offsets_from_counts(
                np.concatenate([np.zeros(0, np.int64), *(np.diff(c.jagged[name].offsets) for c in chunks)])
            ),
        )
        for name, columns in schema.jagged_columns.items()
    }
    scalars = {
        name: np.concatenate([np.zeros(0, kind), *(c.scalars[name] for c in chunks)]).astype(kind)
        for name, kind in schema.scalar_types.items()
    }
    return Events(jagged, scalars, dict(metadata), schema)


class EventsWriter:
    """Writes a parquet file chunk by chunk; it appears under its name only when it is complete.

    Use as a context manager; leaving it by an exception, or without ``finish``, leaves nothing behind.

    Args:
        path: file to write; replaced if it exists.
        schema: what the events are made of.

    Attributes:
        num_events: events written so far.
    """

    def __init__(self, path: Path, schema: EventSchema):
        self._path = path
        self._schema = schema
        self._numbers: set[int] = set()
        self._finished = False
        self.num_events = 0

    def __enter__(self) -> "EventsWriter":
        """Open the temporary file."""
        self._stack = ExitStack()
        try:
            self._part = self._stack.enter_context(atomic_write(self._path))
            self._writer = self._stack.enter_context(
                # Floats of detectors hardly repeat: a dictionary costs time and makes the file larger.
                pq.ParquetWriter(
                    self._part, _arrow_schema(self._schema), compression="zstd", use_dictionary=False
                )
            )
        except OSError as error:
            self._stack.close()
            raise _cannot_write(self._path, error) from error
        return self

    def write(self, events: Events) -> None:
        """Append a chunk as one row group.

        Raises:
            DataError: an invariant is broken, an event number repeats, or the disk is full.
        """
        events.check(str(self._path))
        numbers = set(events.scalars["event"].tolist())
        if numbers & self._numbers:
            raise DataError(
                f"{self._path}: event number {min(numbers & self._numbers)} repeats; check the input file"
            )
        self._numbers |= numbers
        if not len(events):
            return
        try:
            self._writer.write_table(_arrow_table(events))
        except OSError as error:
            raise _cannot_write(self._path, error) from error
        self.num_events += len(events)

    def finish(self, metadata: Mapping[str, Any]) -> None:
        """Say that all chunks are written and describe them."""
        columns = self._schema.jagged_columns
        description = {
            **metadata,
            "format_version": FORMAT_VERSION,
            "schema": self._schema.name,
            "columns": {n: list(c.names) for n, c in columns.items()},
            "units": {n: list(c.units) for n, c in columns.items()},
        }
        self._writer.add_key_value_metadata({METADATA_KEY.decode(): json.dumps(description)})
        self._finished = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        """Rename the file if it was finished, else remove it."""
        if kind is None and not self._finished:
            unfinished = _UnfinishedError()
            self._stack.__exit__(_UnfinishedError, unfinished, None)
            return
        try:
            self._stack.__exit__(kind, error, trace)
        except OSError as problem:
            raise _cannot_write(self._path, problem) from problem


class _UnfinishedError(Exception):
    """Makes ``atomic_write`` drop a file that nobody finished."""


def _cannot_write(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be written ({error}); free space or choose another place")


def _arrow_schema(schema: EventSchema) -> pa.Schema:
    scalars = [(name, pa.from_numpy_dtype(kind)) for name, kind in schema.scalar_types.items()]
    jagged = [
        (name, pa.large_list(pa.list_(pa.float32(), len(columns))))
        for name, columns in schema.jagged_columns.items()
    ]
    return pa.schema([*scalars, *jagged])


def _arrow_table(events: Events) -> pa.Table:
    arrays = {name: pa.array(events.scalars[name]) for name in events.schema.scalar_types}
    for name in events.schema.jagged_columns:
        jagged = events.jagged[name]
        flat = pa.array(np.ascontiguousarray(jagged.values, dtype=np.float32).reshape(-1))
        rows = pa.FixedSizeListArray.from_arrays(flat, jagged.values.shape[1])
        arrays[name] = pa.LargeListArray.from_arrays(pa.array(jagged.offsets), rows)
    return pa.table(arrays, schema=_arrow_schema(events.schema))


def write_events(events: Events, path: Path) -> None:
    """Write a parquet file under a temporary name and rename it when it is complete.

    Raises:
        DataError: an invariant is broken, or the file cannot be written (disk full, no permission).
    """
    with EventsWriter(path, events.schema) as writer:
        writer.write(events)
        writer.finish(events.metadata)


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the description of a parquet file written by ``write_events``.

    Raises:
        DataError: missing, not parquet, truncated, or not written by us.
        SchemaMismatch: names the first column that differs.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; run mlpf postprocess to make it")
    try:
        metadata = pq.read_metadata(path).metadata or {}
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: not a complete parquet file ({one_line(error)}); run mlpf postprocess again"
        ) from error
    if METADATA_KEY not in metadata:
        raise DataError(
            f"{path}: not written by mlpf postprocess (no column names); run it on the ROOT files"
        )
    try:
        description = json.loads(metadata[METADATA_KEY])
        schema = schema_named(description.get("schema", _FIRST_SCHEMA), str(path))
        columns = dict(description["columns"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: its description is damaged; run mlpf postprocess again") from error
    for name, expected in schema.jagged_columns.items():
        expected.require(columns.get(name, ()), f"{path}: {name}")
    return description


def iterate_events(path: Path) -> Iterator[Events]:
    """Read a parquet file chunk by chunk, each as it was written, and check it.

    Raises:
        DataError: see ``read_metadata``, or an invariant is broken.
        SchemaMismatch: columns differ from those of the code.
    """
    metadata = read_metadata(path)
    schema = schema_named(metadata.get("schema", _FIRST_SCHEMA), str(path))
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            missing = [n for n in (*schema.scalar_types, *schema.jagged_columns) if n not in names]
            if missing:
                raise SchemaMismatch(f"{path}: field {missing[0]!r} is missing; run mlpf postprocess again")
            for group in range(file.num_row_groups):
                yield _checked_events(file.read_row_group(group), schema, metadata, path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: not a complete parquet file ({one_line(error)}); run mlpf postprocess again"
        ) from error


def read_events(path: Path) -> Events:
    """Read a whole parquet file and check it.

    Raises:
        DataError: see ``read_metadata``, or an invariant is broken.
        SchemaMismatch: columns differ from those of the code.
    """
    metadata = read_metadata(path)
    schema = schema_named(metadata.get("schema", _FIRST_SCHEMA), str(path))
    events = concatenate(list(iterate_events(path)), metadata, schema)
    events.check(str(path))
    return events


def _checked_events(table: pa.Table, schema: EventSchema, metadata: dict[str, Any], path: Path) -> Events:
    """Turn a row group into events.

    Raises:
        DataError: a field has another type, or an invariant is broken.
    """
    jagged = {}
    try:
        for name, columns in schema.jagged_columns.items():
            column = table[name].combine_chunks()
            if isinstance(column, pa.ChunkedArray):
                column = pa.concat_arrays(column.chunks)
            values = column.flatten().flatten().to_numpy().reshape(-1, len(columns))
            lengths = np.diff(column.offsets.to_numpy())
            jagged[name] = Jagged(values.astype(np.float32, copy=False), offsets_from_counts(lengths))
        scalars = {name: table[name].to_numpy().astype(kind) for name, kind in schema.scalar_types.items()}
    except (ValueError, TypeError, AttributeError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: a field has the wrong type ({one_line(error)}); run mlpf postprocess again"
        ) from error
    events = Events(jagged, scalars, metadata, schema)
    events.check(str(path))
    return events
