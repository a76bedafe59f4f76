"""Plain records passed between the stages of the simulation, one event each.

Structures of NumPy arrays; P particles, T tracks, H hits, L links, K clusters. Units GeV, mm, ns, rad, T.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Calorimeter hit collections, in the alphabetical order in which readers concatenate them.
HIT_COLLECTIONS = ("ECALBarrel", "ECALEndcap", "ECALOther", "HCALBarrel", "HCALEndcap", "HCALOther", "MUON")


@dataclass(frozen=True)
class Particles:
    """Final-state generator particles, arrays of shape [P]."""

    pdg: IntArray
    charge: FloatArray
    mass: FloatArray
    px: FloatArray
    py: FloatArray
    pz: FloatArray
    energy: FloatArray
    vx: FloatArray
    vy: FloatArray
    vz: FloatArray
    time: FloatArray

    def __len__(self) -> int:
        """Return the number of particles."""
        return len(self.pdg)


@dataclass(frozen=True)
class Links:
    """Weighted links from reconstructed objects to particles, arrays of shape [L]."""

    source: IntArray
    particle: IntArray
    weight: FloatArray


@dataclass(frozen=True)
class TrackStates:
    """Helix parameters at one reference, arrays of shape [T] (LCIO / EDM4HEP sign conventions)."""

    d0: FloatArray
    phi: FloatArray
    omega: FloatArray
    z0: FloatArray
    tan_lambda: FloatArray
    time: FloatArray
    reference_x: FloatArray
    reference_y: FloatArray
    reference_z: FloatArray


@dataclass(frozen=True)
class Tracks:
    """Reconstructed tracks: fit quality [T], states at the perigee and at the calorimeter face."""

    chi2: FloatArray
    ndf: IntArray
    dedx: FloatArray
    dedx_error: FloatArray
    radius_of_innermost_hit: FloatArray
    kind: IntArray
    at_ip: TrackStates
    at_calorimeter: TrackStates
    links: Links

    def __len__(self) -> int:
        """Return the number of tracks."""
        return len(self.chi2)


@dataclass(frozen=True)
class Hits:
    """Calorimeter hits, arrays of shape [H].

    Attributes:
        collection: index into ``HIT_COLLECTIONS``. Hits are sorted by it.
        cell_id: uint64 cell code.
        links: hit -> particle, weight = the particle's share of the calibrated hit energy in GeV.
    """

    collection: IntArray
    cell_id: npt.NDArray[np.uint64]
    x: FloatArray
    y: FloatArray
    z: FloatArray
    energy: FloatArray
    time: FloatArray
    links: Links

    def __len__(self) -> int:
        """Return the number of hits."""
        return len(self.energy)


@dataclass(frozen=True)
class Clusters:
    """Calorimeter clusters, arrays of shape [K].

    Attributes:
        hit_cluster: [H] cluster of each hit, -1 = unclustered.
        energy: sum of the hit energies, raw calibrated (no hadronic correction).
        x, y, z: energy-weighted centroid.
        i_theta, phi: intrinsic direction in rad.
        energy_ecal, energy_hcal, energy_other: sums per system.
        num_hits: number of hits.
    """

    hit_cluster: IntArray
    energy: FloatArray
    x: FloatArray
    y: FloatArray
    z: FloatArray
    i_theta: FloatArray
    phi: FloatArray
    energy_ecal: FloatArray
    energy_hcal: FloatArray
    energy_other: FloatArray
    num_hits: IntArray

    def __len__(self) -> int:
        """Return the number of clusters."""
        return len(self.energy)


@dataclass(frozen=True)
class Candidates:
    """Candidates of the rule-based particle flow, arrays of shape [C].

    Attributes:
        pdg: signed PDG code.
        charge: in e.
        track: index of its track, -1 for neutrals.
        clusters: per candidate, indices of its clusters (charged: any number; neutrals: exactly one).
    """

    pdg: IntArray
    charge: FloatArray
    mass: FloatArray
    px: FloatArray
    py: FloatArray
    pz: FloatArray
    energy: FloatArray
    track: IntArray
    clusters: list[IntArray] = field(default_factory=list)

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self.pdg)


@dataclass(frozen=True)
class SimulatedEvent:
    """Everything one event holds before it is written."""

    number: int
    particles: Particles
    tracks: Tracks
    hits: Hits
    clusters: Clusters
    candidates: Candidates
