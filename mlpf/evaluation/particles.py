"""Tables of particles, jets and elements of many events, from targets and outputs of a network."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from mlpf.data.dataset.prepared_events import PreparedEvents
from mlpf.data.flat_tables import IntArray, Table, offsets_from_counts
from mlpf.physics.features import PARTICLE_COLUMNS, TARGETS, TRACK_FEATURES
from mlpf.physics.jets import JetAlgorithm, cluster_jets, match_jets
from mlpf.physics.kinematics import momentum_from_pt
from mlpf.physics.particles import CLASS_INDEX, NUM_CLASSES

Array = npt.NDArray[np.floating]

# The same column for every kind of element.
ELEMTYPE = TRACK_FEATURES.index("elemtype")
CHARGED_CLASSES = tuple(CLASS_INDEX[name] for name in ("charged hadron", "electron", "muon"))


def particle_table(rows: Array, offsets: IntArray) -> Table:
    """Return the particles among rows of ``PARTICLE_COLUMNS`` or ``TARGETS``.

    Args:
        rows: [n, 7 or 8]; those of class 0 are no particles.
        offsets: [E + 1] first row of each event.

    Returns:
        One column [P] for each of ``PARTICLE_COLUMNS``: ``cls`` int64, the others float64.

    Raises:
        ValueError: another number of columns.
    """
    if rows.ndim != 2 or rows.shape[1] not in (len(PARTICLE_COLUMNS), len(TARGETS)):
        raise ValueError(
            f"particles of shape {rows.shape}, expected (n, {len(PARTICLE_COLUMNS)}) or (n, {len(TARGETS)})"
        )
    kept = Table({"rows": rows}, offsets).where(rows[:, PARTICLE_COLUMNS.index("cls")] != 0)
    columns = {name: kept["rows"][:, PARTICLE_COLUMNS.index(name)] for name in PARTICLE_COLUMNS.names}
    kinds = {name: np.int64 if name == "cls" else np.float64 for name in columns}
    return Table({name: values.astype(kinds[name]) for name, values in columns.items()}, kept.offsets)


def missing_momentum(particles: Table) -> Array:
    """Return the length of the vector sum of the transverse momenta, [E], GeV."""
    names = ("pt", "eta", "sin_phi", "cos_phi")
    px, py, _ = momentum_from_pt(*(particles[name] for name in names))
    return np.hypot(particles.sum(px), particles.sum(py))


def jet_table(particles: Table, algorithm: JetAlgorithm) -> Table:
    """Cluster the particles of each event: ``pt``, ``eta``, ``phi``, ``energy`` of the jets [M]."""
    phi = np.arctan2(particles["sin_phi"], particles["cos_phi"])
    momenta = particles["pt"], particles["eta"], phi, particles["energy"]
    counts, columns = cluster_jets(particles.counts, *momenta, algorithm)
    return Table(columns, offsets_from_counts(counts))


def match_table(gen: Table, reco: Table) -> Table:
    """Match jets: ``gen`` and ``reco``, rows of the matched jets in the two tables of jets, [Q]."""
    gen_row, reco_row = match_jets(gen, reco)
    counts = np.bincount(gen.event[gen_row], minlength=gen.num_events)
    return Table({"gen": gen_row, "reco": reco_row}, offsets_from_counts(counts))


def element_columns(method: str, rows: Array) -> dict[str, npt.NDArray]:
    """Return the particle of each element: ``<method>.cls`` int64, ``<method>.energy`` float64 in GeV.

    Args:
        method: ``target``, ``cand`` or ``pred``.
        rows: [n, 7 or 8] rows of ``PARTICLE_COLUMNS`` or ``TARGETS``; class and energy 0 = no particle.
    """
    cls, energy = (rows[:, PARTICLE_COLUMNS.index(name)] for name in ("cls", "energy"))
    return {f"{method}.cls": cls.astype(np.int64), f"{method}.energy": energy.astype(np.float64)}


def with_types_only(events: PreparedEvents) -> PreparedEvents:
    """Return events whose ``X`` has only the column of the element type, [n, 1], to save memory for hits."""
    elements = events.elements
    types = elements["X"][:, [ELEMTYPE]]
    return replace(events, elements=Table(elements.columns | {"X": types}, elements.offsets))


def rows_from_outputs(
    outputs: Mapping[str, Array], lengths: IntArray, none_threshold: float | None = None
) -> npt.NDArray[np.float32]:
    """Turn model outputs into rows of ``PARTICLE_COLUMNS``, one per element.

    The class is the largest logit (see ``none_threshold``), the charge the largest logit of -1, 0, +1 if
    the class is charged, else 0. Rows of class 0 are zero, as in targets.

    Args:
        outputs: ``cls`` [B, N, C], ``charge`` [B, N, 3] and the others [B, N, 1].
        lengths: elements of each event that are no padding; may be shorter than B.
        none_threshold: an element is no particle if the sigmoid of the logit of class 0 exceeds this;
            otherwise its class is the largest of the other logits. This keeps elements that are surely a
            particle, but with equal probability a photon or a neutral hadron.

    Returns:
        [n, 7] float32, the elements of all events, one event after the other.

    Raises:
        ValueError: ``cls`` does not have one logit per class.
    """
    if np.shape(outputs["cls"])[-1] != NUM_CLASSES:
        raise ValueError(f"cls has {np.shape(outputs['cls'])[-1]} logits, expected {NUM_CLASSES}")
    real = np.arange(np.shape(outputs["cls"])[1]) < np.asarray(lengths)[:, np.newaxis]
    found = {name: np.asarray(outputs[name])[: len(real)][real] for name in PARTICLE_COLUMNS.names}
    logits = found["cls"]
    best = np.argmax(logits, axis=-1)
    if none_threshold is not None:
        is_none = logits[:, 0] > math.log(none_threshold / (1.0 - none_threshold))
        best = np.where(is_none, 0, 1 + np.argmax(logits[:, 1:], axis=-1))
    charge = np.where(np.isin(best, CHARGED_CLASSES), np.argmax(found["charge"], axis=-1) - 1, 0)
    columns = found | {"cls": best, "charge": charge}
    rows = np.column_stack([columns[name] for name in PARTICLE_COLUMNS.names]).astype(np.float32)
    rows[best == 0] = 0.0
    return rows
