"""Particles that look like those of proton collisions, without a generator."""

import numpy as np

from mlpf.simulation.clic.event_data import Particles

# Code, charge, mass, share.
SPECIES = (
    (211, 1, 0.14, 0.3),
    (-211, -1, 0.14, 0.3),
    (22, 0, 0.0, 0.25),
    (130, 0, 0.498, 0.1),
    (11, -1, 0.0005, 0.02),
    (-13, 1, 0.106, 0.02),
    (12, 0, 0.0, 0.01),
)


def collision(rng, size=2000, max_eta=5.5, mean_pt=2.0) -> Particles:
    """Particles of exponential pt, uniform in eta and azimuth, from vertices along the beam."""
    shares = np.array([share for *_, share in SPECIES])
    which = rng.choice(len(SPECIES), size, p=shares)
    pdg, charge, mass = (np.array([row[i] for row in SPECIES])[which] for i in range(3))
    pt = 0.1 + rng.exponential(mean_pt, size)
    eta, phi = rng.uniform(-max_eta, max_eta, size), rng.uniform(-np.pi, np.pi, size)
    px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    energy = np.sqrt(pt**2 + pz**2 + mass**2)
    zero = np.zeros(size)
    vertex = rng.normal(0.0, 53.0, size)
    return Particles(
        pdg, charge.astype(float), mass, px, py, pz, energy, zero, zero.copy(), vertex, zero.copy()
    )


class FakeGenerator:
    """Stands for ``DelphesGenerator``."""

    def __init__(self, size=2000, seed=1, sample="fake"):
        self.sample, self.seed, self.pileup, self.size = sample, seed, 0.0, size

    def generate(self, number) -> Particles:
        return collision(np.random.default_rng([self.seed, number]), self.size)
