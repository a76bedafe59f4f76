"""Small hand-built records of the simulation: hits around a point, tracks from momenta."""

import numpy as np

from mlpf.simulation.clic.detector import CLIC
from mlpf.simulation.clic.event_data import HIT_COLLECTIONS, Hits, Links, Tracks, TrackStates
from mlpf.simulation.clic.helix import extrapolate_to_face

NO_LINKS = Links(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))


def make_hits(*groups):
    """Join groups (collection name, positions [n, 3] in mm, energies [n] or one energy) into hits."""
    groups = sorted(groups, key=lambda group: HIT_COLLECTIONS.index(group[0]))
    position = np.concatenate([np.zeros((0, 3)), *[np.atleast_2d(p) for _, p, _ in groups]])
    sizes = [len(np.atleast_2d(p)) for _, p, _ in groups]
    energies = [np.broadcast_to(e, n) for (_, _, e), n in zip(groups, sizes, strict=True)]
    collections = [HIT_COLLECTIONS.index(name) for name, _, _ in groups]
    return Hits(
        collection=np.repeat(np.array(collections, dtype=np.int64), sizes),
        cell_id=np.arange(len(position), dtype=np.uint64),
        x=position[:, 0],
        y=position[:, 1],
        z=position[:, 2],
        energy=np.concatenate([np.zeros(0), *energies]),
        time=np.zeros(len(position)),
        links=NO_LINKS,
    )


def blob(center, size, num=20, seed=0):
    """Return [num, 3] points normally distributed around ``center`` with width ``size`` mm."""
    return np.asarray(center) + size * np.random.default_rng(seed).normal(size=(num, 3))


def make_tracks(*particles):
    """Build exact tracks from the origin: particles are (pt in GeV, phi, tan lambda, charge)."""
    pt, phi, tan_lambda, charge = np.array(particles, dtype=float).reshape(-1, 4).T
    zero = np.zeros(len(pt))
    at_ip = TrackStates(zero, phi, charge * CLIC.bending / pt, zero, tan_lambda, zero, zero, zero, zero)
    face = extrapolate_to_face(at_ip, CLIC)
    there = np.arctan2(face.uy, face.ux)
    at_face = TrackStates(zero, there, at_ip.omega, zero, tan_lambda, zero, face.x, face.y, face.z)
    ones = np.ones(len(pt), dtype=np.int64)
    return Tracks(zero + 1, ones, zero, zero, zero + 31, ones, at_ip, at_face, NO_LINKS)
