"""One CMS-like detector, parametrised as in Delphes: field, grid of towers, resolutions, efficiencies.

No showers: an electron or photon leaves all its energy in the ECAL part of one tower, a hadron in the HCAL
part, a muon nothing. Units GeV, mm, T, rad.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mlpf.data.flat_tables import offsets_from_counts
from mlpf.simulation.clic.detector import Tracker
from mlpf.simulation.clic.event_data import FloatArray, IntArray

MAX_ETA = 5.0
# The tracker and its field; the hole around the beam is where |eta| exceeds MAX_ETA.
CMS_TRACKER = Tracker(
    field=3.8,
    face_radius=1290.0,
    face_half_length=3000.0,
    endcap_inner_radius=float(3000.0 / np.sinh(MAX_ETA)),
)


@dataclass(frozen=True)
class Resolution:
    """Relative width a (+) b / sqrt(E) (+) c / E of a calorimeter, and its smallest read-out energy.

    Attributes:
        constant, stochastic, noise: a, b in sqrt(GeV), c in GeV, for |eta| below ``FORWARD_ETA``.
        forward_constant, forward_stochastic: a and b beyond.
        threshold: GeV.
    """

    constant: float
    stochastic: float
    noise: float
    forward_constant: float
    forward_stochastic: float
    threshold: float

    def sigma(self, energy: FloatArray, eta: FloatArray) -> FloatArray:
        """Return the absolute width in GeV; same shape as ``energy`` and ``eta``."""
        central = np.sqrt(
            (self.constant * energy) ** 2 + self.stochastic**2 * energy + self.noise**2 * (energy > 0)
        )
        forward = np.sqrt((self.forward_constant * energy) ** 2 + self.forward_stochastic**2 * energy)
        return np.where(np.abs(eta) > FORWARD_ETA, forward, central)

    def measured(self, energy: FloatArray, eta: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return energies with a log-normal error of this width; 0 below the threshold or one sigma.

        Args:
            energy: [n], GeV.
            eta: [n].
            rng: draws n numbers.
        """
        safe = np.where(energy > 0, energy, 1.0)
        width = np.sqrt(np.log1p((self.sigma(safe, eta) / safe) ** 2))
        smeared = safe * np.exp(width * rng.standard_normal(len(safe)) - 0.5 * width**2)
        return np.where((energy > 0) & self.is_significant(smeared, eta), smeared, 0.0)

    def is_significant(
        self, energy: FloatArray, eta: FloatArray, of: FloatArray | None = None
    ) -> npt.NDArray[np.bool_]:
        """Return whether ``energy`` [n] exceeds the threshold and one sigma of ``of`` (itself if None)."""
        whole = energy if of is None else of
        return energy > np.maximum(self.threshold, self.sigma(np.maximum(whole, 0.0), eta))


FORWARD_ETA = 3.0
ECAL = Resolution(0.009, 0.12, 0.45, 0.107, 2.08, 0.5)
HCAL = Resolution(0.05, 1.5, 0.0, 0.13, 2.7, 1.0)


@dataclass(frozen=True)
class TowerGrid:
    """Towers of a calorimeter: rings in eta, each divided evenly in azimuth.

    Attributes:
        positive_edges: edges of the rings at positive eta, from 0; those at negative eta mirror them.
        divisions: (|eta|, n): rings whose inner edge is below |eta| have n towers; the first fit counts.
    """

    positive_edges: tuple[float, ...]
    divisions: tuple[tuple[float, int], ...]

    @cached_property
    def edges(self) -> FloatArray:
        """Edges of all rings, ascending."""
        positive = np.array(self.positive_edges)
        return np.concatenate([-positive[:0:-1], positive])

    @cached_property
    def towers_in_ring(self) -> IntArray:
        """Towers of each ring."""
        inner = np.minimum(np.abs(self.edges[:-1]), np.abs(self.edges[1:]))
        limits = np.array([limit for limit, _ in self.divisions])
        numbers = np.array([number for _, number in self.divisions])
        return numbers[np.searchsorted(limits, inner, side="right")]

    @cached_property
    def first_of_ring(self) -> IntArray:
        """Number of the first tower of each ring, and at the end the number of all."""
        return offsets_from_counts(self.towers_in_ring)

    def __len__(self) -> int:
        """Return the number of towers."""
        return int(self.first_of_ring[-1])

    def index(self, eta: FloatArray, phi: FloatArray) -> IntArray:
        """Return the tower at each direction [n], -1 beyond the last ring."""
        ring = np.searchsorted(self.edges, eta, side="right") - 1
        inside = (ring >= 0) & (ring < len(self.towers_in_ring))
        ring = np.where(inside, ring, 0)
        number = self.towers_in_ring[ring]
        sector = np.floor((phi + np.pi) / (2 * np.pi) * number).astype(np.int64) % number
        return np.where(inside, self.first_of_ring[ring] + sector, -1)

    def ring(self, tower: IntArray) -> IntArray:
        """Return the ring of each tower [n]."""
        return np.searchsorted(self.first_of_ring, tower, side="right") - 1

    def point(
        self, tower: IntArray, along_eta: FloatArray, along_phi: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return eta and phi of points in towers [n], given as fractions 0 to 1 of their extents."""
        ring = self.ring(tower)
        eta = self.edges[ring] + along_eta * np.diff(self.edges)[ring]
        sector = tower - self.first_of_ring[ring] + along_phi
        return eta, sector / self.towers_in_ring[ring] * 2 * np.pi - np.pi


# 18 rings of 0.087, then those of the endcap and forward calorimeters.
CMS_TOWERS = TowerGrid(
    (*(round(0.087 * i, 3) for i in range(19)), 1.653, 1.74, 1.83, 1.93, 2.043, 2.172, 2.322, 2.5, 2.65,
     2.868, 3.0, 3.15, 3.3, 3.5, 3.7, 3.9, 4.1, 4.35, 4.6, 4.8, MAX_ETA),
    ((1.74, 72), (4.35, 36), (np.inf, 18)),
)  # fmt: skip

TRACK_MAX_ETA = 2.5
TRACK_MIN_PT = 0.4
TRACK_ANGLE_WIDTH = 0.01
_CENTRAL_ETA = (0.5, 1.5)
_PT_WIDTH = np.array([0.01, 0.015, 0.025])


def track_efficiency(pt: FloatArray, eta: FloatArray) -> FloatArray:
    """Return the probability [n] to find the track of a charged particle."""
    central = np.abs(eta) < 1.5
    efficiency = np.where(pt < 1.0, np.where(central, 0.70, 0.60), np.where(central, 0.95, 0.85))
    return np.where((np.abs(eta) < TRACK_MAX_ETA) & (pt > TRACK_MIN_PT), efficiency, 0.0)


def track_pt_width(eta: FloatArray) -> FloatArray:
    """Return the relative width [n] of the measured transverse momentum."""
    return _PT_WIDTH[np.searchsorted(_CENTRAL_ETA, np.abs(eta))]
