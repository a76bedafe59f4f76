"""Input of the rule-based particle flow: track-cluster distances, shapes, muon votes."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlpf.simulation.clic.calorimeter import muon_layer_crossings
from mlpf.simulation.clic.clustering import HCAL, MUON, SYSTEM_OF_COLLECTION, nearest_within
from mlpf.simulation.clic.detector import Detector
from mlpf.simulation.clic.event_data import Clusters, FloatArray, Hits, IntArray, Tracks
from mlpf.simulation.clic.helix import Helix


@dataclass(frozen=True)
class MatchingSettings:
    """Tolerances of the matching, mm; see toy detector, section 7.

    Attributes:
        ecal_tolerance, hcal_tolerance: a hit this far from a track's line is at distance 1.
        before_face, behind_face: range along the line, from the face, in which hits are compared.
        muon_tolerance: a muon-system hit votes for the nearest track within this.
    """

    ecal_tolerance: float = 20.0
    hcal_tolerance: float = 100.0
    before_face: float = 60.0
    behind_face: float = 400.0
    muon_tolerance: float = 250.0


SETTINGS = MatchingSettings()


@dataclass(frozen=True)
class TrackLines:
    """Straight continuation of T tracks behind the calorimeter face.

    Attributes:
        point: [T, 3] on the face, mm.
        direction: [T, 3] unit tangent there.
        reaches: [T] whether the track reaches the face at all.
    """

    point: FloatArray
    direction: FloatArray
    reaches: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Shapes:
    """Energies (GeV) and shapes (mm) of K clusters, arrays [K].

    Attributes:
        em_energy: plain sum, right for photons and electrons.
        had_energy: hadronic scale, ECAL energy divided by its e/h factor.
        ecal_share: part of the plain sum in the ECAL.
        depth: energy-weighted depth behind the face.
        width: energy-weighted rms distance from the line through origin and centroid.
        photon_like: looks like an electromagnetic shower.
    """

    em_energy: FloatArray
    had_energy: FloatArray
    ecal_share: FloatArray
    depth: FloatArray
    width: FloatArray
    photon_like: npt.NDArray[np.bool_]


def track_lines(tracks: Tracks, detector: Detector) -> TrackLines:
    """Build the tangents of the tracks' calorimeter states."""
    state = tracks.at_calorimeter
    sin_phi, cos_phi = np.sin(state.phi), np.cos(state.phi)
    point = np.stack(
        (
            state.reference_x - state.d0 * sin_phi,
            state.reference_y + state.d0 * cos_phi,
            state.reference_z + state.z0,
        ),
        axis=1,
    )
    direction = np.stack((cos_phi, sin_phi, state.tan_lambda), axis=1)
    direction /= np.sqrt(1 + state.tan_lambda**2)[:, None]
    # Curling tracks keep a state inside the tracker.
    reaches = detector.depth(point[:, 0], point[:, 1], point[:, 2]) > -1.0
    return TrackLines(point, direction, reaches)


def cluster_shapes(hits: Hits, clusters: Clusters, detector: Detector) -> Shapes:
    """Compute the shapes that distinguish showers."""
    member = clusters.hit_cluster >= 0
    of, energy = clusters.hit_cluster[member], hits.energy[member]
    x, y, z = hits.x[member], hits.y[member], hits.z[member]
    norm = np.maximum(np.sqrt(clusters.x**2 + clusters.y**2 + clusters.z**2), 1e-9)
    along = (x * clusters.x[of] + y * clusters.y[of] + z * clusters.z[of]) / norm[of]
    transverse2 = np.maximum(x**2 + y**2 + z**2 - along**2, 0.0)
    num = len(clusters)
    ecal_share = clusters.energy_ecal / clusters.energy
    depth = np.bincount(of, energy * detector.depth(x, y, z), num) / clusters.energy
    width = np.sqrt(np.bincount(of, energy * transverse2, num) / clusters.energy)
    return Shapes(
        em_energy=clusters.energy,
        had_energy=clusters.energy_ecal / detector.ecal_hadron_response + clusters.energy_hcal,
        ecal_share=ecal_share,
        depth=depth,
        width=width,
        photon_like=(ecal_share > 0.9) & (width < 30) & (depth < 130) & (clusters.num_hits >= 3),
    )


def hit_distance(
    lines: TrackLines, hits: Hits, clusters: Clusters, settings: MatchingSettings = SETTINGS
) -> FloatArray:
    """Distance of each cluster's nearest hit from each track's line, in units of the tolerance.

    Returns:
        [T, K]; infinite without a hit near the face, or if the track does not reach it.
    """
    num_tracks, num_clusters = len(lines.reaches), len(clusters)
    result = np.full((num_tracks, num_clusters), np.inf)
    system = SYSTEM_OF_COLLECTION[hits.collection]
    used = np.flatnonzero((clusters.hit_cluster >= 0) & (system != MUON))
    reaching = np.flatnonzero(lines.reaches)
    if not (used.size and reaching.size):
        return result
    used = used[np.argsort(clusters.hit_cluster[used], kind="stable")]
    position = np.stack((hits.x[used], hits.y[used], hits.z[used]), axis=1)
    point, direction = lines.point[reaching], lines.direction[reaching]
    # |h - p|^2 and (h - p).u without a [T, H, 3] array, and without BLAS, whose threads cost more here.
    along = _dot(direction, position) - (point * direction).sum(axis=1)[:, None]
    squared = _dot(-2.0 * point, position)
    squared += (position**2).sum(axis=1)
    squared += (point**2).sum(axis=1)[:, None]
    squared -= along**2
    tolerance = np.where(system[used] == HCAL, settings.hcal_tolerance, settings.ecal_tolerance)
    squared /= tolerance**2
    squared[(along < -settings.before_face) | (along > settings.behind_face)] = np.inf
    found, start = np.unique(clusters.hit_cluster[used], return_index=True)
    nearest = np.minimum.reduceat(squared, start, axis=1)
    result[np.ix_(reaching, found)] = np.sqrt(np.maximum(nearest, 0.0))
    return result


def _dot(a: FloatArray, b: FloatArray) -> FloatArray:
    """All scalar products of a [T, 3] and b [H, 3], [T, H]."""
    # einsum over a contiguous last axis: several times faster than outer products.
    return np.einsum("tc,ch->th", a, np.ascontiguousarray(b.T))


def centroid_distance(
    lines: TrackLines, clusters: Clusters, settings: MatchingSettings = SETTINGS
) -> FloatArray:
    """Distance [T, K] in mm of each centroid from each track's line; inf before the face or off it."""
    centroid = np.stack((clusters.x, clusters.y, clusters.z), axis=1)
    along = _dot(lines.direction, centroid) - (lines.point * lines.direction).sum(axis=1)[:, None]
    squared = _dot(-2.0 * lines.point, centroid) - along**2
    squared += (centroid**2).sum(axis=1)
    squared += (lines.point**2).sum(axis=1)[:, None]
    distance = np.sqrt(np.maximum(squared, 0.0))
    distance[along < -settings.before_face] = np.inf
    distance[~lines.reaches] = np.inf
    return distance


def muon_votes(
    tracks: Tracks, hits: Hits, detector: Detector, settings: MatchingSettings = SETTINGS
) -> IntArray:
    """Count, for each track [T], the muon-system hits to which it is the nearest track."""
    votes = np.zeros(len(tracks), dtype=np.int64)
    muon = np.flatnonzero(SYSTEM_OF_COLLECTION[hits.collection] == MUON)
    reaching = np.flatnonzero(track_lines(tracks, detector).reaches)
    if not (muon.size and reaching.size):
        return votes
    helix = Helix.from_states(tracks.at_calorimeter).take(reaching)
    owner, _, _, *crossing, _ = muon_layer_crossings(helix, detector)
    if not owner.size:
        return votes
    position = np.stack((hits.x[muon], hits.y[muon], hits.z[muon]), axis=1)
    _, nearest = nearest_within(np.stack(crossing, axis=1), position, settings.muon_tolerance)
    np.add.at(votes, reaching[owner[nearest]], 1)
    return votes
