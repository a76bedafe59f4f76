"""Predictions of one dataset, the input of metrics and figures, and their parquet file.

Parquet: one row per event. A dot in a name means a nested column. Columns are lists: ``elements.elemtype``,
``elements.<method>.{cls, energy}``, ``particles.<method>.<column>``, ``jets.<method>.{pt, eta, phi, energy}``
and ``matched_jets.<method>.{gen, reco}`` (indices in the jet lists of the event); and ``event``, a text.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlpf.data.dataset.prepared_events import PreparedEvents
from mlpf.data.flat_tables import IntArray, Table
from mlpf.errors import DataError
from mlpf.evaluation.particles import (
    ELEMTYPE,
    Array,
    element_columns,
    jet_table,
    match_table,
    particle_table,
)
from mlpf.files.atomic import atomic_write
from mlpf.physics.jets import JetAlgorithm
from mlpf.physics.methods import BASELINE, GEN, LIMITS, METHODS, NETWORK, TARGET
from mlpf.physics.schemas import SCHEMAS, EventSchema

# Fields that ``make_predictions`` reads if the dataset has them.
EVENT_FIELDS = ("X", "ygen", "ycand", "gen_particles", "oracle_particles", "perfect_particles", "event")
_METADATA_KEY = b"mlpf.predictions"


@dataclass(frozen=True)
class Predictions:
    """Predictions of B events, with targets, baseline and the limits set by truth.

    Attributes:
        dataset: name of the dataset.
        schema: schema of the events, key of ``SCHEMAS``.
        gen_reference: source of ``particles["gen"]``: ``"gen_particles"`` or ``"targets"``.
        jet_algorithm: key of ``JET_DEFINITIONS``.
        event: B event identifiers.
        elements: ``elemtype``, and for ``target``, ``cand``, ``pred`` (if there is a network)
            ``<method>.cls``, class index, and ``<method>.energy`` in GeV; both 0 = no particle.
        particles: ``"gen"`` and each existing one of ``METHODS`` -> table of ``particle_table``.
        jets: the same keys -> table of ``jet_table``.
        matched_jets: the same keys without ``"gen"`` -> table of ``match_table``.
    """

    dataset: str
    schema: str
    gen_reference: str
    jet_algorithm: JetAlgorithm
    event: list[str]
    elements: Table
    particles: dict[str, Table]
    jets: dict[str, Table]
    matched_jets: dict[str, Table]

    @property
    def num_events(self) -> int:
        """Number of events B."""
        return len(self.event)

    @property
    def elements_per_event(self) -> dict[str, IntArray]:
        """Number of elements of each kind in each event: plural of the kind -> [B]."""
        elements = self.elements.select(["elemtype"])
        return {
            f"{kind.name}s": elements.where(elements["elemtype"] == kind.elemtype).counts
            for kind in SCHEMAS[self.schema].kinds
        }

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods present, in the order of ``METHODS``."""
        return tuple(m for m in METHODS if m in self.particles)


def make_predictions(
    dataset: str,
    events: PreparedEvents,
    predicted: Array,
    jet_algorithm: JetAlgorithm,
    schema: EventSchema = SCHEMAS["clic"],
) -> Predictions:
    """Cluster and match the jets of predicted and true particles.

    Args:
        dataset: name of the dataset.
        events: ``X``, ``ygen``, ``ycand`` and, if the dataset has them, ``gen_particles``,
            ``oracle_particles``, ``perfect_particles`` and ``event``. Without ``gen_particles`` the
            reference are the targets.
        predicted: [n, 7] rows of ``PARTICLE_COLUMNS``, one for each element of ``events``.
        jet_algorithm: key of ``JET_DEFINITIONS``.
        schema: schema of the events.
    """
    return with_network(make_reference(dataset, events, jet_algorithm, schema), predicted)


def make_reference(
    dataset: str,
    events: PreparedEvents,
    jet_algorithm: JetAlgorithm,
    schema: EventSchema = SCHEMAS["clic"],
) -> Predictions:
    """Return the part of ``make_predictions`` that does not depend on a network."""
    fields = {TARGET: "ygen", BASELINE: "ycand"}
    elements = {"elemtype": events["X"][:, ELEMTYPE].astype(np.int64)}
    for method, field in fields.items():
        elements |= element_columns(method, events[field])
    lists = {name: f"{name}_particles" for name in (GEN, *LIMITS)}
    fields |= {name: field for name, field in lists.items() if field in events}
    particles = {name: particle_table(events[f], events.table(f).offsets) for name, f in fields.items()}
    particles.setdefault(GEN, particles[TARGET])
    jets = {name: jet_table(value, jet_algorithm) for name, value in particles.items()}
    return Predictions(
        dataset=dataset,
        schema=schema.name,
        gen_reference=fields.get(GEN, "targets"),
        jet_algorithm=jet_algorithm,
        event=events.names,
        elements=Table(elements, events.elements.offsets),
        particles=particles,
        jets=jets,
        matched_jets={name: match_table(jets[GEN], value) for name, value in jets.items() if name != GEN},
    )


def with_network(reference: Predictions, predicted: Array) -> Predictions:
    """Add the predictions of a network to a result of ``make_reference``.

    Args:
        reference: the events without a network.
        predicted: [n, 7] rows of ``PARTICLE_COLUMNS``, one for each element.
    """
    elements = reference.elements
    particles = particle_table(predicted, elements.offsets)
    jets = jet_table(particles, reference.jet_algorithm)
    return replace(
        reference,
        elements=Table(elements.columns | element_columns(NETWORK, predicted), elements.offsets),
        particles=reference.particles | {NETWORK: particles},
        jets=reference.jets | {NETWORK: jets},
        matched_jets=reference.matched_jets | {NETWORK: match_table(reference.jets[GEN], jets)},
    )


def write_predictions(predictions: Predictions, path: Path) -> None:
    """Write predictions as parquet, atomically.

    Raises:
        OSError: the file cannot be written.
    """
    tables = {"elements": predictions.elements}
    for method, table in predictions.particles.items():
        tables[f"particles.{method}"] = table
    for method, table in predictions.jets.items():
        tables[f"jets.{method}"] = table
    for method, table in predictions.matched_jets.items():
        first = _first_jets(predictions.jets, method, table)
        places = {side: rows - first[side] for side, rows in table.columns.items()}
        tables[f"matched_jets.{method}"] = Table(places, table.offsets)
    columns: dict[str, pa.Array] = {"event": pa.array(predictions.event, pa.string())}
    for prefix, table in tables.items():
        # Particles are float32 in datasets; int32 is enough for any class, charge or index.
        arrays = _converted(table, np.int32, np.float32).to_arrow()
        columns |= {f"{prefix}.{name}": array for name, array in arrays.items()}
    about = {
        "dataset": predictions.dataset,
        "schema": predictions.schema,
        "gen_reference": predictions.gen_reference,
        "jet_algorithm": predictions.jet_algorithm,
        "units": "GeV, rad",
    }
    written = pa.table(_nested(columns)).replace_schema_metadata({_METADATA_KEY: json.dumps(about).encode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        pq.write_table(written, part)


def read_predictions(path: Path) -> Predictions:
    """Read a file of ``write_predictions``.

    Raises:
        DataError: no such file, or it does not hold predictions.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file; `mlpf evaluate -t RUN_DIR` writes it")
    try:
        found = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable parquet file ({error}); run `mlpf evaluate` again") from None
    metadata = found.schema.metadata or {}
    if _METADATA_KEY not in metadata:
        raise DataError(f"{path}: holds no predictions; expected a file written by `mlpf evaluate`")
    try:
        about = json.loads(metadata[_METADATA_KEY])
        event, tables = found["event"].to_pylist(), _tables(found)
        jets, matched = tables["jets"], tables["matched_jets"]
        for method, table in matched.items():
            first = _first_jets(jets, method, table)
            rows = {side: places + first[side] for side, places in table.columns.items()}
            matched[method] = Table(rows, table.offsets)
        return Predictions(
            dataset=about["dataset"],
            schema=about.get("schema", "clic"),
            gen_reference=about["gen_reference"],
            jet_algorithm=about["jet_algorithm"],
            event=event,
            elements=tables["elements"][""],
            particles=tables["particles"],
            jets=jets,
            matched_jets=matched,
        )
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{path}: other columns than `mlpf evaluate` writes ({error}); run it again"
        ) from error


def _first_jets(jets: Mapping[str, Table], method: str, matched: Table) -> dict[str, IntArray]:
    """Return the row of the first jet of the event of each match, on both sides."""
    return {"gen": jets[GEN].offsets[matched.event], "reco": jets[method].offsets[matched.event]}


def _converted(table: Table, integer: type[np.integer], number: type[np.floating]) -> Table:
    kinds = {name: integer if v.dtype.kind == "i" else number for name, v in table.columns.items()}
    return Table({name: v.astype(kinds[name]) for name, v in table.columns.items()}, table.offsets)


def _nested(columns: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
    """Put columns with the same name before the first dot into a struct of that name, recursively."""
    inner: dict[str, dict[str, pa.Array]] = {}
    for name, array in columns.items():
        first, _, rest = name.partition(".")
        inner.setdefault(first, {})[rest] = array
    result: dict[str, pa.Array] = {}
    for name, members in inner.items():
        if "" in members:
            result[name] = members[""]
        else:
            nested = _nested(members)
            result[name] = pa.StructArray.from_arrays(list(nested.values()), list(nested))
    return result


def _tables(found: pa.Table) -> dict[str, dict[str, Table]]:
    """Return the tables of a file: field -> method -> table; ``elements`` has method ""."""
    found = found.drop_columns("event")
    while any(pa.types.is_struct(kind) for kind in found.schema.types):
        found = found.flatten()
    arrays: dict[str, dict[str, dict[str, pa.Array]]] = {}
    for name in found.column_names:
        field, rest = name.split(".", 1)
        method, column = ("", rest) if field == "elements" else rest.split(".", 1)
        arrays.setdefault(field, {}).setdefault(method, {})[column] = found[name].combine_chunks()
    return {
        field: {m: _converted(Table.from_arrow(a), np.int64, np.float64) for m, a in of_method.items()}
        for field, of_method in arrays.items()
    }
