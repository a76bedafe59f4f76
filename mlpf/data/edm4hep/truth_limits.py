"""Particle lists of generator and limits: best choice of elements, best choice of hits."""

import numpy as np
import numpy.typing as npt

from mlpf.data.edm4hep.features import sum_by_cluster, track_momentum
from mlpf.data.edm4hep.greedy_assignment import leading_rows
from mlpf.data.edm4hep.raw_events import SYSTEM_ECAL, RawEvents
from mlpf.data.edm4hep.truth import MIN_TRACK_WEIGHT_VISIBLE, TruthLinks, target_rows, track_claims
from mlpf.data.flat_tables import FloatArray, IntArray
from mlpf.physics.features import ELEMTYPE_CLUSTER, ELEMTYPE_TRACK
from mlpf.physics.particles import CLASSES, ELECTRON, PHOTON, class_from_pdg, class_on_element

MIN_PERFECT_ENERGY_GEV = 0.05
MIN_NEUTRAL_FRACTION = 0.5
_ELECTROMAGNETIC = (PHOTON, ELECTRON)
_MASSES = np.array([c.mass_gev for c in CLASSES])

# Rows of ``PARTICLE_COLUMNS`` [n, 7] and the event of each [n], sorted by event.
Rows = tuple[npt.NDArray[np.float64], IntArray]


def gen_particles(raw: RawEvents, links: TruthLinks) -> Rows:
    """Return all stable particles except neutrinos, also those outside acceptance."""
    p = np.flatnonzero(links.stable)
    particles = raw.particles
    charge = particles["charge"].astype(np.float64)[p]
    px, py, pz = (particles[n].astype(np.float64)[p] for n in ("px", "py", "pz"))
    rows = target_rows(class_from_pdg(particles["pdg"][p], charge), charge, px, py, pz, links.energy[p])
    return rows, particles.event[p]


def oracle_particles(raw: RawEvents, links: TruthLinks) -> Rows:
    """Return the particles of an ideal classifier of elements.

    Every particle with a track appears once, with the momentum of its best track. A cluster is neutral if
    more than half of its linked energy comes from particles without track; it is then kept whole, as the
    class of the particle with most of it. Other clusters are absorbed.
    """
    charge = raw.particles["charge"].astype(np.float64)
    cls = class_from_pdg(raw.particles["pdg"], charge)
    track_of = _best_tracks(links, charge, 0.0)
    charged = _at_track_momentum(raw, np.flatnonzero(track_of >= 0), track_of, cls, charge)

    deposits = links.cluster_energy.tocoo()
    neutral = track_of[deposits.row] < 0
    num = len(raw.clusters)
    linked = np.bincount(deposits.col, deposits.data, minlength=num)
    from_neutral = np.bincount(deposits.col, deposits.data * neutral, minlength=num)
    kept = np.flatnonzero((linked > 0) & (from_neutral > MIN_NEUTRAL_FRACTION * linked))
    leading = leading_rows(deposits.row[neutral], deposits.col[neutral], deposits.data[neutral], num)[kept]
    cluster_cls = class_on_element(cls[leading], ELEMTYPE_CLUSTER)

    ecal = sum_by_cluster(raw, np.where(raw.hits["system"] == SYSTEM_ECAL, raw.hits["energy"], 0.0))[kept]
    rest = sum_by_cluster(raw, np.where(raw.hits["system"] == SYSTEM_ECAL, 0.0, raw.hits["energy"]))[kept]
    total = raw.clusters["energy"].astype(np.float64)[kept]
    energy = np.where(cluster_cls == PHOTON, total, ecal / raw.detector.ecal_hadron_response + rest)
    position = [raw.clusters[axis].astype(np.float64)[kept] for axis in "xyz"]
    rows = _along(position, energy, cluster_cls, np.zeros(len(kept)))
    return _merge(charged, (rows, raw.clusters.event[kept]))


def perfect_particles(raw: RawEvents, links: TruthLinks) -> Rows:
    """Return the particles of an ideal assignment of every hit.

    A charged particle with a whole track has its momentum; every other particle has the energy of its own
    hits, on the electromagnetic or hadronic scale by its true class, at their centroid.
    """
    charge = raw.particles["charge"].astype(np.float64)
    cls = class_from_pdg(raw.particles["pdg"], charge)
    track_of = _best_tracks(links, charge, MIN_TRACK_WEIGHT_VISIBLE)
    charged = _at_track_momentum(raw, np.flatnonzero(track_of >= 0), track_of, cls, charge)

    in_ecal = (raw.hits["system"] == SYSTEM_ECAL).astype(np.float64)
    total = links.hit_energy @ np.ones(len(raw.hits))
    ecal = links.hit_energy @ in_ecal
    hadronic = ecal / raw.detector.ecal_hadron_response + (total - ecal)
    energy = np.where(np.isin(cls, _ELECTROMAGNETIC), total, hadronic)
    p = np.flatnonzero((track_of < 0) & (energy > MIN_PERFECT_ENERGY_GEV))
    centroid = [(links.hit_energy @ raw.hits[axis])[p] / total[p] for axis in "xyz"]
    rows = _along(centroid, energy[p], cls[p], charge[p])
    return _merge(charged, (rows, raw.particles.event[p]))


def _best_tracks(links: TruthLinks, charge: FloatArray, min_weight: float) -> IntArray:
    """Return the track of each particle [P]: of those it made most of, that with the largest weight."""
    claims = track_claims(links, charge)
    num_particles, num_tracks = claims.shape
    # A track goes to one particle only, the one with the largest weight.
    maker = leading_rows(claims.row, claims.col, claims.data, num_tracks)
    keep = (maker[claims.col] == claims.row) & (claims.data >= min_weight)
    return leading_rows(claims.col[keep], claims.row[keep], claims.data[keep], num_particles)


def _at_track_momentum(
    raw: RawEvents, p: IntArray, track_of: IntArray, cls: IntArray, charge: FloatArray
) -> Rows:
    track = track_of[p]
    px, py, pz = (component[track] for component in track_momentum(raw))
    usable = np.isfinite(px) & np.isfinite(py) & np.isfinite(pz)
    p, px, py, pz = p[usable], px[usable], py[usable], pz[usable]
    on_track = class_on_element(cls[p], ELEMTYPE_TRACK)
    energy = np.sqrt(px**2 + py**2 + pz**2 + _MASSES[on_track] ** 2)
    return target_rows(on_track, charge[p], px, py, pz, energy), raw.particles.event[p]


def _along(
    position: list[FloatArray], energy: FloatArray, cls: IntArray, charge: FloatArray
) -> npt.NDArray[np.float64]:
    """Massless four-momenta from the origin towards ``position``: a calorimeter measures no mass."""
    norm = np.sqrt(sum(x**2 for x in position))
    scale = np.divide(energy, norm, out=np.zeros_like(energy), where=norm > 0)
    # An infinite position has no direction; 0 would look like one.
    scale[~np.isfinite(norm)] = np.nan
    px, py, pz = (x * scale for x in position)
    return target_rows(cls, charge, px, py, pz, energy)


def _merge(first: Rows, second: Rows) -> Rows:
    rows, event = np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]])
    order = np.argsort(event, kind="stable")
    return rows[order], event[order]
