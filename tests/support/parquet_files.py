"""Random events as ``mlpf postprocess`` would write them, without the ROOT file they came from."""

from pathlib import Path

import numpy as np

from mlpf.data.events import Events, EventsWriter, Jagged
from mlpf.data.flat_tables import offsets_from_counts
from mlpf.physics.features import PARQUET_TARGETS
from mlpf.physics.schemas import SCHEMAS, EventSchema

LABELS = (0, 211, 130, 22, 11, 13)


def random_events(
    rng: np.random.Generator, num_events: int, schema: EventSchema = SCHEMAS["clic"], first_event: int = 0
) -> Events:
    """Events of up to 12 elements of each kind, at least one in all."""

    def targets(number: int) -> np.ndarray:
        rows = np.zeros((number, len(PARQUET_TARGETS)))
        pt, eta, phi = (
            rng.exponential(5.0, number) + 0.1,
            rng.normal(0, 1, number),
            rng.uniform(-3, 3, number),
        )
        columns = {
            "PDG": rng.choice(LABELS, number),
            "charge": rng.choice([-1, 0, 1], number),
            "pt": pt,
            "eta": eta,
            "sin_phi": np.sin(phi),
            "cos_phi": np.cos(phi),
            "energy": pt * np.cosh(eta),
        }
        for name, values in columns.items():
            rows[:, PARQUET_TARGETS.index(name)] = values
        return rows

    jagged = {}
    for position, kind in enumerate(schema.kinds):
        counts = rng.integers(1 if position == 0 else 0, 13, num_events)
        offsets = offsets_from_counts(counts)
        x = rng.normal(size=(offsets[-1], len(kind.features)))
        x[:, kind.features.index("elemtype")] = kind.elemtype
        jagged[f"X_{kind.name}"] = (x, offsets)
        for prefix in ("ygen", "ycand"):
            jagged[f"{prefix}_{kind.name}"] = (targets(int(offsets[-1])), offsets)
    for name in schema.particle_lists:
        offsets = offsets_from_counts(rng.integers(0, 9, num_events))
        jagged[name] = (targets(int(offsets[-1])), offsets)
    scalars = {name: np.zeros(num_events, kind) for name, kind in schema.scalar_types.items()}
    scalars["event"] = np.arange(first_event, first_event + num_events)
    return Events(
        {name: Jagged(values.astype(np.float32), offsets) for name, (values, offsets) in jagged.items()},
        scalars,
        schema=schema,
    )


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
