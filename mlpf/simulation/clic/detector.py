"""One CLIC-like detector: geometry, field and granularity.

Its numbers are those of a description (``mlpf.config.detector``). The calorimeter face is a cylinder closed
by two planes; depth is measured from it. Units mm, T, GeV, ns.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mlpf.config import detector as description
from mlpf.errors import ConfigError
from mlpf.simulation.clic.event_data import FloatArray

SPEED_OF_LIGHT = 299.792458  # mm/ns
GranularityName = Literal["clusters", "hits", "fine"]


@dataclass(frozen=True)
class SpotCount:
    """Number of energy spots of a shower, min(offset + scale E^power, cap), E in GeV."""

    offset: float
    scale: float
    power: float
    cap: int

    def __call__(self, energy: FloatArray) -> FloatArray:
        """Return the number of spots for ``energy`` in GeV, rounded, any shape."""
        return np.rint(np.minimum(self.offset + self.scale * energy**self.power, self.cap))


@dataclass(frozen=True)
class Granularity:
    """Cells, layers and thresholds of the calorimeters, and how finely showers are sampled.

    Attributes:
        ecal_cell, hcal_cell: cell side in mm.
        ecal_layers, hcal_layers: equal layers over the depth of each calorimeter.
        em_spots, hadron_spots: spots per shower or hadronic interaction.
        mip_step_ecal, mip_step_hcal: path in mm between spots of a minimum-ionising particle.
        ecal_threshold, hcal_threshold: smallest cell energy that is read out, GeV.
        ecal_noise, hcal_noise: mean number of noise cells per event.
        voxel: hits are merged into voxels of this side in mm before clustering, None = not at all. Showers of
            many small hits need it: the pairs within reach of each other grow with the square of the density.
    """

    ecal_cell: float = 10.0
    ecal_layers: int = 20
    hcal_cell: float = 50.0
    hcal_layers: int = 20
    em_spots: SpotCount = SpotCount(6.0, 8.0, 0.6, 40)
    hadron_spots: SpotCount = SpotCount(4.0, 5.0, 0.6, 50)
    mip_step_ecal: float = 25.0
    mip_step_hcal: float = 80.0
    ecal_threshold: float = 0.006
    hcal_threshold: float = 0.025
    ecal_noise: float = 5.0
    hcal_noise: float = 3.0
    voxel: float | None = None


_REAL_CELLS = Granularity(
    ecal_cell=5.1,
    ecal_layers=40,
    hcal_cell=30.0,
    hcal_layers=60,
    em_spots=SpotCount(5.0, 22.0, 0.85, 1500),
    hadron_spots=SpotCount(6.0, 22.0, 0.85, 1500),
    mip_step_ecal=5.0,
    mip_step_hcal=26.5,
    ecal_threshold=0.0015,
    hcal_threshold=0.006,
    voxel=10.0,
)
# clusters: enough hits for realistic clusters (1,400 in a top pair event). hits: the cells and layers of the
# detector, for networks of hits (5,300). fine: showers sampled to half the threshold (more than 10,000).
GRANULARITIES: dict[str, Granularity] = {
    "clusters": Granularity(),
    "hits": _REAL_CELLS,
    "fine": replace(
        _REAL_CELLS,
        em_spots=SpotCount(5.0, 66.0, 0.85, 1500),
        hadron_spots=SpotCount(6.0, 66.0, 0.85, 1500),
        ecal_threshold=0.00075,
        hcal_threshold=0.003,
    ),
}


@dataclass(frozen=True)
class MuonSystem:
    """Layers of the yoke: cylinders at ``barrel_radius + k barrel_step``, planes likewise. Lengths in mm.

    ``gap`` is between the end of the barrel and the first plane; ``thickness`` that of the whole yoke.
    """

    barrel_radius: float
    endcap_z: float
    layers: int = 6
    barrel_step: float = 330.0
    endcap_step: float = 250.0
    endcap_inner_radius: float = 490.0
    gap: float = 21.0
    thickness: float = 1950.0
    cell: float = 30.0
    hit_energy: float = 0.02
    efficiency: float = 0.97

    @property
    def barrel_half_length(self) -> float:
        """Half length of the barrel layers in mm."""
        return self.endcap_z - self.gap

    @property
    def outer_radius(self) -> float:
        """Radius where the planes end in mm."""
        return self.barrel_radius + self.thickness

    @property
    def barrel_radii(self) -> tuple[float, ...]:
        """Radii of the barrel layers in mm, inner first."""
        return tuple(self.barrel_radius + k * self.barrel_step for k in range(self.layers))

    @property
    def endcap_positions(self) -> tuple[float, ...]:
        """|z| of the endcap layers in mm, inner first."""
        return tuple(self.endcap_z + k * self.endcap_step for k in range(self.layers))


@dataclass(frozen=True)
class Tracker:
    """A field and the calorimeter face around it.

    Attributes:
        field: solenoid field along z, T.
        face_radius: radius of the calorimeter face (barrel) = end of the tracker, mm.
        face_half_length: |z| of the calorimeter face (endcap), mm.
        endcap_inner_radius: nothing is measured at the endcap face inside this radius, mm.
    """

    field: float
    face_radius: float
    face_half_length: float
    endcap_inner_radius: float

    @property
    def bending(self) -> float:
        """Transverse momentum per radius of curvature of a unit charge, GeV/mm."""
        return SPEED_OF_LIGHT * 1e-6 * self.field

    def depth(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """Depth behind the calorimeter face in mm, negative in the tracker; any shape."""
        return np.maximum(np.hypot(x, y) - self.face_radius, np.abs(z) - self.face_half_length)

    def in_barrel(self, x: FloatArray, y: FloatArray, z: FloatArray) -> np.ndarray:
        """True where a point lies behind the barrel part of the face rather than the endcap; any shape."""
        return np.hypot(x, y) - self.face_radius >= np.abs(z) - self.face_half_length

    def face_distance(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """Distance in mm from the origin to the face along the direction of (x, y, z); any shape, not 0."""
        length = np.sqrt(x * x + y * y + z * z)
        scale = np.maximum(np.hypot(x, y) / self.face_radius, np.abs(z) / self.face_half_length)
        return length / scale


@dataclass(frozen=True)
class Detector(Tracker):
    """A tracker and what is around it.

    Attributes:
        ecal_hadron_response: ECAL signal per energy of a spot that is not electromagnetic.
        tracker_inner_radius: first tracker layer, mm.
        ecal_depth: the ECAL fills depths [0, ecal_depth), mm.
        hcal_start, hcal_end: the HCAL fills [hcal_start, hcal_end); depths between ``ecal_depth`` and
            ``hcal_start`` count as its first layer, those beyond ``hcal_end`` are leaked.
        muon: layers of the yoke.
        granularity: of the calorimeters.
    """

    ecal_hadron_response: float
    tracker_inner_radius: float
    ecal_depth: float
    hcal_start: float
    hcal_end: float
    muon: MuonSystem
    granularity: Granularity


def build_detector(described: description.DetectorConfig, granularity: str = "clusters") -> Detector:
    """Build the detector that a description and a granularity out of ``GRANULARITIES`` give.

    Raises:
        ConfigError: the description has no section ``simulation``, or too few collections of hits.
        KeyError: no such granularity.
    """
    geometry, names = described.simulation, described.collections
    if min(len(names.ecal_hits), len(names.hcal_hits)) < 2 or not names.muon_hits:
        raise ConfigError(
            f"detector {described.name}: mlpf simulate writes hits of barrel and end cap of each calorimeter "
            "and of the muon system; name two ecal_hits, two hcal_hits and one of muon_hits"
        )
    if geometry is None:
        raise ConfigError(
            f"detector {described.name}: its description has no section simulation, which mlpf simulate "
            "needs; add it (docs/detector.md)"
        )
    return Detector(
        field=described.field_T,
        face_radius=described.face_radius_mm,
        face_half_length=described.face_half_length_mm,
        ecal_hadron_response=described.ecal_hadron_response,
        tracker_inner_radius=geometry.tracker_inner_radius_mm,
        endcap_inner_radius=geometry.endcap_inner_radius_mm,
        ecal_depth=geometry.ecal_depth_mm,
        hcal_start=geometry.hcal_start_mm,
        hcal_end=geometry.hcal_end_mm,
        muon=MuonSystem(geometry.muon_barrel_radius_mm, geometry.muon_endcap_mm),
        granularity=GRANULARITIES[granularity],
    )


CLIC = build_detector(description.CLIC)
