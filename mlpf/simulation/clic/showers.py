"""Energy spots of particles in the calorimeters.

The energy of a particle in the calorimeter is drawn first and then distributed over spots. The resolution
depends neither on the number of spots nor on the cell size. A spot lies at a path length along the direction
of the particle at the calorimeter face and two offsets across it. Spots [S], showers [n], sub-cascades [m].
"""

from dataclasses import dataclass

import numpy as np

from mlpf.simulation.clic.detector import Detector, SpotCount
from mlpf.simulation.clic.event_data import FloatArray, IntArray, Particles
from mlpf.simulation.clic.helix import FacePoints
from mlpf.simulation.clic.propagation import Propagation

_PHOTON, _ELECTRON, _MUON = 22, 11, 13
_MIN_ENERGY = 1e-4  # GeV, less leaves nothing
_RADIATION_LENGTH = 9.0  # mm in the ECAL
_HCAL_RADIATION_LENGTH = 26.0  # mm
_INTERACTION_LENGTH = 207.0  # mm
_MIP_LOSS = 1.2e-3  # GeV/mm
_MIP_SPREAD = 0.25  # log-normal


@dataclass(frozen=True)
class Spots:
    """Calibrated energy deposits, arrays of shape [S].

    Attributes:
        particle: index into the particles of the event.
        x, y, z: mm.
        energy: calibrated signal, GeV.
        path: flight path from the production of the particle, mm.
    """

    particle: IntArray
    x: FloatArray
    y: FloatArray
    z: FloatArray
    energy: FloatArray
    path: FloatArray

    def __len__(self) -> int:
        """Return the number of spots."""
        return len(self.energy)


@dataclass(frozen=True)
class _Local:
    """Spots in the frame of their particle [S]: path length l and offsets a, b across, mm; energy in GeV."""

    particle: IntArray
    length: FloatArray
    a: FloatArray
    b: FloatArray
    energy: FloatArray
    electromagnetic: np.ndarray


@dataclass(frozen=True)
class _Paths:
    """Path lengths in mm from the face to the end of ECAL and HCAL, per particle [P]."""

    ecal: FloatArray
    hcal: FloatArray


def _paths(face: FacePoints, detector: Detector) -> _Paths:
    radius = np.maximum(np.hypot(face.x, face.y), 1.0)
    radial = (face.x * face.ux + face.y * face.uy) / radius
    # Grazing entries have a longer, but limited, path.
    slope = np.clip(np.where(face.barrel, radial, np.abs(face.uz)), 0.2, 1.0)
    return _Paths(detector.ecal_depth / slope, detector.hcal_end / slope)


def _visible_energy(mean: FloatArray, sigma: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Draw from Gamma distributions of given mean and width [n]: positive without clipping."""
    return rng.gamma((mean / sigma) ** 2, sigma**2 / mean)


def _deposited(particles: Particles) -> FloatArray:
    """Energy a particle [P] leaves: kinetic for baryons, plus the annihilation energy of antibaryons."""
    baryon = (np.abs(particles.pdg) // 1000) % 10 > 0
    return particles.energy - np.where(baryon, np.sign(particles.pdg) * particles.mass, 0.0)


def _share(owner: IntArray, num_owners: int, rng: np.random.Generator) -> FloatArray:
    """Exponential weights [S], normalised to sum 1 within each owner."""
    weight = rng.standard_exponential(len(owner)) + 1e-12
    return weight / np.bincount(owner, weight, minlength=num_owners)[owner]


def _radial(
    core: FloatArray, cap: FloatArray | float, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Draw offsets (a, b) [S] with radius core sqrt(u / (1 - u)), capped, mm."""
    u = rng.random(len(core))
    radius = np.minimum(core * np.sqrt(u / (1.0 - u)), cap)
    angle = rng.uniform(-np.pi, np.pi, len(core))
    return radius * np.cos(angle), radius * np.sin(angle)


def _advance(start: FloatArray, step: FloatArray, ecal: FloatArray) -> FloatArray:
    """Advance by ``step`` mm of ECAL matter; behind the ECAL the radiation length is longer. All [S]."""
    stretch = _HCAL_RADIATION_LENGTH / _RADIATION_LENGTH
    inside = np.maximum(ecal - start, 0.0)
    return start + np.where(step <= inside, step, inside + (step - inside) * stretch)


def _electromagnetic(
    index: IntArray, particles: Particles, paths: _Paths, count: SpotCount, rng: np.random.Generator
) -> _Local:
    """Showers of the photons and electrons at ``index`` [n]."""
    energy = particles.energy[index]
    visible = _visible_energy(energy, np.hypot(0.165 * np.sqrt(energy), 0.01 * energy), rng)
    owner = np.repeat(np.arange(len(index)), count(visible).astype(np.int64))
    particle = index[owner]
    shift = np.where(particles.pdg[index] == _PHOTON, 0.5, -0.5)
    depth_of_maximum = np.maximum(np.log(np.maximum(energy, _MIN_ENERGY) / 0.010) + shift, 0.0)
    step = rng.gamma((1.0 + 0.5 * depth_of_maximum)[owner], 2.0) * _RADIATION_LENGTH
    core = np.where(rng.random(len(owner)) < 0.85, 5.0, 20.0)
    a, b = _radial(core, 80.0, rng)
    length = _advance(np.zeros(len(owner)), step, paths.ecal[particle])
    share = _share(owner, len(index), rng)
    return _Local(particle, length, a, b, visible[owner] * share, np.ones(len(owner), dtype=bool))


def _minimum_ionising(
    index: IntArray, length: FloatArray, paths: _Paths, detector: Detector, rng: np.random.Generator
) -> _Local:
    """Ionisation of the particles at ``index`` [n] over a path ``length`` [n] in mm."""
    cells = detector.granularity
    border = paths.ecal[index]
    parts = []
    for start, stop, step in (
        (np.zeros(len(index)), np.minimum(length, border), cells.mip_step_ecal),
        (border, length, cells.mip_step_hcal),
    ):
        span = np.maximum(stop - start, 0.0)
        number = np.ceil(span / step).astype(np.int64)
        owner = np.repeat(np.arange(len(index)), number)
        rank = np.arange(len(owner)) - np.repeat(np.cumsum(number) - number, number)
        pitch = (span / np.maximum(number, 1))[owner]
        spread = np.exp(rng.normal(-0.5 * _MIP_SPREAD**2, _MIP_SPREAD, len(owner)))
        parts.append((index[owner], start[owner] + (rank + 0.5) * pitch, _MIP_LOSS * pitch * spread))
    particle, at, energy = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    zero = np.zeros(len(at))
    return _Local(particle, at, zero, zero, energy, np.zeros(len(at), dtype=bool))


def _interactions(
    index: IntArray,
    start: FloatArray,
    energy: FloatArray,
    paths: _Paths,
    count: SpotCount,
    rng: np.random.Generator,
) -> _Local:
    """Hadronic interactions [n] at path length ``start`` mm that leave ``energy`` GeV."""
    n = len(index)
    number = 1 + rng.poisson(np.log1p(energy))
    owner = np.repeat(np.arange(n), number)
    m = len(owner)
    weight = rng.standard_exponential(m)
    first = np.cumsum(number) - number
    weight[first] += 0.7
    # Far sub-cascades are neutral secondaries: the satellites that split clusters.
    far = rng.random(m) < 0.18
    offset = rng.standard_exponential(m) * np.where(far, 200.0, 60.0)
    offset[first] = 0.0  # the leading sub-cascade starts at the interaction
    polar = np.minimum(rng.standard_exponential(m) * np.where(far, 0.9, 0.35), 2.2)
    azimuth = rng.uniform(-np.pi, np.pi, m)
    probability = np.clip(0.12 + 0.12 * np.log(np.maximum(energy, 1e-3)), 0.0, 0.6) * (energy > 0.5)
    electromagnetic = rng.random(m) < probability[owner]
    origin = start[owner] + offset * np.cos(polar)
    across = offset * np.sin(polar)

    # Each spot picks a sub-cascade of its interaction by weight: one search over all interactions.
    total = np.bincount(owner, weight, minlength=n)
    cumulative = np.cumsum(weight / total[owner])
    spot_owner = np.repeat(np.arange(n), count(energy).astype(np.int64))
    size = len(spot_owner)
    pick = np.searchsorted(cumulative, spot_owner + rng.random(size))
    pick = np.clip(pick, first[spot_owner], (first + number - 1)[spot_owner])
    particle = index[spot_owner]
    em = electromagnetic[pick]
    ecal = paths.ecal[particle]
    em_step = rng.gamma(2.5, 1.6 * _RADIATION_LENGTH, size)
    hadron_step = rng.gamma(1.2, 55.0, size)
    length = np.where(em, _advance(origin[pick], em_step, ecal), origin[pick] + hadron_step)
    core = np.where(em, np.where(length < ecal, 7.0, 14.0), 24.0)
    a, b = _radial(core, np.where(em, 80.0, 220.0), rng)
    a += (across * np.cos(azimuth))[pick]
    b += (across * np.sin(azimuth))[pick]
    return _Local(particle, length, a, b, energy[spot_owner] * _share(spot_owner, n, rng), em)


def _hadronic(
    index: IntArray, particles: Particles, paths: _Paths, detector: Detector, rng: np.random.Generator
) -> list[_Local]:
    """Ionisation and interactions of the hadrons at ``index`` [n]."""
    energy = _deposited(particles)[index]
    charged = particles.charge[index] != 0
    # Neutral hadrons lose part of their signal by thresholds and binding energy.
    loss = np.where(charged, 0.0, 0.12 * np.maximum(energy, 0.3) ** -0.6)
    visible = _visible_energy(energy, np.hypot(0.50 * np.sqrt(energy), 0.03 * energy), rng) * (1.0 - loss)
    start = rng.exponential(_INTERACTION_LENGTH, len(index))
    start = np.where(charged, np.minimum(start, visible / _MIP_LOSS), start)
    rest = visible - np.where(charged, _MIP_LOSS * start, 0.0)
    track = _minimum_ionising(index[charged], start[charged], paths, detector, rng)
    on = rest > _MIN_ENERGY
    count = detector.granularity.hadron_spots
    return [track, _interactions(index[on], start[on], rest[on], paths, count, rng)]


def _place(local: _Local, face: FacePoints, detector: Detector) -> Spots:
    """Move spots [S] into the detector, apply the calibration, drop leaking spots."""
    p = local.particle
    ux, uy, uz = face.ux[p], face.uy[p], face.uz[p]
    transverse = np.hypot(ux, uy)
    safe = np.maximum(transverse, 1e-12)
    # Unit vectors across the direction: azimuthal (-uy, ux, 0) / |u_T| and its cross product.
    cosine = np.where(transverse > 1e-12, ux / safe, 1.0)
    sine = np.where(transverse > 1e-12, uy / safe, 0.0)
    length = np.abs(local.length)  # backscatter stays in the calorimeter
    x = face.x[p] + length * ux - local.a * sine - local.b * uz * cosine
    y = face.y[p] + length * uy + local.a * cosine - local.b * uz * sine
    z = face.z[p] + length * uz + local.b * transverse
    depth = detector.depth(x, y, z)
    scaled = ~local.electromagnetic & (depth < detector.ecal_depth)
    energy = local.energy * np.where(scaled, detector.ecal_hadron_response, 1.0)
    kept = depth < detector.hcal_end
    path = face.path[p] + length
    return Spots(p[kept], x[kept], y[kept], z[kept], energy[kept], path[kept])


def shower_spots(
    particles: Particles, propagation: Propagation, detector: Detector, rng: np.random.Generator
) -> Spots:
    """Make the energy spots of one event; none if nothing reaches the calorimeter.

    Args:
        particles: [P].
        propagation: of these particles.
        detector: geometry and granularity.
        rng: stream of ``Stage.SHOWERS``.
    """
    face = propagation.face
    code = np.abs(particles.pdg)
    enters = face.valid & (_deposited(particles) > _MIN_ENERGY)
    em = (code == _PHOTON) | (code == _ELECTRON)
    muons = np.flatnonzero(enters & (code == _MUON))
    paths = _paths(face, detector)
    kinetic = particles.energy[muons] - particles.mass[muons]
    reach = np.minimum(paths.hcal[muons], np.maximum(kinetic, 0.0) / _MIP_LOSS)
    parts = [
        _electromagnetic(np.flatnonzero(enters & em), particles, paths, detector.granularity.em_spots, rng),
        _minimum_ionising(muons, reach, paths, detector, rng),
        *_hadronic(np.flatnonzero(enters & ~em & (code != _MUON)), particles, paths, detector, rng),
    ]
    names = ("particle", "length", "a", "b", "energy", "electromagnetic")
    return _place(_Local(*(np.concatenate([getattr(q, n) for q in parts]) for n in names)), face, detector)
