"""Jets: their definitions, clustering, the jet of each particle, and one-to-one matching.

fastjet clusters (Cacciari, Salam, Soyez, Eur. Phys. J. C 72, 1896, 2012), with the generalised e+e- kt
algorithm or anti-kt. Particles and jets are flat arrays, one event after the other, with the number per
event.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from mlpf.physics.kinematics import delta_r, eta_from_momentum, momentum_from_pt

Array = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.int64]
JetAlgorithm = Literal["ee_genkt", "antikt"]

MATCH_DELTA_R = 0.1


@dataclass(frozen=True)
class JetDefinition:
    """Jet definition: fastjet algorithm, radius, exponent of the generalised kt metric, lowest pt in GeV."""

    fastjet_algorithm: str
    radius: float
    exponent: float | None
    min_pt: float


JET_DEFINITIONS: dict[str, JetDefinition] = {
    "ee_genkt": JetDefinition("ee_genkt_algorithm", radius=0.7, exponent=-1.0, min_pt=5.0),
    "antikt": JetDefinition("antikt_algorithm", radius=0.4, exponent=None, min_pt=5.0),
}


class JetTable(Protocol):
    """The jets of B events as matching needs them, in flat arrays."""

    @property
    def counts(self) -> IntArray:
        """[B] jets per event."""

    def __getitem__(self, name: str) -> Array:
        """Return a column [M]: ``eta``, or ``phi`` in rad."""


def definition_of(algorithm: str) -> JetDefinition:
    """Return the definition called ``algorithm``.

    Raises:
        ValueError: no such algorithm.
    """
    if algorithm not in JET_DEFINITIONS:
        raise ValueError(f"no jet algorithm {algorithm!r}; those known are {', '.join(JET_DEFINITIONS)}")
    return JET_DEFINITIONS[algorithm]


@cache
def _fastjet_definition(algorithm: str) -> tuple[Any, Any]:
    """Import fastjet without its banner; return the module and the jet definition."""
    import fastjet

    # fastjet prints a banner at the first clustering of a process unless its stream is null.
    fastjet._swig.ClusterSequence.set_fastjet_banner_stream(None)
    jet = definition_of(algorithm)
    extra = () if jet.exponent is None else (jet.exponent,)
    return fastjet, fastjet.JetDefinition(getattr(fastjet, jet.fastjet_algorithm), jet.radius, *extra)


def _clusterable(pt: Array, eta: Array, phi: Array, energy: Array) -> npt.NDArray[np.bool_]:
    """Return which particles have a direction and an energy; the metric of e+e- kt divides by both."""
    finite = np.isfinite(pt) & np.isfinite(eta) & np.isfinite(phi) & np.isfinite(energy)
    return finite & (pt > 0) & (energy > 0)


@dataclass(frozen=True)
class _Momenta:
    """The Q of P particles of B events that can be clustered, in flat arrays.

    Attributes:
        counts: [B] such particles per event.
        place: [Q] positions among the P.
        px, py, pz, energy: [Q] GeV, float64.
    """

    counts: IntArray
    place: IntArray
    px: Array
    py: Array
    pz: Array
    energy: Array

    @classmethod
    def of(cls, counts: IntArray, pt: Array, eta: Array, phi: Array, energy: Array) -> "_Momenta":
        pt, eta, phi, energy = (np.asarray(a, dtype=np.float64) for a in (pt, eta, phi, energy))
        place = np.flatnonzero(_clusterable(pt, eta, phi, energy))
        event = np.repeat(np.arange(len(counts)), counts)[place]
        momenta = momentum_from_pt(pt[place], eta[place], np.sin(phi[place]), np.cos(phi[place]))
        return cls(np.bincount(event, minlength=len(counts)), place, *momenta, energy[place])

    def cluster(self, algorithm: str) -> Any:
        """Return fastjet's cluster sequence of all events."""
        import awkward as ak

        fastjet, definition = _fastjet_definition(algorithm)
        columns = {"px": self.px, "py": self.py, "pz": self.pz, "E": self.energy}
        particles = ak.zip(columns, with_name="Momentum4D")
        return fastjet.ClusterSequence(ak.unflatten(particles, self.counts), definition)


def cluster_jets(
    counts: IntArray,
    pt: Array,
    eta: Array,
    phi: Array,
    energy: Array,
    algorithm: JetAlgorithm = "ee_genkt",
) -> tuple[IntArray, dict[str, Array]]:
    """Cluster the particles of B events into jets.

    Args:
        counts: [B] particles per event.
        pt: [P] GeV, event after event, as all that follow.
        eta: [P] pseudorapidity.
        phi: [P] rad.
        energy: [P] GeV.
        algorithm: a key of ``JET_DEFINITIONS``.

    Returns:
        [B] jets per event, and the columns ``pt`` and ``energy`` in GeV, ``eta``, and ``phi`` in rad of these
        M jets, event after event and within one by falling pt: inclusive jets above the lowest pt of the
        definition. Particles without momentum or energy, or with a value that is not finite, are left out.

    Raises:
        ValueError: unknown algorithm.
    """
    import awkward as ak

    definition_of(algorithm)
    particles = _Momenta.of(counts, pt, eta, phi, energy)
    if not len(particles.px):
        return np.zeros(len(counts), np.int64), dict.fromkeys(("pt", "eta", "phi", "energy"), np.empty(0))
    jets = particles.cluster(algorithm).inclusive_jets(min_pt=definition_of(algorithm).min_pt)
    number = ak.to_numpy(ak.num(jets)).astype(np.int64)
    px, py, pz, energy = (ak.to_numpy(ak.flatten(jets[name])) for name in ("px", "py", "pz", "E"))
    pt = np.hypot(px, py)
    order = np.lexsort((-pt, np.repeat(np.arange(len(number)), number)))
    columns = {"pt": pt, "eta": eta_from_momentum(px, py, pz), "phi": np.arctan2(py, px), "energy": energy}
    return number, {name: values[order] for name, values in columns.items()}


def jet_index(
    counts: IntArray,
    pt: Array,
    eta: Array,
    phi: Array,
    energy: Array,
    algorithm: JetAlgorithm = "ee_genkt",
) -> IntArray:
    """Return for each particle the rank in pt of its jet within its event.

    All events are clustered in one call: one call per event costs five times as much.

    Args:
        counts: [B] particles per event.
        pt: [P] GeV, event after event, as all that follow.
        eta: [P] pseudorapidity.
        phi: [P] rad.
        energy: [P] GeV.
        algorithm: a key of ``JET_DEFINITIONS``.

    Returns:
        [P] int64, 1 = hardest jet, 0 = in no jet.

    Raises:
        ValueError: unknown algorithm.
    """
    import awkward as ak

    definition_of(algorithm)
    particles = _Momenta.of(counts, pt, eta, phi, energy)
    index = np.zeros(len(pt), dtype=np.int64)
    if not len(particles.px):
        return index
    sequence = particles.cluster(algorithm)
    members = sequence.constituent_index(min_pt=definition_of(algorithm).min_pt)  # [B, jets, particles]
    size = ak.to_numpy(ak.flatten(ak.num(members, axis=2)))
    if not len(size):
        return index
    event = np.repeat(np.arange(len(counts)), ak.to_numpy(ak.num(members, axis=1)))
    first = np.cumsum(particles.counts) - particles.counts
    rows = ak.to_numpy(ak.flatten(members, axis=None)) + np.repeat(first[event], size)
    starts = np.cumsum(size) - size
    jet_pt = np.hypot(
        np.add.reduceat(particles.px[rows], starts), np.add.reduceat(particles.py[rows], starts)
    )
    order = np.lexsort((-jet_pt, event))
    rank = np.empty(len(size), dtype=np.int64)
    rank[order] = np.arange(len(size)) - np.searchsorted(event, event) + 1
    index[particles.place[rows]] = np.repeat(rank, size)
    return index


def match_jets(
    gen: JetTable, reco: JetTable, max_delta_r: float = MATCH_DELTA_R
) -> tuple[IntArray, IntArray]:
    """Match jets of the same events one to one, nearest pairs first.

    Pairs closer than ``max_delta_r`` are considered by increasing distance. A pair matches if neither of its
    jets is matched yet.

    Args:
        gen: jets of B events.
        reco: jets of the same B events.
        max_delta_r: largest distance in (eta, phi).

    Returns:
        Positions in ``gen`` and in ``reco`` of the matched jets, both [Q], rising in ``gen``.

    Raises:
        ValueError: the numbers of events differ.
    """
    if len(gen.counts) != len(reco.counts):
        raise ValueError(f"{len(gen.counts)} events of gen jets but {len(reco.counts)} of reco jets")
    event = np.repeat(np.arange(len(gen.counts)), gen.counts)
    first_reco = np.cumsum(reco.counts) - reco.counts
    partners = reco.counts[event]
    gen_pair = np.repeat(np.arange(len(event)), partners)
    within = np.arange(len(gen_pair)) - np.repeat(np.cumsum(partners) - partners, partners)
    reco_pair = np.repeat(first_reco[event], partners) + within
    distance = delta_r(
        gen["eta"][gen_pair], gen["phi"][gen_pair], reco["eta"][reco_pair], reco["phi"][reco_pair]
    )
    close = np.flatnonzero(distance < max_delta_r)
    close = close[np.lexsort((reco_pair[close], gen_pair[close], distance[close]))]
    gen_partner = np.full(len(event), -1, dtype=np.int64)
    reco_taken = np.zeros(int(reco.counts.sum()), dtype=bool)
    for i, j in zip(gen_pair[close].tolist(), reco_pair[close].tolist(), strict=True):
        if gen_partner[i] < 0 and not reco_taken[j]:
            gen_partner[i] = j
            reco_taken[j] = True
    matched = np.flatnonzero(gen_partner >= 0)
    return matched, gen_partner[matched]
