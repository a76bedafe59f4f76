"""Features, target particles and baseline candidates of Delphes events.

The target of a track is its particle. The target of a tower is the sum of its particles without a track.
docs/delphes.md lists the choices and the differences from the published files.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlpf.data.conversion import Chunk
from mlpf.data.delphes.losses import lost_particles
from mlpf.data.delphes.tables import RawDelphes, RowFinder, occurrence
from mlpf.data.events import Events, float32_table
from mlpf.data.flat_tables import BoolArray, FloatArray, IntArray, Table
from mlpf.physics.features import (
    DELPHES_ELEMTYPE_TOWER,
    DELPHES_ELEMTYPE_TRACK,
    DELPHES_TOWER_FEATURES,
    DELPHES_TRACK_FEATURES,
    PARTICLE_COLUMNS,
)
from mlpf.physics.kinematics import eta_from_momentum
from mlpf.physics.particles import (
    CHARGED_HADRON,
    ELECTRON,
    MUON,
    NEUTRAL_HADRON,
    NONE,
    PHOTON,
    class_from_pdg,
    is_invisible,
)
from mlpf.physics.schemas import SCHEMAS

DELPHES_TRUTH_VERSION = "delphes-1.1.0"
# Beyond, there are no tracks: a charged hadron cannot be told from a neutral one.
MAX_TRACK_ETA = 2.5
# Below this energy the baseline has no neutral hadrons, because of noise; the targets have none either.
MIN_NEUTRAL_HADRON_ENERGY = 9.0  # GeV
# Classes of a tower; of equal energies the first wins.
TOWER_CLASSES = np.array([NEUTRAL_HADRON, CHARGED_HADRON, PHOTON, ELECTRON])
_PDG_MUON, _PDG_ELECTRON = 13, 11

Rows = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GenTargets:
    """Targets of T tracks and N towers, and the element of each of P particles.

    Attributes:
        tracks, towers: [T, 7] and [N, 7] ``PARTICLE_COLUMNS``, zero where there is no particle.
        has_track: [P] True if a particle is the target of a track.
        tower_of: [P] tower whose sum contains the particle, -1 = none.
        soft: [N] True if the sum is no target, because it is a soft neutral hadron.
    """

    tracks: Rows
    towers: Rows
    has_track: BoolArray
    tower_of: IntArray
    soft: BoolArray


def prepare_chunk(raw: RawDelphes) -> Chunk:
    """Compute features, targets and losses of a chunk."""
    counters = Counter(raw.counters)
    with np.errstate(over="ignore", invalid="ignore"):  # events with numbers that overflow are skipped later
        gen = gen_targets(raw, counters)
        cand_tracks, cand_towers = candidate_targets(raw, counters)
        tables = {
            "track": float32_table(
                raw.tracks.offsets, X=track_features(raw), ygen=gen.tracks, ycand=cand_tracks
            ),
            "tower": float32_table(
                raw.towers.offsets, X=tower_features(raw), ygen=gen.towers, ycand=cand_towers
            ),
        }
        losses = lost_particles(raw, gen.has_track, gen.tower_of, gen.soft, gen.towers)
    number = Table.one_row_per_event({"event": raw.number})
    return Chunk(Events(tables, number, SCHEMAS["delphes"]), raw.bad, counters, losses)


def track_features(raw: RawDelphes) -> Rows:
    """Return [T, 12] ``DELPHES_TRACK_FEATURES``."""
    tracks = raw.tracks
    pdg = np.abs(_of_particle(raw.particles["pdg"], raw.track_particle))
    eta = tracks["eta"].astype(np.float64)
    return DELPHES_TRACK_FEATURES.stack(
        {
            "elemtype": np.full(len(tracks), DELPHES_ELEMTYPE_TRACK),
            "pt": tracks["pt"],
            "eta": eta,
            **_direction(tracks["phi"]),
            "p": tracks["pt"] * np.cosh(eta),
            "eta_outer": tracks["eta_outer"],
            **{f"{name}_outer": v for name, v in _direction(tracks["phi_outer"]).items()},
            "charge": tracks["charge"],
            "is_gen_muon": pdg == _PDG_MUON,
            "is_gen_electron": pdg == _PDG_ELECTRON,
        },
    )


def tower_features(raw: RawDelphes) -> Rows:
    """Return [N, 12] ``DELPHES_TOWER_FEATURES``."""
    towers = raw.towers
    names = ("et", "eta", "energy", "energy_em", "energy_had")
    return DELPHES_TOWER_FEATURES.stack(
        {
            "elemtype": np.full(len(towers), DELPHES_ELEMTYPE_TOWER),
            **{name: towers[name] for name in names},
            **_direction(towers["phi"]),
        },
    )


def gen_targets(raw: RawDelphes, counters: Counter[str]) -> GenTargets:
    """Put the particles of a chunk on its tracks and towers; unusual cases are added to ``counters``."""
    particle = raw.track_particle
    first = (particle >= 0) & (occurrence(particle) == 0)
    counters["tracks without particle"] += int((particle < 0).sum())
    counters["further tracks of a particle"] += int(((particle >= 0) & ~first).sum())
    chosen = particle[first]
    particles = {name: values[chosen] for name, values in raw.particles.columns.items()}
    tracks = np.zeros((len(particle), len(PARTICLE_COLUMNS)))
    tracks[first] = PARTICLE_COLUMNS.stack(
        {
            "cls": class_from_pdg(particles["pdg"], particles["charge"]),
            **_direction(particles["phi"]),
            **{name: particles[name] for name in ("charge", "pt", "eta", "energy")},
        },
    )
    has_track = np.zeros(len(raw.particles), dtype=bool)
    has_track[chosen] = True
    tower, particle = _tower_edges(raw, has_track, counters)
    tower_of = np.full(len(raw.particles), -1, dtype=np.int64)
    tower_of[particle] = tower
    towers, soft = _tower_targets(raw, tower, particle)
    counters["towers of a neutral hadron below 9 GeV"] += int(soft.sum())
    return GenTargets(tracks, towers, has_track, tower_of, soft)


def _tower_targets(raw: RawDelphes, tower: IntArray, particle: IntArray) -> tuple[Rows, BoolArray]:
    """Return the targets [N, 7] of towers, and [N] True for towers whose target would be too soft."""
    num = len(raw.towers)
    px, py, pz, energy = _momenta(raw, particle)
    charge = raw.particles["charge"][particle]
    # Nuclei, the only particles of other charges, are rare. They count as neutral, as in the published files.
    cls = class_from_pdg(raw.particles["pdg"][particle], np.where(np.abs(charge) == 1, charge, 0))
    cls[cls == MUON] = CHARGED_HADRON  # without a track, the deposit of a muon looks like a hadron
    species = np.argmax(cls[:, None] == TOWER_CLASSES, axis=1)
    size = len(TOWER_CLASSES)
    shares = np.bincount(tower * size + species, energy, minlength=num * size).reshape(num, size)
    winner = np.argmax(shares, axis=1)
    sums = [np.bincount(tower, v, num).astype(np.float64) for v in (px, py, pz, energy)]
    charge = _leading_charge(raw, tower, particle, energy, species == winner[tower])

    filled = np.bincount(tower, minlength=num) > 0
    eta = eta_from_momentum(*sums[:3])
    cls = TOWER_CLASSES[winner]
    cls[(cls == CHARGED_HADRON) & (np.abs(eta) > MAX_TRACK_ETA)] = NEUTRAL_HADRON
    soft = filled & (cls == NEUTRAL_HADRON) & (sums[3] < MIN_NEUTRAL_HADRON_ENERGY)
    rows = PARTICLE_COLUMNS.stack(
        {
            "cls": cls,
            "charge": np.where(np.isin(cls, (CHARGED_HADRON, ELECTRON)), charge, 0.0),
            "pt": np.hypot(sums[0], sums[1]),
            "eta": eta,
            **_direction(np.arctan2(sums[1], sums[0])),
            "energy": sums[3],
        },
    )
    rows[~filled | soft] = 0.0
    return rows, soft


def _tower_edges(raw: RawDelphes, has_track: BoolArray, counters: Counter[str]) -> tuple[IntArray, IntArray]:
    """Return pairs of tower and visible particle without track.

    A particle of several towers counts in the most energetic one.
    """
    tower, particle = raw.tower_particles.source, raw.tower_particles.target
    visible = ~is_invisible(raw.particles["pdg"])
    keep = (visible & ~has_track)[particle]
    tower, particle = tower[keep], particle[keep]
    if not (np.bincount(particle) > 1).any():
        return tower, particle
    order = np.argsort(-raw.towers["energy"][tower], kind="stable")
    tower, particle = tower[order], particle[order]
    first = occurrence(particle) == 0
    counters["further towers of a particle"] += int((~first).sum())
    return tower[first], particle[first]


def _leading_charge(
    raw: RawDelphes, tower: IntArray, particle: IntArray, energy: FloatArray, of_winner: BoolArray
) -> FloatArray:
    """Return [N] the charge of the most energetic particle of the species of the tower."""
    edges = np.flatnonzero(of_winner)
    # Ascending energy: the last assigned value of a tower stays.
    edges = edges[np.argsort(energy[edges], kind="stable")]
    charge = np.zeros(len(raw.towers))
    charge[tower[edges]] = raw.particles["charge"][particle[edges]]
    return charge


def candidate_targets(raw: RawDelphes, counters: Counter[str]) -> tuple[Rows, Rows]:
    """Return [T, 7] and [N, 7] ``PARTICLE_COLUMNS``: the baseline candidate of each track and tower."""
    return _charged_candidates(raw, counters), _neutral_candidates(raw, counters)


def _charged_candidates(raw: RawDelphes, counters: Counter[str]) -> Rows:
    """Give the k-th candidate of a particle to its k-th track."""
    ranks = [occurrence(particle) for particle in (raw.charged_particle, raw.track_particle)]
    base = 1 + max((int(rank.max()) for rank in ranks if len(rank)), default=0)
    keys = raw.charged_particle * base + ranks[0]
    candidate = RowFinder(keys).rows(raw.track_particle * base + ranks[1])
    candidate[raw.track_particle < 0] = -1
    counters["charged candidates without track"] += len(keys) - len(np.unique(candidate[candidate >= 0]))
    found = candidate >= 0
    chosen = {name: values[candidate[found]] for name, values in raw.charged.columns.items()}
    eta = chosen["eta"].astype(np.float64)
    rows = np.zeros((len(candidate), len(PARTICLE_COLUMNS)))
    rows[found] = PARTICLE_COLUMNS.stack(
        {
            "cls": chosen["cls"],
            "charge": chosen["charge"],
            "pt": chosen["pt"],
            "eta": eta,
            **_direction(chosen["phi"]),
            "energy": chosen["pt"] * np.cosh(eta),
        },
    )
    return rows


def _neutral_candidates(raw: RawDelphes, counters: Counter[str]) -> Rows:
    """Sum the candidates with exactly the direction of a tower; the more energetic one decides the class."""
    num = len(raw.towers)
    of_towers, of_candidates = _direction_keys(raw)
    tower = RowFinder(of_towers).rows(of_candidates)
    counters["neutral candidates without tower"] += int((tower < 0).sum())
    found = np.flatnonzero(tower >= 0)
    energy = raw.neutral["energy"].astype(np.float64)
    total = np.bincount(tower[found], energy[found], minlength=num)
    filled = np.bincount(tower[found], minlength=num) > 0
    found = found[np.argsort(energy[found], kind="stable")]
    cls = np.full(num, NONE)
    cls[tower[found]] = raw.neutral["cls"][found]
    eta = raw.towers["eta"].astype(np.float64)
    rows = PARTICLE_COLUMNS.stack(
        {
            "cls": cls,
            "pt": total / np.cosh(eta),
            "eta": eta,
            **_direction(raw.towers["phi"]),
            "energy": total,
        },
    )
    rows[~filled] = 0.0
    return rows


def _direction_keys(raw: RawDelphes) -> tuple[IntArray, IntArray]:
    """Return integers [N] of towers and [C] of neutral candidates, equal if event, eta and phi are."""
    bits = []
    for table in (raw.towers, raw.neutral):
        # Adding zero turns -0 into 0, which has other bits.
        eta, phi = (table[name].astype(np.float32) + np.float32(0) for name in ("eta", "phi"))
        bits.append(eta.view(np.uint32).astype(np.uint64) << np.uint64(32) | phi.view(np.uint32))
    values, code = np.unique(np.concatenate(bits), return_inverse=True)
    event = np.concatenate([raw.towers.event, raw.neutral.event])
    keys = event * len(values) + code
    return keys[: len(raw.towers)], keys[len(raw.towers) :]


def _momenta(raw: RawDelphes, particle: IntArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return px, py, pz, energy of the particles at rows [n]; without pt a particle flies along the beam."""
    pt, eta, phi, energy = (
        raw.particles[name][particle].astype(np.float64) for name in ("pt", "eta", "phi", "energy")
    )
    pz = np.where(pt > 0, pt * np.sinh(eta), np.sign(eta) * energy)
    return pt * np.cos(phi), pt * np.sin(phi), pz, energy


def _direction(phi: npt.NDArray) -> dict[str, FloatArray]:
    phi = phi.astype(np.float64)
    return {"sin_phi": np.sin(phi), "cos_phi": np.cos(phi)}


def _of_particle(values: npt.NDArray, row: IntArray) -> npt.NDArray:
    """Return the value of each row, 0 where the row is -1."""
    return np.where(row >= 0, values[row], 0) if len(values) else np.zeros(len(row), dtype=values.dtype)
