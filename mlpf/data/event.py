"""Events as parquet: one file per input file, one row per event, jagged arrays with named columns."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mlpf.atomic import atomic_write
from mlpf.data.tables import BoolArray, IntArray, expand_ranges, offsets_from_counts
from mlpf.errors import DataError, SchemaMismatch
from mlpf.physics.features import CLUSTER_FEATURES, PARQUET_TARGETS, TRACK_FEATURES, Columns

FORMAT_VERSION = 1
METADATA_KEY = b"mlpf"

JAGGED_COLUMNS: dict[str, Columns] = {
    "X_track": TRACK_FEATURES,
    "X_cluster": CLUSTER_FEATURES,
    "ygen_track": PARQUET_TARGETS,
    "ygen_cluster": PARQUET_TARGETS,
    "ycand_track": PARQUET_TARGETS,
    "ycand_cluster": PARQUET_TARGETS,
    "gen_particles": PARQUET_TARGETS,
    "oracle_particles": PARQUET_TARGETS,
    "perfect_particles": PARQUET_TARGETS,
}
SCALAR_TYPES = {"event": np.int64, "lost_energy": np.float64, "lost_charge": np.float64, "num_lost": np.int64}
# Fields that must have the same number of rows in every event.
_ALIGNED = (("X_track", "ygen_track", "ycand_track"), ("X_cluster", "ygen_cluster", "ycand_cluster"))


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
        jagged: every field of ``JAGGED_COLUMNS``.
        scalars: every field of ``SCALAR_TYPES``, [E] each.
        metadata: source, truth_version, counters and whatever else describes the file.
    """

    jagged: dict[str, Jagged]
    scalars: dict[str, npt.NDArray]
    metadata: dict[str, Any] = field(default_factory=dict)

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
        return Events(jagged, {n: v[keep] for n, v in self.scalars.items()}, self.metadata)

    def check(self, where: str) -> None:
        """Check the invariants: aligned rows, finite values, unique event numbers.

        Raises:
            DataError: names the first field that breaks one.
        """
        for name, columns in JAGGED_COLUMNS.items():
            jagged = self.jagged[name]
            if jagged.values.shape[1:] != (len(columns),) or len(jagged) != len(self):
                raise DataError(
                    f"{where}: {name} has shape {jagged.values.shape} in {len(jagged)} events, "
                    f"expected {len(columns)} columns in {len(self)} events; run mlpf postprocess again"
                )
            if not np.isfinite(jagged.values).all():
                raise DataError(f"{where}: {name} holds NaN or infinity; run mlpf postprocess again")
        for names in _ALIGNED:
            for name in names[1:]:
                if not np.array_equal(self.jagged[name].offsets, self.jagged[names[0]].offsets):
                    raise DataError(
                        f"{where}: {name} and {names[0]} differ in length; run mlpf postprocess again"
                    )
        if len(np.unique(self.scalars["event"])) != len(self):
            raise DataError(f"{where}: event numbers repeat; run mlpf postprocess again")


def concatenate(chunks: Sequence[Events], metadata: Mapping[str, Any]) -> Events:
    """Join chunks of one file in order."""
    jagged = {
        name: Jagged(
            np.concatenate(
                [np.zeros((0, len(columns)), np.float32), *(c.jagged[name].values for c in chunks)]
            ),
            offsets_from_counts(
                np.concatenate([np.zeros(0, np.int64), *(np.diff(c.jagged[name].offsets) for c in chunks)])
            ),
        )
        for name, columns in JAGGED_COLUMNS.items()
    }
    scalars = {
        name: np.concatenate([np.zeros(0, kind), *(c.scalars[name] for c in chunks)]).astype(kind)
        for name, kind in SCALAR_TYPES.items()
    }
    return Events(jagged, scalars, dict(metadata))


def write_events(events: Events, path: Path) -> None:
    """Write a parquet file under a temporary name and rename it when it is complete.

    Raises:
        DataError: an invariant is broken, or the file cannot be written (disk full, no permission).
    """
    events.check(str(path))
    arrays = {name: pa.array(events.scalars[name]) for name in SCALAR_TYPES}
    for name in JAGGED_COLUMNS:
        jagged = events.jagged[name]
        flat = pa.array(np.ascontiguousarray(jagged.values, dtype=np.float32).reshape(-1))
        rows = pa.FixedSizeListArray.from_arrays(flat, jagged.values.shape[1])
        arrays[name] = pa.LargeListArray.from_arrays(pa.array(jagged.offsets), rows)
    description = {
        **events.metadata,
        "format_version": FORMAT_VERSION,
        "columns": {n: list(c.names) for n, c in JAGGED_COLUMNS.items()},
        "units": {n: list(c.units) for n, c in JAGGED_COLUMNS.items()},
    }
    table = pa.table(arrays).replace_schema_metadata({METADATA_KEY: json.dumps(description).encode()})
    try:
        with atomic_write(path) as part:
            pq.write_table(table, part, compression="zstd")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error}); free space or choose another place") from error


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the description of a parquet file written by ``write_events``.

    Raises:
        DataError: missing, not parquet, truncated, or not written by us.
        SchemaMismatch: names the first column that differs.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; run mlpf postprocess to make it")
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: not a complete parquet file ({_line(error)}); run mlpf postprocess again"
        ) from error
    if METADATA_KEY not in metadata:
        raise DataError(
            f"{path}: not written by mlpf postprocess (no column names); run it on the ROOT files"
        )
    description = json.loads(metadata[METADATA_KEY])
    for name, columns in JAGGED_COLUMNS.items():
        columns.require(description.get("columns", {}).get(name, ()), f"{path}: {name}")
    return description


def read_events(path: Path) -> Events:
    """Read a whole parquet file and check it.

    Raises:
        DataError: see ``read_metadata``, or an invariant is broken.
        SchemaMismatch: columns differ from those of the code.
    """
    metadata = read_metadata(path)
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: not a complete parquet file ({_line(error)}); run mlpf postprocess again"
        ) from error
    missing = [n for n in (*SCALAR_TYPES, *JAGGED_COLUMNS) if n not in table.column_names]
    if missing:
        raise SchemaMismatch(f"{path}: field {missing[0]!r} is missing; run mlpf postprocess again")
    jagged = {}
    for name, columns in JAGGED_COLUMNS.items():
        column = table[name].combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # an empty table stays chunked in some versions of pyarrow
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], type=column.type)
        rows = column.flatten()
        values = rows.flatten().to_numpy().reshape(-1, len(columns))
        lengths = np.diff(column.offsets.to_numpy())
        jagged[name] = Jagged(values, offsets_from_counts(lengths))
    scalars = {name: table[name].to_numpy().astype(kind) for name, kind in SCALAR_TYPES.items()}
    events = Events(jagged, scalars, metadata)
    events.check(str(path))
    return events


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
