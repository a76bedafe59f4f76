"""Generated events: e+e- processes by Pythia, overlay, single particles."""

import importlib
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from mlpf.errors import ConfigError, MissingDependency, how_to_install
from mlpf.physics.samples import CLIC_ENERGY, GUN_MOMENTUM
from mlpf.simulation.clic.detector import CLIC, Detector
from mlpf.simulation.clic.event_data import FloatArray, Particles
from mlpf.simulation.seeding import Stage, event_rng, pythia_seed

_COMMON = (
    "Print:quiet=on",
    "Next:numberCount=0",
    "Random:setSeed=on",
    "Random:seed=1",
    "Beams:idA=11",
    "Beams:idB=-11",
    f"Beams:eCM={CLIC_ENERGY:g}",
)
_TTBAR = ("Top:ffbar2ttbar(s:gmZ)=on",)
_OVERLAY = (
    "PDF:lepton2gamma=on",
    "Photon:ProcessType=0",
    "Photon:Wmin=5",
    "Photon:Q2max=1",
    "SoftQCD:nonDiffractive=on",
)
_MARGIN = 7.0  # mm between the last decay and the end cap
_POOL_SIZE = 1500  # smaller pools repeat visibly
_SCATTERED_BEAM_PZ = 50.0  # GeV
_MAX_TRIES = 100
_ELECTRON, _PHOTON, _PI0 = 11, 22, 111
_GUN_MAX_COS_THETA = 0.95


@dataclass(frozen=True)
class GeneratorSettings:
    """How to generate the events of a sample.

    Attributes:
        pythia: settings of Pythia; empty for single particles.
        gun: PDG codes of single particles, drawn with equal probability; empty for a process.
        overlay_mean: mean number of overlaid photon-photon events.
    """

    pythia: tuple[str, ...] = ()
    gun: tuple[int, ...] = ()
    overlay_mean: float = 0.0


# By name of the sample in ``CLIC_SAMPLES``.
SETTINGS: dict[str, GeneratorSettings] = {
    "ttbar": GeneratorSettings(_TTBAR),
    "qq": GeneratorSettings(("WeakSingleBoson:ffbar2gmZ=on", "23:onMode=off", "23:onIfAny=1 2 3 4 5")),
    "zh_tautau": GeneratorSettings(("HiggsSM:ffbar2HZ=on", "25:onMode=off", "25:onIfMatch=15 -15")),
    "ww_fullhad": GeneratorSettings(("WeakDoubleBoson:ffbar2WW=on", "24:onMode=off", "24:onIfAny=1 2 3 4 5")),
    "ttbar_pu10": GeneratorSettings(_TTBAR, overlay_mean=10.0),
    "single_neutron": GeneratorSettings(gun=(2112,)),
    "single_kaon0l": GeneratorSettings(gun=(130,)),
    "single_pi": GeneratorSettings(gun=(211, -211)),
    "single_pi0": GeneratorSettings(gun=(_PI0,)),
    "single_mu": GeneratorSettings(gun=(13, -13)),
    "single_electron": GeneratorSettings(gun=(_ELECTRON, -_ELECTRON)),
    "single_gamma": GeneratorSettings(gun=(_PHOTON,)),
}

# Masses in GeV and charges in e of single particles.
_MASS = {2112: 0.93957, 130: 0.49761, 211: 0.13957, _PI0: 0.13498, 13: 0.10566, _ELECTRON: 0.000511}
_CHARGE = {211: 1.0, -211: -1.0, 13: -1.0, -13: 1.0, _ELECTRON: -1.0, -_ELECTRON: 1.0}


def particles_from_rows(pdg: np.ndarray, rows: FloatArray) -> Particles:
    """Build particles from PDG codes [P] and rows [P, 10] of charge, mass, px, py, pz, e, vx, vy, vz, t."""
    return Particles(np.asarray(pdg, dtype=np.int64), *np.ascontiguousarray(rows.T))


def concatenate(parts: list[Particles]) -> Particles:
    """Join at least one set of particles, in order."""
    return Particles(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Particles)))


def rotate(particles: Particles, phi: float | FloatArray) -> Particles:
    """Rotate momenta and vertices about the z axis by ``phi`` rad, one angle or one per particle [P]."""
    cosine, sine = np.cos(phi), np.sin(phi)
    columns = {f.name: getattr(particles, f.name) for f in fields(Particles)}
    for x, y in (("px", "py"), ("vx", "vy")):
        a, b = columns[x], columns[y]
        columns[x], columns[y] = cosine * a - sine * b, sine * a + cosine * b
    return Particles(**columns)


def decays_inside(detector: Detector) -> tuple[str, ...]:
    """Return settings of Pythia with which V0s and hyperons decay inside the tracker, and only there."""
    return (
        "ParticleDecays:limitCylinder=on",
        f"ParticleDecays:xyMax={detector.face_radius:g}",
        f"ParticleDecays:zMax={detector.face_half_length - _MARGIN:g}",
    )


def start_pythia(settings: tuple[str, ...]) -> Any:
    """Return a generator for some settings of Pythia.

    Raises:
        MissingDependency: Pythia is not installed.
    """
    try:
        pythia8 = importlib.import_module("pythia8mc")
    except ImportError:
        raise MissingDependency(
            "generating physics processes needs Pythia, which is not installed; simulate a single_* gun, or "
            + how_to_install("simulation")
        ) from None
    pythia = pythia8.Pythia("", False)
    for line in (*_COMMON, *settings):
        if not pythia.readString(line):
            raise RuntimeError(f"Pythia does not accept the setting {line!r}")
    if not pythia.init():
        raise RuntimeError("Pythia did not start; its messages are above")
    return pythia


def next_event(pythia: Any, seed: int) -> Particles:
    """Generate the event that belongs to ``seed``."""
    pythia.rndm.init(seed)
    # A failed attempt is repeated without a new seed, so that the event depends on the seed only.
    if not any(pythia.next() for _ in range(_MAX_TRIES)):
        raise RuntimeError(f"Pythia gave up {_MAX_TRIES} times on the event of seed {seed}")
    pdg, rows = [], []
    for p in pythia.event:
        if p.isFinal():
            pdg.append(p.id())
            rows.append(
                (
                    p.charge(),
                    p.m(),
                    p.px(),
                    p.py(),
                    p.pz(),
                    p.e(),
                    p.xProd(),
                    p.yProd(),
                    p.zProd(),
                    p.tProd() / 299.792458,  # Pythia gives mm/c
                )
            )
    return particles_from_rows(np.array(pdg), np.array(rows, dtype=np.float64).reshape(-1, 10))


def _shoot(pdgs: tuple[int, ...], rng: np.random.Generator) -> Particles:
    """Shoot one particle from the origin, uniform in momentum, azimuth and cos(theta)."""
    pdg = int(rng.choice(pdgs))
    p = rng.uniform(*GUN_MOMENTUM)
    cosine = rng.uniform(-_GUN_MAX_COS_THETA, _GUN_MAX_COS_THETA)
    phi = rng.uniform(-np.pi, np.pi)
    sine = np.sqrt(1.0 - cosine**2)
    direction = np.array([sine * np.cos(phi), sine * np.sin(phi), cosine])
    mass = _MASS.get(abs(pdg), 0.0)
    if pdg != _PI0:
        rows = [[_CHARGE.get(pdg, 0.0), mass, *(p * direction), np.hypot(p, mass), 0, 0, 0, 0]]
        return particles_from_rows(np.array([pdg]), np.array(rows))
    photons = _decay_to_photons(p, mass, direction, rng)
    rows = [[0, 0, *k, np.linalg.norm(k), 0, 0, 0, 0] for k in photons]
    return particles_from_rows(np.array([_PHOTON, _PHOTON]), np.array(rows))


def _decay_to_photons(p: float, mass: float, direction: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return the momenta [2, 3] of two photons, isotropic in the rest frame of their parent."""
    cosine, azimuth = rng.uniform(-1.0, 1.0), rng.uniform(-np.pi, np.pi)
    helper = np.array([0.0, 0.0, 1.0]) if abs(direction[2]) < 0.9 else np.array([1.0, 0.0, 0.0])
    first = np.cross(direction, helper)
    first /= np.linalg.norm(first)
    second = np.cross(direction, first)
    across = 0.5 * mass * np.sqrt(1.0 - cosine**2)
    sideways = across * (np.cos(azimuth) * first + np.sin(azimuth) * second)
    along = 0.5 * (np.hypot(p, mass) * cosine + p)  # boost of (mass/2) cosine
    return np.array([along * direction + sideways, (p - along) * direction - sideways])


class Generator:
    """Generated events of one sample; each can be made alone and in any order.

    Args:
        sample: name out of ``CLIC_SAMPLES``.
        seed: non-negative; together with sample, detector and event number it fixes every event.
        detector: inside which long-lived particles decay.

    Raises:
        ConfigError: unknown sample or negative seed.
        MissingDependency: a process needs Pythia, which is not installed.
    """

    def __init__(self, sample: str, seed: int, detector: Detector = CLIC) -> None:
        if sample not in SETTINGS:
            raise ConfigError(f"process {sample!r} is not known; choose one of {', '.join(SETTINGS)}")
        if seed < 0:
            raise ConfigError(f"seed {seed} is negative; give 0 or more")
        self.sample = sample
        self.seed = seed
        self._settings = SETTINGS[sample]
        self._decays = decays_inside(detector)
        self._pythia = None
        if self._settings.pythia:
            self._pythia = start_pythia((*self._decays, *self._settings.pythia))
        self._pool = self._make_pool() if self._settings.overlay_mean > 0 else []

    def _make_pool(self) -> list[Particles]:
        pythia = start_pythia((*self._decays, *_OVERLAY))
        pool = []
        for i in range(_POOL_SIZE):
            event = next_event(pythia, pythia_seed(self.seed, "overlay", i))
            beam = (np.abs(event.pdg) == _ELECTRON) & (np.abs(event.pz) > _SCATTERED_BEAM_PZ)
            pool.append(Particles(*(getattr(event, f.name)[~beam] for f in fields(Particles))))
        return pool

    def generate(self, event: int) -> Particles:
        """Return the final-state particles [P] of event number ``event``, neutrinos included."""
        if self._pythia is None:
            return _shoot(self._settings.gun, event_rng(self.seed, self.sample, event, Stage.GUN))
        signal = next_event(self._pythia, pythia_seed(self.seed, self.sample, event))
        if not self._pool:
            return signal
        rng = event_rng(self.seed, self.sample, event, Stage.OVERLAY)
        picks = rng.integers(len(self._pool), size=rng.poisson(self._settings.overlay_mean))
        angles = rng.uniform(-np.pi, np.pi, size=len(picks))
        return concatenate([signal, *(rotate(self._pool[i], a) for i, a in zip(picks, angles, strict=True))])
