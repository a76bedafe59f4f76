"""Entry points and directions of the particles that reach the calorimeter."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlpf.physics.particles import is_invisible
from mlpf.simulation.clic.detector import Tracker
from mlpf.simulation.clic.event_data import IntArray, Particles
from mlpf.simulation.clic.helix import FacePoints, Helix, helix_to_face


@dataclass(frozen=True)
class Propagation:
    """Trajectories of the particles of one event.

    Attributes:
        face: entry into the calorimeter, [P].
        charged: indices [Q] of the visible charged particles that start in the tracker.
        helix: their helices, [Q].
    """

    face: FacePoints
    charged: IntArray
    helix: Helix


def _line_to_face(particles: Particles, detector: Tracker) -> FacePoints:
    """Follow straight lines [P]; nothing here says whether the particle is neutral."""
    p = np.sqrt(particles.px**2 + particles.py**2 + particles.pz**2)
    moves = p > 0
    safe = np.where(moves, p, 1.0)
    ux, uy, uz = particles.px / safe, particles.py / safe, particles.pz / safe
    across = ux**2 + uy**2
    outward = particles.vx * ux + particles.vy * uy
    inside = detector.face_radius**2 - particles.vx**2 - particles.vy**2
    root = np.sqrt(np.maximum(outward**2 + across * inside, 0.0))
    barrel_path = np.where(across > 1e-18, (root - outward) / np.maximum(across, 1e-18), np.inf)
    along = np.abs(uz)
    room = detector.face_half_length - np.sign(uz) * particles.vz
    plane_path = np.where(along > 1e-12, room / np.maximum(along, 1e-12), np.inf)
    path = np.where(moves, np.minimum(barrel_path, plane_path), 0.0)
    x, y, z = particles.vx + path * ux, particles.vy + path * uy, particles.vz + path * uz
    barrel = barrel_path <= plane_path
    valid = moves & (barrel | (np.hypot(x, y) > detector.endcap_inner_radius))
    return FacePoints(x, y, z, ux, uy, uz, path, barrel, valid)


def propagate(particles: Particles, detector: Tracker) -> Propagation:
    """Follow every visible particle [P] through the tracker."""
    radius = np.hypot(particles.vx, particles.vy)
    in_tracker = (radius < detector.face_radius) & (np.abs(particles.vz) < detector.face_half_length)
    seen: npt.NDArray[np.bool_] = in_tracker & ~is_invisible(particles.pdg)
    line = _line_to_face(particles, detector)
    charged = np.flatnonzero(seen & (particles.charge != 0))
    helix = Helix.from_momentum(
        (particles.vx[charged], particles.vy[charged], particles.vz[charged]),
        (particles.px[charged], particles.py[charged], particles.pz[charged]),
        particles.charge[charged],
        detector.bending,
    )
    curved = helix_to_face(helix, detector)
    columns = []
    for name in ("x", "y", "z", "ux", "uy", "uz", "path", "barrel", "valid"):
        values = getattr(line, name).copy()
        values[charged] = getattr(curved, name)
        columns.append(values)
    columns[-1] = columns[-1] & seen
    return Propagation(FacePoints(*columns), charged, helix)
