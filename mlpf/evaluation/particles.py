"""Particles of many events kept flat, and how targets and model outputs become such lists."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from mlpf.physics.features import PARTICLE_COLUMNS, TARGETS, TRACK_FEATURES
from mlpf.physics.jets import JetAlgorithm, Jets, cluster_flat_jets
from mlpf.physics.kinematics import momentum_from_pt
from mlpf.physics.particles import CLASS_INDEX, NUM_CLASSES

Array = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.int64]

# The same column for every kind of element.
ELEMTYPE = TRACK_FEATURES.index("elemtype")
CHARGED_CLASSES = tuple(CLASS_INDEX[name] for name in ("charged hadron", "electron", "muon"))


@dataclass(frozen=True)
class ParticleLists:
    """Particles of B events, P in total, event after event; none of them has class 0.

    Attributes:
        counts: [B] particles per event.
        cls: [P] class index.
        charge: [P] e.
        pt: [P] GeV.
        eta: [P] pseudorapidity.
        sin_phi: [P] sine of the azimuth.
        cos_phi: [P] cosine of the azimuth.
        energy: [P] GeV.
    """

    counts: IntArray
    cls: IntArray
    charge: Array
    pt: Array
    eta: Array
    sin_phi: Array
    cos_phi: Array
    energy: Array

    @classmethod
    def from_rows(cls, events: Sequence[Array]) -> "ParticleLists":
        """Collect rows of ``PARTICLE_COLUMNS`` or ``TARGETS``, one [N, 7 or 8] array per event.

        Rows of class 0 are dropped.

        Raises:
            ValueError: an event has another number of columns.
        """
        for i, rows in enumerate(events):
            if rows.ndim != 2 or rows.shape[1] not in (len(PARTICLE_COLUMNS), len(TARGETS)):
                raise ValueError(
                    f"event {i}: particles of shape {rows.shape}, expected (N, {len(PARTICLE_COLUMNS)}) "
                    f"or (N, {len(TARGETS)})"
                )
        width = len(PARTICLE_COLUMNS)
        # Event by event: of thousands of hits few carry a particle.
        kept = [rows[rows[:, PARTICLE_COLUMNS.index("cls")] != 0, :width] for rows in events]
        flat = np.concatenate([*kept, np.empty((0, width))])
        columns = {name: flat[:, PARTICLE_COLUMNS.index(name)] for name in PARTICLE_COLUMNS.names}
        return cls(
            counts=np.array([len(rows) for rows in kept], dtype=np.int64),
            **{**columns, "cls": columns["cls"].astype(np.int64)},
        )

    @property
    def num_events(self) -> int:
        """Number of events B."""
        return len(self.counts)

    @property
    def event(self) -> IntArray:
        """Event of each particle, [P], counted from 0."""
        return np.repeat(np.arange(self.num_events), self.counts)

    @property
    def phi(self) -> Array:
        """Azimuth, [P], rad."""
        return np.arctan2(self.sin_phi, self.cos_phi)

    def select(self, keep: npt.NDArray[np.bool_]) -> "ParticleLists":
        """Return the particles where ``keep`` [P] is True; all events stay, if need be empty."""
        counts = np.bincount(self.event[keep], minlength=self.num_events)
        columns = {f.name: getattr(self, f.name)[keep] for f in fields(self) if f.name != "counts"}
        return ParticleLists(counts=counts, **columns)

    def cluster(self, algorithm: JetAlgorithm) -> Jets:
        """Cluster the particles of each event into jets."""
        return cluster_flat_jets(self.counts, self.pt, self.eta, self.phi, self.energy, algorithm)

    def sum_per_event(self, values: Array) -> Array:
        """Sum ``values`` [P] over the particles of each event, [B]."""
        total = np.bincount(self.event, weights=values, minlength=self.num_events)
        return total.astype(np.float64)

    def missing_momentum(self) -> Array:
        """Return the length of the vector sum of the transverse momenta, [B], GeV."""
        px, py, _ = momentum_from_pt(self.pt, self.eta, self.sin_phi, self.cos_phi)
        return np.hypot(self.sum_per_event(px), self.sum_per_event(py))


@dataclass(frozen=True)
class Elements:
    """What each detector element of B events was given, E elements in total.

    Attributes:
        counts: [B] elements per event.
        elemtype: [E] element type.
        cls: ``"target"``, ``"cand"``, ``"pred"`` -> [E] class index, 0 = no particle.
        energy: the same keys -> [E] energy of the particle in GeV, 0 where there is none.
    """

    counts: IntArray
    elemtype: IntArray
    cls: dict[str, IntArray]
    energy: dict[str, Array]

    @classmethod
    def from_rows(cls, X: Sequence[Array], rows: Mapping[str, Sequence[Array]]) -> "Elements":
        """Collect the elements of events.

        Args:
            X: per event [N, F]; with the columns of a schema.
            rows: method -> per event [N, 7 or 8] rows of ``PARTICLE_COLUMNS`` or ``TARGETS``.
        """
        counts = np.array([len(x) for x in X], dtype=np.int64)
        elemtype = np.concatenate([*(x[:, ELEMTYPE] for x in X), np.empty(0)]).astype(np.int64)
        elements = cls(counts, elemtype, {}, {})
        for method, events in rows.items():
            elements = elements.with_method(method, events)
        return elements

    def with_method(self, method: str, events: Sequence[Array]) -> "Elements":
        """Return the same elements with what one more method gave them, per event [N, 7 or 8] rows."""

        def column(name: str) -> Array:
            return np.concatenate([*(e[:, PARTICLE_COLUMNS.index(name)] for e in events), np.empty(0)])

        cls = self.cls | {method: column("cls").astype(np.int64)}
        return replace(self, cls=cls, energy=self.energy | {method: column("energy")})


def rows_from_outputs(
    outputs: Mapping[str, Array], lengths: Sequence[int], none_threshold: float | None = None
) -> list[Array]:
    """Turn model outputs into rows of ``PARTICLE_COLUMNS``, one per element.

    The class is the largest logit (see ``none_threshold``), the charge the largest of -1, 0, +1 where the
    class is charged, else 0; rows of class 0 are zero, as in targets.

    Args:
        outputs: ``cls`` [B, N, C], ``charge`` [B, N, 3] and the others [B, N, 1].
        lengths: elements of each event that are no padding; may be shorter than B.
        none_threshold: decide first whether there is a particle at all: there is none where the sigmoid of
            its logit exceeds this; the class is then the largest of the others. An element that is surely
            a particle, but as likely a photon as a neutral hadron, is then not lost to none.

    Returns:
        One [N_i, 7] float32 array per entry of ``lengths``.

    Raises:
        ValueError: ``cls`` does not have one logit per class.
    """
    logits = np.asarray(outputs["cls"])
    if logits.shape[-1] != NUM_CLASSES:
        raise ValueError(f"cls has {logits.shape[-1]} logits, expected {NUM_CLASSES}")
    best = np.argmax(logits, axis=-1)
    if none_threshold is not None:
        is_none = logits[..., 0] > math.log(none_threshold / (1.0 - none_threshold))
        best = np.where(is_none, 0, 1 + np.argmax(logits[..., 1:], axis=-1))
    charge = np.argmax(np.asarray(outputs["charge"]), axis=-1) - 1
    columns = {"cls": best, "charge": np.where(np.isin(best, CHARGED_CLASSES), charge, 0)}
    rows = np.stack(
        [
            columns[name] if name in columns else np.asarray(outputs[name])[..., 0]
            for name in PARTICLE_COLUMNS.names
        ],
        axis=-1,
    ).astype(np.float32)
    rows[best == 0] = 0.0
    return [rows[i, :length] for i, length in enumerate(lengths)]
