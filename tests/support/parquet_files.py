"""Random events as ``mlpf postprocess`` would write them, without the ROOT file they came from."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from mlpf.data.events import METADATA_KEY, Events, EventsWriter
from mlpf.data.flat_tables import Table, offsets_from_counts
from mlpf.physics.features import PARTICLE_COLUMNS
from mlpf.physics.particles import NUM_CLASSES
from mlpf.physics.schemas import SCHEMAS, EventSchema


def random_events(
    rng: np.random.Generator, num_events: int, schema: EventSchema = SCHEMAS["clic"], first_event: int = 0
) -> Events:
    """Events of up to 12 elements of each kind, at least one in all."""

    def targets(number: int) -> np.ndarray:
        rows = np.zeros((number, len(PARTICLE_COLUMNS)))
        pt, eta, phi = (
            rng.exponential(5.0, number) + 0.1,
            rng.normal(0, 1, number),
            rng.uniform(-3, 3, number),
        )
        columns = {
            "cls": rng.choice(NUM_CLASSES, number),
            "charge": rng.choice([-1, 0, 1], number),
            "pt": pt,
            "eta": eta,
            "sin_phi": np.sin(phi),
            "cos_phi": np.cos(phi),
            "energy": pt * np.cosh(eta),
        }
        for name, values in columns.items():
            rows[:, PARTICLE_COLUMNS.index(name)] = values
        return rows

    def table(offsets: np.ndarray, columns: dict[str, np.ndarray]) -> Table:
        return Table({name: values.astype(np.float32) for name, values in columns.items()}, offsets)

    tables = {}
    for position, kind in enumerate(schema.kinds):
        counts = rng.integers(1 if position == 0 else 0, 13, num_events)
        offsets = offsets_from_counts(counts)
        number = int(offsets[-1])
        x = rng.normal(size=(number, len(kind.features)))
        x[:, kind.features.index("elemtype")] = kind.elemtype
        tables[kind.name] = table(offsets, {"X": x, "ygen": targets(number), "ycand": targets(number)})
    for name in schema.particle_lists:
        offsets = offsets_from_counts(rng.integers(0, 9, num_events))
        tables[name] = table(offsets, {name: targets(int(offsets[-1]))})
    scalars = {name: np.zeros(num_events, kind) for name, kind in schema.scalar_types.items()}
    scalars["event"] = np.arange(first_event, first_event + num_events)
    return Events(tables, Table.one_row_per_event(scalars), schema)


def write_parquet(
    path: Path, num_events: int = 10, schema: EventSchema = SCHEMAS["clic"], chunk: int = 4
) -> Path:
    """Write random events, which depend on the name of the file, as several row groups."""
    rng = np.random.default_rng(list(path.stem.encode()))
    with EventsWriter(path, schema) as writer:
        for first in range(0, num_events, chunk):
            writer.write(random_events(rng, min(chunk, num_events - first), schema, first))
        writer.finish({"source": f"{path.stem}.root", "source_bytes": 1, "truth_version": "1.0.0"})
    return path


def as_other_format(path: Path, version: int) -> None:
    """Let a parquet file say that another version wrote it; the first did not name the schema."""
    content = pq.read_table(path)
    description = json.loads(pq.read_metadata(path).metadata[METADATA_KEY]) | {"format_version": version}
    if version == 1:
        del description["schema"]
    pq.write_table(content.replace_schema_metadata({METADATA_KEY: json.dumps(description)}), path)
