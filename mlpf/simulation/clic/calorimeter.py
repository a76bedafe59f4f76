"""Calorimeter and muon hits of one event: showers, digitisation, muon layers, noise, times."""

import numpy as np

from mlpf.physics.kinematics import eta_from_momentum
from mlpf.simulation.clic.detector import SPEED_OF_LIGHT, Detector
from mlpf.simulation.clic.digitisation import (
    MUON,
    Layers,
    calorimeter_layers,
    cell_centres,
    cell_keys,
    digitise,
    thresholds,
)
from mlpf.simulation.clic.event_data import FloatArray, Hits, IntArray, Links, Particles
from mlpf.simulation.clic.helix import Helix
from mlpf.simulation.clic.propagation import Propagation
from mlpf.simulation.clic.showers import Spots, shower_spots

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
