"""One Delphes-like event through all stages: particles, towers, tracks, energy flow.

The result has the type of a read file (``RawDelphes``), so that a file can be compared with the simulation.
Numbers are float32, as in files.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlpf.data.delphes.tables import RawDelphes
from mlpf.data.flat_tables import BoolArray, Relation, Table
from mlpf.physics.kinematics import eta_from_momentum
from mlpf.physics.particles import NEUTRAL_HADRON, PHOTON, class_from_pdg
from mlpf.simulation.clic.event_data import FloatArray, IntArray, Particles
from mlpf.simulation.clic.propagation import propagate
from mlpf.simulation.delphes.detector import (
    CMS_TOWERS,
    CMS_TRACKER,
    ECAL,
    HCAL,
    TRACK_ANGLE_WIDTH,
    track_efficiency,
    track_pt_width,
)
from mlpf.simulation.delphes.generator import DelphesGenerator
from mlpf.simulation.seeding import Stage, event_rng

_PDG_ELECTRON, _PDG_MUON, _PDG_PHOTON = 11, 13, 22


@dataclass(frozen=True)
class Impacts:
    """Entry of particles [P] into the calorimeter.

    Attributes:
        eta, phi: direction of the entry point from the origin.
        tower: its tower, -1 = not reached.
        in_ecal, in_hcal: the part with the energy; neither for muons.
    """

    eta: FloatArray
    phi: FloatArray
    tower: IntArray
    in_ecal: BoolArray
    in_hcal: BoolArray


def simulate_event(generator: DelphesGenerator, number: int) -> RawDelphes:
    """Simulate one event; it depends on the sample, seed and pile-up of the generator and its number only."""

    def stream(stage: Stage) -> np.random.Generator:
        return event_rng(generator.seed, generator.sample, number, stage)

    particles = generator.generate(number)
    unique_id = 1 + stream(Stage.NOISE).permutation(len(particles))
    impacts = find_impacts(particles)
    towers, energies = measure_towers(particles, impacts, stream(Stage.SHOWERS))
    tracks, track_particle = measure_tracks(particles, impacts, stream(Stage.TRACKS))
    charged, charged_particle = charged_candidates(tracks, track_particle, particles)
    neutral = neutral_candidates(towers, energies, tracks, impacts, track_particle)
    row_of_tower = np.full(len(CMS_TOWERS), -1, dtype=np.int64)
    row_of_tower[energies.tower] = np.arange(len(towers))
    target = np.flatnonzero((impacts.tower >= 0) & (impacts.in_ecal | impacts.in_hcal))
    source = row_of_tower[impacts.tower[target]]
    order = np.argsort(source, kind="stable")
    order = order[source[order] >= 0]
    return RawDelphes(
        np.array([number]),
        _particle_table(particles, unique_id),
        tracks,
        towers,
        charged,
        neutral,
        track_particle,
        charged_particle,
        Relation(source[order], target[order], np.ones(len(order))),
    )


def find_impacts(particles: Particles) -> Impacts:
    """Follow all particles [P] to the calorimeter; as in Delphes, with any number of turns."""
    propagation = propagate(particles, CMS_TRACKER)
    face, charged = propagation.face, propagation.charged
    x, y, z, valid = face.x.copy(), face.y.copy(), face.z.copy(), face.valid.copy()
    lost = ~valid[charged]
    curling = propagation.helix.take(lost)
    angle = curling.plane_angle(CMS_TRACKER.face_half_length)
    arrives = np.isfinite(angle)
    rows = charged[lost]
    x[rows], y[rows], z[rows], _ = curling.at(np.where(arrives, angle, 0.0))
    valid[rows] = arrives & (np.hypot(x[rows], y[rows]) > CMS_TRACKER.endcap_inner_radius)
    eta, phi = eta_from_momentum(x, y, z), np.arctan2(y, x)
    tower = np.where(valid, CMS_TOWERS.index(eta, phi), -1)
    pdg = np.abs(particles.pdg)
    in_ecal = np.isin(pdg, (_PDG_ELECTRON, _PDG_PHOTON))
    return Impacts(eta, phi, tower, in_ecal, ~in_ecal & (pdg != _PDG_MUON))


@dataclass(frozen=True)
class TowerEnergies:
    """Towers that are read out: their number in the grid and measured energies in GeV, all [N]."""

    tower: IntArray
    em: FloatArray
    had: FloatArray


def measure_towers(
    particles: Particles, impacts: Impacts, rng: np.random.Generator
) -> tuple[Table, TowerEnergies]:
    """Sum and smear the energy in each tower; leave out towers below threshold."""
    size = len(CMS_TOWERS)
    centre, _ = CMS_TOWERS.point(np.arange(size), *np.full((2, size), 0.5))
    measured = []
    for of, resolution in ((impacts.in_ecal, ECAL), (impacts.in_hcal, HCAL)):
        arrives = of & (impacts.tower >= 0)
        total = np.bincount(impacts.tower[arrives], particles.energy[arrives], size).astype(np.float64)
        measured.append(resolution.measured(total, centre, rng))
    em, had = measured
    place = rng.uniform(size=(2, size))
    tower = np.flatnonzero(em + had > 0)
    eta, phi = CMS_TOWERS.point(tower, *place[:, tower])
    em, had = em[tower], had[tower]
    columns = {
        "et": (em + had) / np.cosh(eta),
        "eta": eta,
        "phi": phi,
        "energy": em + had,
        "energy_em": em,
        "energy_had": had,
    }
    return _table(columns), TowerEnergies(tower, em, had)


def measure_tracks(
    particles: Particles, impacts: Impacts, rng: np.random.Generator
) -> tuple[Table, IntArray]:
    """Find and smear the tracks of charged particles.

    Returns:
        The tracks [T] and the particle of each.
    """
    pt = np.hypot(particles.px, particles.py)
    eta = eta_from_momentum(particles.px, particles.py, particles.pz)
    found = rng.uniform(size=len(pt)) < track_efficiency(pt, eta)
    particle = np.flatnonzero(found & (impacts.tower >= 0) & (particles.charge != 0))
    noise = rng.standard_normal((5, len(particle)))
    pt, eta = pt[particle], eta[particle]
    columns = {
        "pt": pt * np.exp(track_pt_width(eta) * noise[0]),
        "eta": eta + TRACK_ANGLE_WIDTH * noise[1],
        "phi": np.arctan2(particles.py, particles.px)[particle] + TRACK_ANGLE_WIDTH * noise[2],
        "eta_outer": impacts.eta[particle] + TRACK_ANGLE_WIDTH * noise[3],
        "phi_outer": impacts.phi[particle] + TRACK_ANGLE_WIDTH * noise[4],
    }
    table = _table(columns)
    return _with(table, {"charge": particles.charge[particle].astype(np.int32)}), particle


def charged_candidates(
    tracks: Table, track_particle: IntArray, particles: Particles
) -> tuple[Table, IntArray]:
    """Make a candidate of every track, with the class of its particle.

    Returns:
        The candidates [T] by class: charged hadrons, electrons, muons, and the particle of each.
    """
    cls = class_from_pdg(particles.pdg[track_particle], particles.charge[track_particle])
    order = np.argsort(cls, kind="stable")
    names = ("charge", "pt", "eta", "phi")
    columns = {"cls": cls[order], **{name: tracks[name][order] for name in names}}
    return Table(columns, tracks.offsets), track_particle[order]


def neutral_candidates(
    towers: Table, energies: TowerEnergies, tracks: Table, impacts: Impacts, track_particle: IntArray
) -> Table:
    """Subtract the energy of its tracks from each tower; a significant rest is a neutral candidate."""
    momentum = tracks["pt"] * np.cosh(tracks["eta"].astype(np.float64))
    tower = impacts.tower[track_particle]
    parts = []
    for cls, measured, of, resolution in (
        (NEUTRAL_HADRON, energies.had, impacts.in_hcal, HCAL),
        (PHOTON, energies.em, impacts.in_ecal, ECAL),
    ):
        share = np.bincount(tower, momentum * of[track_particle], minlength=len(CMS_TOWERS))
        excess = measured - share[energies.tower]
        kept = np.flatnonzero(resolution.is_significant(excess, towers["eta"], measured))
        parts.append((np.full(len(kept), cls), kept, excess[kept]))
    classes, rows, energy = (np.concatenate(part) for part in zip(*parts, strict=True))
    table = _table({"eta": towers["eta"][rows], "phi": towers["phi"][rows], "energy": energy})
    return _with(table, {"cls": classes})


def _particle_table(particles: Particles, unique_id: IntArray) -> Table:
    columns = {
        "pt": np.hypot(particles.px, particles.py),
        "eta": eta_from_momentum(particles.px, particles.py, particles.pz),
        "phi": np.arctan2(particles.py, particles.px),
        "energy": particles.energy,
    }
    return _with(
        _table(columns),
        {
            "pdg": particles.pdg.astype(np.int32),
            "charge": particles.charge.astype(np.int32),
            "id": unique_id.astype(np.uint32),
        },
    )


def _table(columns: dict[str, npt.NDArray]) -> Table:
    """Make a table of one event in float32."""
    length = len(next(iter(columns.values())))
    return Table({n: v.astype(np.float32) for n, v in columns.items()}, np.array([0, length]))


def _with(table: Table, columns: dict[str, npt.NDArray]) -> Table:
    return Table(table.columns | columns, table.offsets)
