"""Predictions of one dataset: all that metrics and figures need, and its parquet form.

Parquet: one row per event with ``event``, ``elements.{elemtype, target, cand, pred}``,
``particles.<method>.<column>``, ``jets.<method>.{pt, eta, phi, energy}`` and
``matched_jets.<method>.{gen, reco}`` (places in the jet lists of the event).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlpf.errors import DataError
from mlpf.evaluation.particles import Array, Elements, IntArray, ParticleLists
from mlpf.files.atomic import atomic_write
from mlpf.physics.features import PARTICLE_COLUMNS
from mlpf.physics.jets import JetAlgorithm, Jets, match_jets
from mlpf.physics.methods import BASELINE, ELEMENT_METHODS, GEN, LIMITS, METHODS, NETWORK, TARGET
from mlpf.physics.schemas import SCHEMAS, EventSchema

# What ``make_predictions`` reads of an event, where the dataset has it.
EVENT_FIELDS = ("X", "ygen", "ycand", "gen_particles", "oracle_particles", "perfect_particles", "event")
JET_COLUMNS = ("pt", "eta", "phi", "energy")
_METADATA_KEY = b"mlpf.predictions"


@dataclass(frozen=True)
class Predictions:
    """Predictions of B events beside targets, baseline and the limits set by truth.

    Attributes:
        dataset: name of the dataset.
        schema: what its events are made of, key of ``SCHEMAS``.
        gen_reference: what ``particles["gen"]`` is: ``"gen_particles"`` or ``"targets"``.
        jet_algorithm: key of ``JET_DEFINITIONS``.
        event: B event identifiers.
        elements: classes and energies given to the elements.
        particles: ``"gen"`` and those of ``METHODS`` that exist.
        jets: the same keys.
        matches: the same keys without ``"gen"`` -> places of matched jets in the flat gen and reco jets.
    """

    dataset: str
    schema: str
    gen_reference: str
    jet_algorithm: JetAlgorithm
    event: list[str]
    elements: Elements
    particles: dict[str, ParticleLists]
    jets: dict[str, Jets]
    matches: dict[str, tuple[IntArray, IntArray]]

    @property
    def num_events(self) -> int:
        """Number of events B."""
        return len(self.event)

    @property
    def elements_per_event(self) -> dict[str, IntArray]:
        """Number of elements of each kind in each event: plural of the kind -> [B]."""
        event = np.repeat(np.arange(self.num_events), self.elements.counts)
        return {
            f"{kind.name}s": np.bincount(
                event[self.elements.elemtype == kind.elemtype], minlength=self.num_events
            )
            for kind in SCHEMAS[self.schema].kinds
        }

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods present, in the order of ``METHODS``."""
        return tuple(m for m in METHODS if m in self.particles)


def make_predictions(
    dataset: str,
    events: Sequence[Mapping[str, Any]],
    predicted: Sequence[Array],
    jet_algorithm: JetAlgorithm,
    schema: EventSchema = SCHEMAS["clic"],
) -> Predictions:
    """Cluster and match the jets of predicted and true particles.

    Args:
        dataset: name of the dataset.
        events: per event ``X``, ``ygen``, ``ycand`` and, if the dataset has them, ``gen_particles``,
            ``oracle_particles``, ``perfect_particles`` and ``event``. Without ``gen_particles`` the
            reference are the targets.
        predicted: per event rows of ``PARTICLE_COLUMNS`` for each element.
        jet_algorithm: key of ``JET_DEFINITIONS``.
        schema: what the events are made of.
    """
    return with_network(make_reference(dataset, events, jet_algorithm, schema), predicted)


def make_reference(
    dataset: str,
    events: Sequence[Mapping[str, Any]],
    jet_algorithm: JetAlgorithm,
    schema: EventSchema = SCHEMAS["clic"],
) -> Predictions:
    """Return all of ``make_predictions`` that does not depend on a network."""
    rows = {TARGET: [e["ygen"] for e in events], BASELINE: [e["ycand"] for e in events]}
    particles = {name: ParticleLists.from_rows(value) for name, value in rows.items()}
    for name in (GEN, *LIMITS):
        if events and all(f"{name}_particles" in e for e in events):
            particles[name] = ParticleLists.from_rows([e[f"{name}_particles"] for e in events])
    has_gen = GEN in particles
    particles.setdefault(GEN, particles[TARGET])
    jets = {name: value.cluster(jet_algorithm) for name, value in particles.items()}
    return Predictions(
        dataset=dataset,
        schema=schema.name,
        gen_reference="gen_particles" if has_gen else "targets",
        jet_algorithm=jet_algorithm,
        event=[event_name(e.get("event", i)) for i, e in enumerate(events)],
        elements=Elements.from_rows([e["X"] for e in events], rows),
        particles=particles,
        jets=jets,
        matches={name: match_jets(jets[GEN], value) for name, value in jets.items() if name != GEN},
    )


def with_network(reference: Predictions, predicted: Sequence[Array]) -> Predictions:
    """Add what a network found to a result of ``make_reference``.

    Args:
        reference: the events without a network.
        predicted: per event rows of ``PARTICLE_COLUMNS`` for each element.
    """
    particles = ParticleLists.from_rows(predicted)
    jets = particles.cluster(reference.jet_algorithm)
    return replace(
        reference,
        elements=reference.elements.with_method(NETWORK, predicted),
        particles=reference.particles | {NETWORK: particles},
        jets=reference.jets | {NETWORK: jets},
        matches=reference.matches | {NETWORK: match_jets(reference.jets[GEN], jets)},
    )


def event_name(event: Any) -> str:
    """Return the identifier of an event, that a dataset holds as bytes or text, as text."""
    value = event.item() if isinstance(event, np.ndarray | np.generic) else event
    return value.decode() if isinstance(value, bytes) else str(value)


def write_predictions(predictions: Predictions, path: Path) -> None:
    """Write predictions as parquet, atomically.

    Raises:
        OSError: the file cannot be written.
    """
    elements = predictions.elements
    columns = {
        "event": pa.array(predictions.event, pa.string()),
        "elements": _struct(
            {
                "elemtype": _jagged(elements.elemtype, elements.counts),
                **{
                    m: _struct(
                        {
                            "cls": _jagged(elements.cls[m], elements.counts),
                            "energy": _jagged(elements.energy[m], elements.counts),
                        }
                    )
                    for m in ELEMENT_METHODS
                },
            }
        ),
        "particles": _struct(
            {m: _columns(p, PARTICLE_COLUMNS.names) for m, p in predictions.particles.items()}
        ),
        "jets": _struct({m: _columns(j, JET_COLUMNS) for m, j in predictions.jets.items()}),
        "matched_jets": _struct({m: _matches(predictions, m) for m in predictions.matches}),
    }
    about = {
        "dataset": predictions.dataset,
        "schema": predictions.schema,
        "gen_reference": predictions.gen_reference,
        "jet_algorithm": predictions.jet_algorithm,
        "units": "GeV, rad",
    }
    table = pa.table(columns).replace_schema_metadata({_METADATA_KEY: json.dumps(about).encode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        pq.write_table(table, part)


def read_predictions(path: Path) -> Predictions:
    """Read a file of ``write_predictions``.

    Raises:
        DataError: no such file, or it does not hold predictions.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file; `mlpf evaluate -t RUN_DIR` writes it")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable parquet file ({error}); run `mlpf evaluate` again") from None
    metadata = table.schema.metadata or {}
    if _METADATA_KEY not in metadata:
        raise DataError(f"{path}: holds no predictions; expected a file written by `mlpf evaluate`")
    about = json.loads(metadata[_METADATA_KEY])
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    elements = columns["elements"]
    counts, elemtype = _flat(elements.field("elemtype"))
    jets = {m: Jets(**_fields(value, JET_COLUMNS)) for m, value in _members(columns["jets"])}
    matches = {}
    for method, value in _members(columns["matched_jets"]):
        number, gen = _flat(value.field("gen"))
        _, reco = _flat(value.field("reco"))
        matches[method] = (
            gen + np.repeat(_starts(jets[GEN].counts), number),
            reco + np.repeat(_starts(jets[method].counts), number),
        )
    return Predictions(
        dataset=about["dataset"],
        schema=about.get("schema", "clic"),
        gen_reference=about["gen_reference"],
        jet_algorithm=about["jet_algorithm"],
        event=columns["event"].to_pylist(),
        elements=Elements(
            counts=counts,
            elemtype=elemtype,
            cls={m: _flat(elements.field(m).field("cls"))[1] for m in ELEMENT_METHODS},
            energy={m: _flat(elements.field(m).field("energy"))[1] for m in ELEMENT_METHODS},
        ),
        particles={
            m: ParticleLists(**_fields(value, PARTICLE_COLUMNS.names))
            for m, value in _members(columns["particles"])
        },
        jets=jets,
        matches=matches,
    )


def _starts(counts: IntArray) -> IntArray:
    """First flat position of each event."""
    return np.cumsum(counts) - counts


def _jagged(flat: Array | IntArray, counts: IntArray) -> pa.Array:
    # Particles are float32 in datasets; int32 holds any class, charge or place.
    kind = np.int32 if flat.dtype.kind == "i" else np.float32
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat.astype(kind)))


def _struct(members: dict[str, pa.Array]) -> pa.StructArray:
    return pa.StructArray.from_arrays(list(members.values()), list(members))


def _columns(lists: ParticleLists | Jets, names: Sequence[str]) -> pa.StructArray:
    return _struct({name: _jagged(getattr(lists, name), lists.counts) for name in names})


def _matches(predictions: Predictions, method: str) -> pa.StructArray:
    """Flat positions of matched jets as places within each event."""
    gen, reco = predictions.matches[method]
    gen_jets, reco_jets = predictions.jets[GEN], predictions.jets[method]
    event = gen_jets.event[gen]
    counts = np.bincount(event, minlength=predictions.num_events)
    return _struct(
        {
            "gen": _jagged(gen - _starts(gen_jets.counts)[event], counts),
            "reco": _jagged(reco - _starts(reco_jets.counts)[event], counts),
        }
    )


def _members(struct: pa.StructArray) -> list[tuple[str, pa.StructArray]]:
    return [(field.name, struct.field(field.name)) for field in struct.type]


def _flat(jagged: pa.ListArray) -> tuple[IntArray, Any]:
    """Counts and flat values; integers widen to int64, floats to float64."""
    values = jagged.flatten().to_numpy(zero_copy_only=False)
    counts = jagged.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    return counts, values.astype(np.int64 if values.dtype.kind == "i" else np.float64)


def _fields(struct: pa.StructArray, names: Sequence[str]) -> dict[str, Any]:
    """Keyword arguments of ``ParticleLists`` or ``Jets``."""
    flat = {name: _flat(struct.field(name)) for name in names}
    return {"counts": flat[names[0]][0], **{name: values for name, (_, values) in flat.items()}}
