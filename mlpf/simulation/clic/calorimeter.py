"""Calorimeter and muon hits of one event: showers, cells, muon layers, noise, times."""

from dataclasses import dataclass

import numpy as np

from mlpf.physics.kinematics import eta_from_momentum
from mlpf.simulation.clic.detector import SPEED_OF_LIGHT, Detector
from mlpf.simulation.clic.event_data import HIT_COLLECTIONS, FloatArray, Hits, IntArray, Links, Particles
from mlpf.simulation.clic.helix import Helix
from mlpf.simulation.clic.propagation import Propagation
from mlpf.simulation.clic.showers import Spots, shower_spots

ECAL, HCAL, MUON = 0, 1, 2
_BARREL, _PLUS, _MINUS = 0, 1, 2
_SHIFT = 1 << 13  # makes cell numbers along an axis positive in 14 bits
_COLLECTION = np.array(
    [
        [HIT_COLLECTIONS.index(f"{calorimeter}{part}") for part in ("Barrel", "Endcap", "Endcap")]
        for calorimeter in ("ECAL", "HCAL")
    ]
    + [[HIT_COLLECTIONS.index("MUON")] * 3]
)


@dataclass(frozen=True)
class Layers:
    """Where points [S] lie in the layers: ``system`` (ECAL, HCAL, MUON), ``barrel``, ``layer``."""

    system: IntArray
    barrel: np.ndarray
    layer: IntArray


@dataclass(frozen=True)
class Cells:
    """Read-out cells [H] sorted by key, hence by collection, and their contributions.

    Attributes:
        key: system, side, layer and two cell numbers packed into 62 bits or less.
        energy: GeV.
        links: cell -> particle with the particle's energy in the cell in GeV.
        main: [H] index of the deposit with the largest energy in each cell.
    """

    key: IntArray
    energy: FloatArray
    links: Links
    main: IntArray


def calorimeter_layers(x: FloatArray, y: FloatArray, z: FloatArray, detector: Detector) -> Layers:
    """Return the calorimeter layers of points [S] in mm; those in front of the face count as layer 0."""
    cells = detector.granularity
    depth = detector.depth(x, y, z)
    hcal = depth >= detector.ecal_depth
    thickness = np.where(
        hcal,
        (detector.hcal_end - detector.hcal_start) / cells.hcal_layers,
        detector.ecal_depth / cells.ecal_layers,
    )
    start = np.where(hcal, detector.hcal_start, 0.0)
    last = np.where(hcal, cells.hcal_layers, cells.ecal_layers) - 1
    layer = np.clip(np.floor((depth - start) / thickness), 0, last).astype(np.int64)
    return Layers(hcal.astype(np.int64), detector.in_barrel(x, y, z), layer)


def _layer_position(system: IntArray, barrel: np.ndarray, layer: IntArray, detector: Detector) -> FloatArray:
    """Radius (barrel) or |z| (endcap) of the middle of layers [S], mm."""
    cells, muon = detector.granularity, detector.muon
    ecal = (layer + 0.5) * detector.ecal_depth / cells.ecal_layers
    pitch = (detector.hcal_end - detector.hcal_start) / cells.hcal_layers
    hcal = detector.hcal_start + (layer + 0.5) * pitch
    face = np.where(barrel, detector.face_radius, detector.face_half_length)
    yoke = np.where(
        barrel, muon.barrel_radius + layer * muon.barrel_step, muon.endcap_z + layer * muon.endcap_step
    )
    return np.where(system == MUON, yoke, face + np.where(system == HCAL, hcal, ecal))


def _cell_side(system: IntArray, detector: Detector) -> FloatArray:
    cells = detector.granularity
    return np.array([cells.ecal_cell, cells.hcal_cell, detector.muon.cell])[system]


def cell_keys(layers: Layers, x: FloatArray, y: FloatArray, z: FloatArray, detector: Detector) -> IntArray:
    """Return the keys [S] of the cells that hold points [S] in mm."""
    side = _cell_side(layers.system, detector)
    radius = _layer_position(layers.system, layers.barrel, layers.layer, detector)
    columns = np.floor(2 * np.pi * radius / side)
    turn = np.mod(np.arctan2(y, x) / (2 * np.pi), 1.0)
    ring = np.minimum(np.floor(turn * columns), columns - 1)
    first = np.where(layers.barrel, ring, np.floor(x / side) + _SHIFT).astype(np.int64)
    second = (np.floor(np.where(layers.barrel, z, y) / side) + _SHIFT).astype(np.int64)
    part = np.where(layers.barrel, _BARREL, np.where(z > 0, _PLUS, _MINUS))
    return (((layers.system << 2 | part) << 7 | layers.layer) << 14 | first) << 14 | second


def cell_centres(key: IntArray, detector: Detector) -> tuple[IntArray, FloatArray, FloatArray, FloatArray]:
    """Return (collection, x, y, z) of cells [H], mm."""
    second, first = key & 0x3FFF, (key >> 14) & 0x3FFF
    layer, part, system = (key >> 28) & 0x7F, (key >> 35) & 3, key >> 37
    barrel = part == _BARREL
    side = _cell_side(system, detector)
    position = _layer_position(system, barrel, layer, detector)
    phi = 2 * np.pi * (first + 0.5) / np.floor(2 * np.pi * position / side)
    along = (second - _SHIFT + 0.5) * side
    x = np.where(barrel, position * np.cos(phi), (first - _SHIFT + 0.5) * side)
    y = np.where(barrel, position * np.sin(phi), along)
    z = np.where(barrel, along, np.where(part == _PLUS, position, -position))
    return _COLLECTION[system, part], x, y, z


def thresholds(key: IntArray, detector: Detector) -> FloatArray:
    """Return the read-out threshold in GeV of cells [H]; the muon system has none."""
    cells = detector.granularity
    return np.array([cells.ecal_threshold, cells.hcal_threshold, 0.0])[key >> 37]


def _starts(changes: np.ndarray) -> IntArray:
    """First index of each run, where ``changes`` [S - 1] marks borders between sorted entries."""
    return np.concatenate([[0], np.flatnonzero(changes) + 1])


def digitise(key: IntArray, particle: IntArray, energy: FloatArray, detector: Detector) -> Cells:
    """Sum deposits [S] into cells, drop the cells below threshold and their links."""
    if len(key) == 0:
        no_index, no_value = np.zeros(0, dtype=np.int64), np.zeros(0)
        return Cells(no_index, no_value, Links(no_index, no_index, no_value), no_index)
    order = np.lexsort((particle, key))
    key, particle, energy = key[order], particle[order], energy[order]
    begin = _starts((np.diff(key) != 0) | (np.diff(particle) != 0))
    part_key, part_particle = key[begin], particle[begin]
    part_energy = np.add.reduceat(energy, begin)
    cell_begin = _starts(np.diff(part_key) != 0)
    cell_key = part_key[cell_begin]
    cell_energy = np.add.reduceat(part_energy, cell_begin)
    cell_of_part = np.repeat(np.arange(len(cell_key)), np.diff(np.append(cell_begin, len(part_key))))

    # Sorted by cell, then energy: the last part of each cell is its largest.
    largest = np.lexsort((part_energy, cell_of_part))[np.append(cell_begin[1:], len(part_key)) - 1]
    main = order[begin[largest]]
    kept = cell_energy >= thresholds(cell_key, detector)
    number = np.cumsum(kept) - 1
    linked = kept[cell_of_part]
    links = Links(number[cell_of_part[linked]], part_particle[linked], part_energy[linked])
    return Cells(cell_key[kept], cell_energy[kept], links, main[kept])


_MUON = 13
_TIME_RESOLUTION = 0.5  # ns
_NOISE_MAX_COS_THETA = 0.985  # no noise cells in the beam hole


def muon_layer_crossings(
    helix: Helix, detector: Detector
) -> tuple[IntArray, IntArray, np.ndarray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """Cross helices [n] with every layer of the muon system.

    Returns:
        Arrays [c] over the crossings: helix, layer, in the barrel, x, y, z (mm), path length (mm).
    """
    muon = detector.muon
    rows = []
    for barrel, positions in ((True, muon.barrel_radii), (False, muon.endcap_positions)):
        column = np.array(positions)[:, None]
        angle = helix.cylinder_angle(column) if barrel else helix.plane_angle(column)
        layer, index = np.nonzero(angle < np.pi)
        crossing, angle = helix.take(index), angle[layer, index]
        x, y, z, _ = crossing.at(angle)
        if barrel:
            inside = np.abs(z) < muon.barrel_half_length
        else:
            radius = np.hypot(x, y)
            inside = (radius > muon.endcap_inner_radius) & (radius < muon.outer_radius)
        found = (index, layer, np.full(len(index), barrel), x, y, z, crossing.path(angle))
        rows.append(tuple(values[inside] for values in found))
    index, layers, in_barrel, x, y, z, path = (np.concatenate(column) for column in zip(*rows, strict=True))
    return index, layers, in_barrel, x, y, z, path


def _muon_spots(
    particles: Particles, propagation: Propagation, detector: Detector, rng: np.random.Generator
) -> tuple[Spots, Layers]:
    """Deposits of muons with enough momentum to cross the calorimeters and the coil."""
    index = propagation.charged
    px, py, pz = particles.px[index], particles.py[index], particles.pz[index]
    pt = np.hypot(px, py)
    p = np.hypot(pt, pz)
    forward = (p > 5.0) & (np.abs(eta_from_momentum(px, py, pz)) > 1.3)
    hard = ((p > 4.0) & (pt > 2.5)) | forward
    muons = np.flatnonzero((np.abs(particles.pdg[index]) == _MUON) & propagation.face.valid[index] & hard)
    which, layer, barrel, x, y, z, path = muon_layer_crossings(propagation.helix.take(muons), detector)
    seen = rng.random(len(which)) < detector.muon.efficiency
    owner = index[muons][which[seen]]
    energy = np.full(len(owner), detector.muon.hit_energy)
    layers = Layers(np.full(len(owner), MUON), barrel[seen], layer[seen])
    return Spots(owner, x[seen], y[seen], z[seen], energy, path[seen]), layers


def _noise_keys(detector: Detector, rng: np.random.Generator) -> IntArray:
    """Draw noise cells, uniform in direction and in depth; each cell once."""
    cells = detector.granularity
    counts = (rng.poisson(cells.ecal_noise), rng.poisson(cells.hcal_noise))
    n = sum(counts)
    cosine = rng.uniform(-_NOISE_MAX_COS_THETA, _NOISE_MAX_COS_THETA, n)
    phi = rng.uniform(-np.pi, np.pi, n)
    start = np.repeat((0.0, detector.hcal_start), counts)
    stop = np.repeat((detector.ecal_depth, detector.hcal_end), counts)
    depth = start + (stop - start) * rng.random(n)
    sine = np.sqrt(1.0 - cosine**2)
    barrel_length = (detector.face_radius + depth) / sine
    plane_length = (detector.face_half_length + depth) / np.maximum(np.abs(cosine), 1e-12)
    length = np.minimum(barrel_length, plane_length)
    x, y, z = length * sine * np.cos(phi), length * sine * np.sin(phi), length * cosine
    return np.unique(cell_keys(calorimeter_layers(x, y, z, detector), x, y, z, detector))


def _flight_delay(
    particle: IntArray, path: FloatArray, position: tuple[FloatArray, ...], particles: Particles
) -> FloatArray:
    """Arrival time in ns relative to light from the origin; paths start at the production vertex. All [H]."""
    p = np.sqrt(particles.px**2 + particles.py**2 + particles.pz**2)
    inverse_beta = particles.energy / np.maximum(p, 1e-9)
    x, y, z = position
    straight = np.sqrt(x * x + y * y + z * z)
    return particles.time[particle] + (path * inverse_beta[particle] - straight) / SPEED_OF_LIGHT


def simulate_hits(
    particles: Particles,
    propagation: Propagation,
    detector: Detector,
    shower_rng: np.random.Generator,
    noise_rng: np.random.Generator,
) -> Hits:
    """Make the calorimeter and muon hits of one event.

    Args:
        particles: [P].
        propagation: of these particles.
        detector: geometry and granularity.
        shower_rng: stream of ``Stage.SHOWERS``.
        noise_rng: stream of ``Stage.NOISE``.

    Returns:
        Hits sorted by collection; the weights of the links of a hit sum to its energy, noise has none.
    """
    spots = shower_spots(particles, propagation, detector, shower_rng)
    layers = calorimeter_layers(spots.x, spots.y, spots.z, detector)
    muon_spots, muon_layers = _muon_spots(particles, propagation, detector, shower_rng)
    key = np.concatenate(
        [
            cell_keys(layers, spots.x, spots.y, spots.z, detector),
            cell_keys(muon_layers, muon_spots.x, muon_spots.y, muon_spots.z, detector),
        ]
    )
    particle = np.concatenate([spots.particle, muon_spots.particle])
    path = np.concatenate([spots.path, muon_spots.path])
    cells = digitise(key, particle, np.concatenate([spots.energy, muon_spots.energy]), detector)

    noise_key = np.setdiff1d(_noise_keys(detector, noise_rng), cells.key, assume_unique=True)
    excess = 1.05 + 0.3 * noise_rng.standard_exponential(len(noise_key))
    noise_energy = thresholds(noise_key, detector) * excess
    all_keys = np.concatenate([cells.key, noise_key])
    order = np.argsort(all_keys, kind="stable")
    place = np.argsort(order)  # new position of each cell
    collection, x, y, z = cell_centres(all_keys, detector)
    num_real = len(cells.key)
    time = noise_rng.normal(0.0, _TIME_RESOLUTION, len(all_keys))
    position = (x[:num_real], y[:num_real], z[:num_real])
    time[:num_real] += _flight_delay(particle[cells.main], path[cells.main], position, particles)
    return Hits(
        collection=collection[order],
        cell_id=all_keys[order].astype(np.uint64),
        x=x[order],
        y=y[order],
        z=z[order],
        energy=np.concatenate([cells.energy, noise_energy])[order],
        time=time[order],
        links=Links(place[cells.links.source], cells.links.particle, cells.links.weight),
    )
