"""Jets of simulated events: generator, baseline, perfect and calorimeter-only particle lists."""

import numpy as np

from mlpf.config.detector import CLIC
from mlpf.data.flat_tables import Table, offsets_from_counts
from mlpf.physics.jets import cluster_jets, match_jets
from mlpf.physics.kinematics import eta_from_momentum
from mlpf.physics.particles import is_invisible


def gen_momenta(event):
    """Visible generator particles, [P, 4] (px, py, pz, E)."""
    p = event.particles
    return np.stack((p.px, p.py, p.pz, p.energy), axis=1)[~is_invisible(p.pdg)]


def baseline_momenta(event):
    """Candidates, [C, 4]."""
    c = event.candidates
    return np.stack((c.px, c.py, c.pz, c.energy), axis=1)


def calorimeter_momenta(event):
    """Clusters as massless particles, [K, 4]."""
    c = event.clusters
    direction = np.stack((c.x, c.y, c.z), axis=1)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return np.concatenate((direction, np.ones((len(c), 1))), axis=1) * c.energy[:, None]


def perfect_momenta(event, bending):
    """Each particle measured alone: its track if it has one, else its own hits at their centroid, [R, 4]."""
    p, tracks, hits = event.particles, event.tracks, event.hits
    links = tracks.links
    own = np.full(len(p), -1)
    good = np.flatnonzero(links.weight > 0.55)
    own[links.particle[good]] = links.source[good]
    tracked = own >= 0
    state = tracks.at_ip
    pt = bending / np.abs(state.omega)
    momentum = np.stack((pt * np.cos(state.phi), pt * np.sin(state.phi), pt * state.tan_lambda), axis=1)
    charged = momentum[own[tracked]]
    energy = np.sqrt((charged**2).sum(axis=1) + p.mass[tracked] ** 2)

    share = hits.links
    electromagnetic = np.isin(np.abs(p.pdg), (11, 22))
    in_ecal = hits.collection[share.source] < 3
    scale = np.where(in_ecal & ~electromagnetic[share.particle], 1 / CLIC.ecal_hadron_response, 1.0)
    weight = share.weight * scale
    total = np.bincount(share.particle, weight, len(p))
    position = np.stack(
        [np.bincount(share.particle, weight * r[share.source], len(p)) for r in (hits.x, hits.y, hits.z)],
        axis=1,
    )
    neutral = ~tracked & (total > 0.05)
    direction = position[neutral] / np.linalg.norm(position[neutral], axis=1, keepdims=True)
    return np.concatenate(
        (
            np.column_stack((charged, energy)),
            np.column_stack((direction * total[neutral, None], total[neutral])),
        )
    )


def jets_of(lists):
    """Cluster one [n, 4] array per event."""
    px, py, pz, energy = np.concatenate(lists).T
    momenta = np.hypot(px, py), eta_from_momentum(px, py, pz), np.arctan2(py, px), energy
    counts, columns = cluster_jets(np.array([len(a) for a in lists]), *momenta)
    return Table(columns, offsets_from_counts(counts))


def response(gen, reco):
    """Return (median, IQR / median, matched fraction of gen jets) of the jet pt ratio."""
    i, j = match_jets(gen, reco)
    ratio = reco["pt"][j] / gen["pt"][i]
    low, median, high = np.percentile(ratio, (25, 50, 75))
    return median, (high - low) / median, len(i) / len(gen)
