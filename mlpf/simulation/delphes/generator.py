"""Proton collisions by Pythia with pile-up: many soft collisions from a pool in every event."""

from dataclasses import fields, replace

import numpy as np

from mlpf.data.flat_tables import expand_ranges, offsets_from_counts
from mlpf.errors import ConfigError
from mlpf.physics.kinematics import eta_from_momentum
from mlpf.physics.particles import is_invisible
from mlpf.physics.samples import LHC_ENERGY
from mlpf.simulation.clic.event_data import IntArray, Particles
from mlpf.simulation.clic.generator import concatenate, next_event, rotate, start_pythia
from mlpf.simulation.delphes.detector import MAX_ETA
from mlpf.simulation.seeding import Stage, event_rng, pythia_seed

# Long-lived particles do not decay in the generator, as in the published events.
_PROTONS = (
    "Beams:idA=2212",
    "Beams:idB=2212",
    f"Beams:eCM={LHC_ENERGY:g}",
    "ParticleDecays:limitCylinder=off",
    "ParticleDecays:limitTau0=on",
    "ParticleDecays:tau0Max=10",
)
_SOFT = ("SoftQCD:nonDiffractive=on", "SoftQCD:singleDiffractive=on", "SoftQCD:doubleDiffractive=on")
POOL_SIZE = 500
_POOL_MIN_PT = 0.1  # GeV; softer particles reach neither a tower nor a track
_VERTEX_WIDTH = 53.0  # mm along the beam


# Settings of Pythia by the name of the sample in ``mlpf simulate``.
SETTINGS: dict[str, tuple[str, ...]] = {
    "delphes_ttbar": ("Top:gg2ttbar=on", "Top:qqbar2ttbar=on", "6:m0=172.5"),
    "delphes_qcd": ("HardQCD:all=on", "PhaseSpace:pTHatMin=20"),
}


class PileUpPool:
    """Soft collisions to draw from, a function of the seed alone.

    Args:
        seed: seed of the sample.
        size: collisions to generate.
    """

    def __init__(self, seed: int, size: int = POOL_SIZE) -> None:
        pythia = start_pythia((*_PROTONS, *_SOFT))
        events = [_slim(next_event(pythia, pythia_seed(seed, "delphes_minbias", i))) for i in range(size)]
        self._particles = concatenate(events)
        self._offsets: IntArray = offsets_from_counts(np.array([len(event) for event in events]))

    def __len__(self) -> int:
        """Return the number of collisions."""
        return len(self._offsets) - 1

    def draw(self, mean: float, rng: np.random.Generator) -> Particles:
        """Return the particles of a Poisson number of collisions.

        Each is rotated by its own angle, possibly mirrored in z, and moved to its own vertex, so that the
        repetitions of a small pool are not visible.
        """
        picks = rng.integers(len(self), size=rng.poisson(mean))
        counts = np.diff(self._offsets)[picks]
        rows = expand_ranges(self._offsets[picks], counts)
        angle, mirror, z = (
            np.repeat(values, counts)
            for values in (
                rng.uniform(-np.pi, np.pi, len(picks)),
                rng.choice([-1.0, 1.0], len(picks)),
                rng.normal(0.0, _VERTEX_WIDTH, len(picks)),
            )
        )
        drawn = _take(self._particles, rows)
        drawn = replace(drawn, pz=mirror * drawn.pz, vz=mirror * drawn.vz + z)
        return rotate(drawn, angle)


class DelphesGenerator:
    """Generated events of one sample; each can be made alone and in any order.

    Args:
        sample: ``simulation_name`` of a sample of ``DELPHES_SAMPLES``.
        seed: non-negative; together with sample and event number it fixes every event.
        pileup: mean number of further collisions.
        pool_size: number of collisions in their pool.

    Raises:
        ConfigError: unknown sample, or negative seed or pile-up.
        MissingDependency: Pythia is not installed.
    """

    def __init__(self, sample: str, seed: int, pileup: float, pool_size: int = POOL_SIZE) -> None:
        if sample not in SETTINGS:
            raise ConfigError(f"process {sample!r} is not known; choose one of {', '.join(SETTINGS)}")
        if seed < 0 or pileup < 0:
            raise ConfigError(f"seed {seed} or pile-up {pileup} is negative; give 0 or more")
        self.sample, self.seed, self.pileup = sample, seed, pileup
        self._pythia = start_pythia((*_PROTONS, *SETTINGS[sample]))
        self._pool = PileUpPool(seed, pool_size) if pileup > 0 else None

    def generate(self, event: int) -> Particles:
        """Return the final-state particles [P] of event number ``event``, those of the signal first."""
        signal = next_event(self._pythia, pythia_seed(self.seed, self.sample, event))
        rng = event_rng(self.seed, self.sample, event, Stage.OVERLAY)
        signal = replace(signal, vz=signal.vz + rng.normal(0.0, _VERTEX_WIDTH))
        if self._pool is None:
            return signal
        return concatenate([signal, self._pool.draw(self.pileup, rng)])


def _slim(particles: Particles) -> Particles:
    """Keep the visible particles."""
    eta = eta_from_momentum(particles.px, particles.py, particles.pz)
    soft = np.hypot(particles.px, particles.py) < _POOL_MIN_PT
    return _take(particles, np.flatnonzero((np.abs(eta) < MAX_ETA) & ~soft & ~is_invisible(particles.pdg)))


def _take(particles: Particles, rows: IntArray) -> Particles:
    return Particles(*(getattr(particles, f.name)[rows] for f in fields(Particles)))
