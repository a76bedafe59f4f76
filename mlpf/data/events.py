"""Prepared events, and their parquet files: one per input file, one row per event."""

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

from mlpf.data.flat_tables import BoolArray, IntArray, Table
from mlpf.errors import DataError, SchemaMismatch, one_line
from mlpf.files.atomic import atomic_write
from mlpf.physics.features import Columns
from mlpf.physics.schemas import SCHEMAS, EventSchema, schema_named

FORMAT_VERSION = 3
METADATA_KEY = b"mlpf"
# Files of the first format do not name their schema; there was only this one.
_FIRST_SCHEMA = "clic"


@dataclass(frozen=True)
class Events:
    """Prepared events: tables over the same E events.

    Attributes:
        tables: tables of ``schema.tables``, each column [n, F] float32. Inputs, targets and candidates of the
            elements of a kind are columns of one table.
        scalars: one row per event, columns as in ``schema.scalar_types``.
        schema: schema of the events.
        metadata: source, truth_version, counters and the rest of the description of the file.
    """

    tables: dict[str, Table]
    scalars: Table
    schema: EventSchema = SCHEMAS["clic"]
    metadata: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Table:
        """Return one table."""
        return self.tables[name]

    def __len__(self) -> int:
        """Return the number of events E."""
        return self.scalars.num_events

    @property
    def num_bytes(self) -> int:
        """Size of all matrices."""
        return sum(v.nbytes for table in self.tables.values() for v in table.columns.values())

    @classmethod
    def empty(cls, schema: EventSchema, metadata: Mapping[str, Any] | None = None) -> "Events":
        """Return zero events with all columns."""
        tables = {
            name: Table({n: np.zeros((0, len(c)), np.float32) for n, c in columns.items()}, np.zeros(1, int))
            for name, columns in schema.tables.items()
        }
        scalars: dict[str, npt.NDArray] = {
            name: np.zeros(0, kind) for name, kind in schema.scalar_types.items()
        }
        return cls(tables, Table.one_row_per_event(scalars), schema, dict(metadata or {}))

    def take(self, events: IntArray | BoolArray) -> "Events":
        """Return the events at positions, in their order, or at [E] booleans."""
        tables = {name: table.take(events) for name, table in self.tables.items()}
        return Events(tables, self.scalars.take(events), self.schema, self.metadata)

    @classmethod
    def concatenate(cls, parts: Sequence["Events"]) -> "Events":
        """Join events of one schema in order; at least one part. The metadata are those of the first."""
        first = parts[0]
        tables = {name: Table.concatenate([part[name] for part in parts]) for name in first.tables}
        scalars = Table.concatenate([part.scalars for part in parts])
        return cls(tables, scalars, first.schema, first.metadata)

    def finite(self) -> BoolArray:
        """Return [E] True where all numbers of an event are finite."""
        good = np.ones(len(self), dtype=bool)
        for table in (*self.tables.values(), self.scalars):
            for values in table.columns.values():
                finite = np.isfinite(values)
                if not finite.all():
                    good[table.event[~finite.reshape(len(table), -1).all(axis=1)]] = False
        return good

    def check(self, where: str) -> None:
        """Check the invariants: shapes, finite values, unique event numbers.

        Raises:
            DataError: an invariant is broken; names the first such field.
        """
        remedy = "run mlpf postprocess again"
        for name, columns in self.schema.tables.items():
            table = self.tables[name]
            for column, expected in columns.items():
                values, field_ = table[column], field_name(name, column)
                wanted = (len(table), len(expected))
                if (values.shape, values.dtype, table.num_events) != (wanted, np.float32, len(self)):
                    raise DataError(
                        f"{where}: {field_} is {values.dtype.name} {values.shape} in {table.num_events} "
                        f"events, expected float32 {wanted} in {len(self)} events; {remedy}"
                    )
                if not np.isfinite(values).all():
                    raise DataError(f"{where}: {field_} holds NaN or infinity; {remedy}")
        if len(np.unique(self.scalars["event"])) != len(self):
            raise DataError(f"{where}: event numbers repeat; {remedy}")

    def to_parquet(self, path: Path) -> None:
        """Write a parquet file under a temporary name and rename it when it is complete.

        Raises:
            DataError: an invariant is broken, or the file cannot be written (disk full, no permission).
        """
        with EventsWriter(path, self.schema) as writer:
            writer.write(self)
            writer.finish(self.metadata)

    @classmethod
    def from_parquet(cls, path: Path) -> "Events":
        """Read a whole parquet file and check it.

        Raises:
            DataError: see ``read_metadata``, or an invariant is broken.
            SchemaMismatch: columns differ from those of the code.
        """
        metadata = read_metadata(path)
        nothing = cls.empty(schema_named(metadata["schema"], str(path)), metadata)
        events = cls.concatenate([nothing, *iterate_events(path)])
        events.check(str(path))
        return events


def float32_table(offsets: IntArray, **columns: npt.NDArray) -> Table:
    """Return a table of ``Events`` from matrices [n, F] of any type."""
    return Table({name: v.astype(np.float32, copy=False) for name, v in columns.items()}, offsets)


def field_name(table: str, column: str) -> str:
    """Return the name in a parquet file, e.g. ``X_track``; a particle list is a field of its own name."""
    return column if column == table else f"{column}_{table}"


class EventsWriter:
    """Writes a parquet file in chunks. The file gets its name only when it is complete.

    Use as a context manager. After an exception, or without ``finish``, no file stays.

    Args:
        path: file to write; replaced if it exists.
        schema: schema of the events.

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
                # Detector floats rarely repeat: a dictionary costs time and makes the file larger.
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
        """Mark the file as complete and set its description."""
        columns = _matrices(self._schema)
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
        """Rename the file if it is complete, else remove it."""
        if kind is None and not self._finished:
            unfinished = _UnfinishedError()
            self._stack.__exit__(_UnfinishedError, unfinished, None)
            return
        try:
            self._stack.__exit__(kind, error, trace)
        except OSError as problem:
            raise _cannot_write(self._path, problem) from problem


class _UnfinishedError(Exception):
    """Makes ``atomic_write`` drop an incomplete file."""


def _cannot_write(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be written ({error}); free space or choose another place")


def _matrices(schema: EventSchema) -> dict[str, Columns]:
    """Return the fields with a matrix per event, and its columns."""
    return {
        field_name(table, column): columns
        for table, matrices in schema.tables.items()
        for column, columns in matrices.items()
    }


def _arrow_schema(schema: EventSchema) -> pa.Schema:
    scalars = [(name, pa.from_numpy_dtype(kind)) for name, kind in schema.scalar_types.items()]
    matrices = [
        (name, pa.large_list(pa.list_(pa.float32(), len(columns))))
        for name, columns in _matrices(schema).items()
    ]
    return pa.schema([*scalars, *matrices])


def _arrow_table(events: Events) -> pa.Table:
    arrays = {name: pa.array(values) for name, values in events.scalars.columns.items()}
    for name, table in events.tables.items():
        arrays |= {field_name(name, column): array for column, array in table.to_arrow().items()}
    return pa.table(arrays, schema=_arrow_schema(events.schema))


def read_description(path: Path) -> dict[str, Any]:
    """Return the description of a parquet file of any version of this package; it always has "schema".

    Raises:
        DataError: the file is missing, not parquet, truncated, or not written by ``mlpf postprocess``.
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
        return {"schema": _FIRST_SCHEMA, **json.loads(metadata[METADATA_KEY])}
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: its description is damaged; run mlpf postprocess again") from error


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the description of a parquet file of the current format.

    Raises:
        DataError: the file is missing, not parquet, truncated, not written by ``mlpf postprocess``, or of
            another format.
        SchemaMismatch: columns differ; names the first one.
    """
    description = read_description(path)
    try:
        version = int(description["format_version"])
        columns = dict(description["columns"])
        schema = schema_named(description["schema"], str(path))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: its description is damaged; run mlpf postprocess again") from error
    if version != FORMAT_VERSION:
        age = "an older" if version < FORMAT_VERSION else "a newer"
        raise DataError(
            f"{path}: written by {age} version (format {version}, expected {FORMAT_VERSION}); "
            "run mlpf postprocess again"
        )
    for name, expected in _matrices(schema).items():
        expected.require(columns.get(name, ()), f"{path}: {name}")
    return description


def iterate_events(path: Path) -> Iterator[Events]:
    """Read a parquet file in the chunks in which it was written, and check each.

    Raises:
        DataError: see ``read_metadata``, or an invariant is broken.
        SchemaMismatch: columns differ from those of the code.
    """
    metadata = read_metadata(path)
    schema = schema_named(metadata["schema"], str(path))
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            missing = [n for n in (*schema.scalar_types, *_matrices(schema)) if n not in names]
            if missing:
                raise SchemaMismatch(f"{path}: field {missing[0]!r} is missing; run mlpf postprocess again")
            for group in range(file.num_row_groups):
                yield _checked_events(file.read_row_group(group), schema, metadata, path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: not a complete parquet file ({one_line(error)}); run mlpf postprocess again"
        ) from error


def _checked_events(group: pa.Table, schema: EventSchema, metadata: dict[str, Any], path: Path) -> Events:
    """Turn a row group into events.

    Raises:
        DataError: a field has another type, or an invariant is broken.
    """
    try:
        tables = {
            name: Table.from_arrow({c: _joined(group[field_name(name, c)]) for c in columns})
            for name, columns in schema.tables.items()
        }
        scalars = {
            name: _joined(group[name]).to_numpy().astype(kind, casting="same_kind")
            for name, kind in schema.scalar_types.items()
        }
    except (ValueError, TypeError, AttributeError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: a field has the wrong type ({one_line(error)}); run mlpf postprocess again"
        ) from error
    events = Events(tables, Table.one_row_per_event(scalars), schema, metadata)
    events.check(str(path))
    return events


def _joined(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    return pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
