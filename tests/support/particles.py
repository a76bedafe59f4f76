"""Particles for simulation tests, built by hand."""

import numpy as np

from mlpf.simulation.clic.event_data import Particles
from mlpf.simulation.clic.generator import particles_from_rows

MASS = {22: 0.0, 11: 0.000511, 13: 0.10566, 130: 0.49761, 211: 0.13957, 2112: 0.93957}


def no_particles() -> Particles:
    return particles_from_rows(np.zeros(0, dtype=np.int64), np.zeros((0, 10)))


def single_particle(
    pdg: int,
    energy: float,
    charge: float = 0.0,
    theta: float = 1.2,
    phi: float = 0.0,
    vertex: tuple[float, float, float] = (0.0, 0.0, 0.0),
    copies: int = 1,
) -> Particles:
    mass = MASS.get(abs(pdg), 0.0)
    p = np.sqrt(energy**2 - mass**2)
    momentum = p * np.array([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)])
    row = [charge, mass, *momentum, energy, *vertex, 0.0]
    return particles_from_rows(np.full(copies, pdg), np.tile(np.array(row), (copies, 1)))
