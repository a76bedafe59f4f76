"""Calorimeter clustering by density peaks on a k-d tree, one event at a time.

Method: Rodriguez and Laio, Science 344, 1492 (2014), in the form of CLUE (Rovere et al., 2020) for
calorimeters: a hit of high local energy density that has no denser neighbour nearby seeds a cluster, every
other hit follows its nearest denser neighbour.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from mlpf.simulation.clic.detector import Detector
from mlpf.simulation.clic.event_data import HIT_COLLECTIONS, Clusters, FloatArray, Hits, IntArray

ECAL, HCAL, MUON = 0, 1, 2

# System of each collection of HIT_COLLECTIONS.
SYSTEM_OF_COLLECTION = np.array([{"E": ECAL, "H": HCAL, "M": MUON}[name[0]] for name in HIT_COLLECTIONS])


@dataclass(frozen=True)
class ClusteringSettings:
    """Distances (mm), energies (GeV) and angles (rad) of the clustering; see toy detector, section 5.

    Attributes:
        depth_scale: compresses the depth behind the calorimeter face; larger breaks showers along their axis.
        hcal_scale: shrinks HCAL coordinates, because HCAL showers are wider and the two systems must not mix.
        critical_distance: a hit is a seed if no denser hit is closer than this.
        search_distance: largest distance of hits in the density, and of the denser neighbour.
        seed_density: smallest density of a seed.
        link_distance: HCAL hits vote for the ECAL cluster of the nearest ECAL hit within this.
        link_hcal_depth: deepest HCAL hits that vote.
        link_ecal_depth: ECAL hits in front of this depth receive no votes.
        min_energy, min_hits: smaller clusters are dissolved.
        adopt_distance: loose hits join the nearest clustered hit within this.
        muon_angle: muon-system hits join the cluster of the nearest deep HCAL hit within this angle.
        muon_link_depth: smallest depth of a deep HCAL hit.
    """

    depth_scale: float = 0.15
    hcal_scale: float = 0.40
    critical_distance: float = 18.0
    search_distance: float = 40.0
    seed_density: float = 0.03
    link_distance: float = 69.0
    link_hcal_depth: float = 490.0
    link_ecal_depth: float = 60.0
    min_energy: float = 0.10
    min_hits: int = 2
    adopt_distance: float = 80.0
    muon_angle: float = 0.2
    muon_link_depth: float = 900.0


SETTINGS = ClusteringSettings()


@dataclass(frozen=True)
class _Points:
    """Points to cluster, [n]: calorimeter hits, or voxels of hits.

    Attributes:
        projected: [n, 3] positions projected onto the face, mm.
        depth: behind the face, mm.
        energy: GeV.
        num_hits: hits in each point.
        in_hcal: in the HCAL, else in the ECAL.
    """

    projected: FloatArray
    depth: FloatArray
    energy: FloatArray
    num_hits: IntArray
    in_hcal: npt.NDArray[np.bool_]

    def metric(self, settings: ClusteringSettings) -> FloatArray:
        """Positions [n, 3] for distances, mm."""
        return self.projected * np.where(self.in_hcal, settings.hcal_scale, 1.0)[:, None]


def cluster_hits(hits: Hits, detector: Detector, settings: ClusteringSettings = SETTINGS) -> Clusters:
    """Group the calorimeter hits of one event into clusters.

    Args:
        hits: H hits of one event.
        detector: geometry.
        settings: distances and thresholds.

    Returns:
        K clusters, numbered by the system and position of their seed hit; ``hit_cluster`` is -1 for hits
        outside of clusters.
    """
    system = SYSTEM_OF_COLLECTION[hits.collection]
    label = np.full(len(hits), -1)
    calo = np.flatnonzero(system != MUON)
    if calo.size:
        position = np.stack((hits.x[calo], hits.y[calo], hits.z[calo]), axis=1)
        depth = detector.depth(position[:, 0], position[:, 1], position[:, 2])
        points = _Points(
            projected=project(position, detector, settings),
            depth=depth,
            energy=hits.energy[calo],
            num_hits=np.ones(len(calo), dtype=np.int64),
            in_hcal=system[calo] == HCAL,
        )
        if detector.granularity.voxel is None:
            label[calo] = _cluster_points(points, settings)
        else:
            voxels, voxel_of = _merge(points, detector.granularity.voxel, settings)
            label[calo] = _cluster_points(voxels, settings)[voxel_of]
        deep = calo[points.in_hcal & (depth > settings.muon_link_depth)]
        _attach_muon_hits(label, hits, system, deep, settings)
    clustered = label >= 0
    label[clustered] = np.unique(label[clustered], return_inverse=True)[1]
    return _describe(label, hits, system)


def project(position: FloatArray, detector: Detector, settings: ClusteringSettings = SETTINGS) -> FloatArray:
    """Project positions onto the calorimeter face, keeping a compressed depth.

    A position at distance s + d' from the origin, s being the face's distance in that direction, becomes
    (s - depth_scale d') along the same direction: transverse distances count in mm at the face.

    Args:
        position: [H, 3] in mm.
        detector: geometry.
        settings: gives ``depth_scale``.

    Returns:
        [H, 3] in mm.
    """
    distance = np.linalg.norm(position, axis=1)
    to_face = detector.face_distance(position[:, 0], position[:, 1], position[:, 2])
    return position * ((to_face - settings.depth_scale * (distance - to_face)) / distance)[:, None]


def nearest_within(points: FloatArray, queries: FloatArray, max_distance: float) -> tuple[IntArray, IntArray]:
    """Find the nearest of ``points`` [n, 3] to each of ``queries`` [m, 3], both not empty.

    Returns:
        Indices of the queries that have a point within ``max_distance``, and the indices of those points.
    """
    distance, index = cKDTree(points).query(queries, distance_upper_bound=max_distance)
    near = np.flatnonzero(np.isfinite(distance))
    return near, np.asarray(index, dtype=np.int64)[near]


def _merge(points: _Points, side: float, settings: ClusteringSettings) -> tuple[_Points, IntArray]:
    """Merge points [n] that share a cube of the metric; return the cubes [v] and which one each is in [n]."""
    cube = np.floor(points.metric(settings) / side).astype(np.int64)
    key = np.column_stack((points.in_hcal, cube))
    order = np.lexsort(key.T[::-1])
    starts = np.flatnonzero(np.append(True, np.any(np.diff(key[order], axis=0) != 0, axis=1)))
    sizes = np.diff(np.append(starts, len(key)))
    voxel_of = np.empty(len(key), dtype=np.int64)
    voxel_of[order] = np.repeat(np.arange(len(starts)), sizes)
    energy = np.bincount(voxel_of, points.energy).astype(np.float64)

    def mean(values: FloatArray) -> FloatArray:
        return np.bincount(voxel_of, points.energy * values) / energy

    projected = np.stack([mean(column) for column in points.projected.T], axis=1)
    return _Points(projected, mean(points.depth), energy, sizes, points.in_hcal[order[starts]]), voxel_of


def _cluster_points(points: _Points, settings: ClusteringSettings) -> IntArray:
    """Return [n] the label point of the cluster of each point, -1 for points outside of all clusters."""
    metric = points.metric(settings)
    label = _density_peaks(metric, points.energy, settings)
    label = _link_hcal_to_ecal(label, points.projected, points.depth, points.in_hcal, points.energy, settings)
    return _adopt_loose_points(label, metric, points, settings)


def _density_peaks(metric: FloatArray, energy: FloatArray, settings: ClusteringSettings) -> IntArray:
    """Return [H] the index of the seed hit that each hit belongs to, -1 for outliers."""
    pairs = cKDTree(metric).query_pairs(settings.search_distance, output_type="ndarray")
    first, second = np.ascontiguousarray(pairs.T)
    squared = np.zeros(len(pairs))
    for column in np.ascontiguousarray(metric.T):  # three passes are faster than one over [pairs, 3]
        squared += (column[first] - column[second]) ** 2
    distance = np.sqrt(squared)
    kernel = np.exp(squared * (-0.5 / (0.6 * settings.critical_distance) ** 2))
    num_hits = len(energy)
    density = energy + np.bincount(first, energy[second] * kernel, num_hits)
    density += np.bincount(second, energy[first] * kernel, num_hits)

    # Rank by density, ties by index: a strict order, so that pointers cannot form a cycle.
    rank = np.empty(num_hits, dtype=np.int64)
    rank[np.argsort(-density, kind="stable")] = np.arange(num_hits)
    first_is_denser = rank[first] < rank[second]
    lower, higher = np.where(first_is_denser, (second, first), (first, second))
    to_denser = np.full(num_hits, np.inf)
    np.minimum.at(to_denser, lower, distance)
    # Among equally near neighbours the densest: the last assignment to a hit stays.
    closest = distance == to_denser[lower]
    lower, higher = lower[closest], higher[closest]
    order = np.argsort(-rank[higher])
    parent = np.arange(num_hits)
    parent[lower[order]] = higher[order]

    seed = (to_denser > settings.critical_distance) & (density > settings.seed_density)
    parent[seed] = np.flatnonzero(seed)
    while not np.array_equal(grandparent := parent[parent], parent):
        parent = grandparent
    return np.where(seed[parent], parent, -1)


def _link_hcal_to_ecal(
    label: IntArray,
    projected: FloatArray,
    depth: FloatArray,
    in_hcal: npt.NDArray[np.bool_],
    energy: FloatArray,
    settings: ClusteringSettings,
) -> IntArray:
    """Merge each HCAL cluster into the ECAL cluster in front of it; return the new labels [H]."""
    clustered = label >= 0
    targets = np.flatnonzero(clustered & ~in_hcal & (depth > settings.link_ecal_depth))
    voters = np.flatnonzero(clustered & in_hcal & (depth < settings.link_hcal_depth))
    if not (targets.size and voters.size):
        return label
    near, nearest = nearest_within(projected[targets], projected[voters], settings.link_distance)
    if not near.size:
        return label
    voters, chosen = voters[near], targets[nearest]
    ballots, which = np.unique(np.stack((label[voters], label[chosen])), axis=1, return_inverse=True)
    votes = np.bincount(which.ravel(), energy[voters])
    order = np.argsort(votes, kind="stable")
    new_label = np.arange(len(label))
    new_label[ballots[0, order]] = ballots[1, order]
    return np.where(clustered, new_label[label], -1)


def _adopt_loose_points(
    label: IntArray, metric: FloatArray, points: _Points, settings: ClusteringSettings
) -> IntArray:
    """Dissolve small clusters; add loose points to the nearest remaining one. Returns labels [n]."""
    clustered = label >= 0
    num_hits = np.bincount(label[clustered], points.num_hits[clustered], minlength=len(label))
    total = np.bincount(label[clustered], points.energy[clustered], minlength=len(label))
    survives = clustered & (num_hits[label] >= settings.min_hits) & (total[label] >= settings.min_energy)
    result = np.where(survives, label, -1)
    kept, loose = np.flatnonzero(survives), np.flatnonzero(~survives)
    if kept.size and loose.size:
        near, nearest = nearest_within(metric[kept], metric[loose], settings.adopt_distance)
        result[loose[near]] = label[kept[nearest]]
    return result


def _attach_muon_hits(
    label: IntArray, hits: Hits, system: IntArray, deep: IntArray, settings: ClusteringSettings
) -> None:
    """Add muon-system hits to the cluster of the deep HCAL hit nearest in angle; changes ``label`` [H]."""
    muon = np.flatnonzero(system == MUON)
    deep = deep[label[deep] >= 0]
    if not (muon.size and deep.size):
        return
    position = np.stack((hits.x, hits.y, hits.z), axis=1)
    direction = position / np.linalg.norm(position, axis=1, keepdims=True)
    chord = 2 * np.sin(settings.muon_angle / 2)
    near, nearest = nearest_within(direction[deep], direction[muon], chord)
    label[muon[near]] = label[deep[nearest]]


def _describe(label: IntArray, hits: Hits, system: IntArray) -> Clusters:
    """Sum the hits of each label 0..K-1; the direction is that of the energy-weighted centroid."""
    num_clusters = int(label.max(initial=-1)) + 1
    member = label >= 0
    of, energy = label[member], hits.energy[member]

    def total(weight: FloatArray) -> FloatArray:
        return np.bincount(of, weight, num_clusters).astype(np.float64)

    summed = total(energy)
    x, y, z = (total(energy * coordinate[member]) / summed for coordinate in (hits.x, hits.y, hits.z))
    return Clusters(
        hit_cluster=label,
        energy=summed,
        x=x,
        y=y,
        z=z,
        i_theta=np.arctan2(np.hypot(x, y), z),
        phi=np.arctan2(y, x),
        energy_ecal=total(energy * (system[member] == ECAL)),
        energy_hcal=total(energy * (system[member] == HCAL)),
        energy_other=total(energy * (system[member] == MUON)),
        num_hits=np.bincount(of, minlength=num_clusters),
    )
