"""Clusters of hand-built showers."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpf.config import detector as description
from mlpf.simulation.clic.clustering import cluster_hits, project
from mlpf.simulation.clic.detector import CLIC, build_detector
from tests.support.detector_hits import blob, make_hits

SHOWER = (1560.0, 0.0, 100.0)


def test_one_shower_is_one_cluster_with_all_its_energy():
    hits = make_hits(("ECALBarrel", blob(SHOWER, 6.0), 0.1))
    clusters = cluster_hits(hits, CLIC)
    assert len(clusters) == 1
    assert clusters.energy[0] == pytest.approx(2.0, abs=1e-9)  # float64 sum of 20 numbers
    assert clusters.num_hits[0] == len(hits)
    assert (clusters.hit_cluster == 0).all()
    centroid = [clusters.x[0], clusters.y[0], clusters.z[0]]
    np.testing.assert_allclose(centroid, [hits.x.mean(), hits.y.mean(), hits.z.mean()], atol=1e-9)
    assert clusters.phi[0] == pytest.approx(np.arctan2(clusters.y[0], clusters.x[0]), abs=1e-12)


def test_two_showers_60_mm_apart_are_two_clusters():
    hits = make_hits(
        ("ECALBarrel", blob(SHOWER, 6.0), 0.1), ("ECALBarrel", blob((1560, 60, 100), 6.0, seed=1), 0.2)
    )
    clusters = cluster_hits(hits, CLIC)
    np.testing.assert_allclose(np.sort(clusters.energy), [2.0, 4.0], atol=1e-9)


def test_two_showers_10_mm_apart_are_one_cluster():
    hits = make_hits(
        ("ECALBarrel", blob(SHOWER, 6.0), 0.1), ("ECALBarrel", blob((1560, 10, 100), 6.0, seed=1), 0.2)
    )
    assert len(cluster_hits(hits, CLIC)) == 1


def test_no_hits_are_no_clusters():
    clusters = cluster_hits(make_hits(), CLIC)
    assert len(clusters) == 0
    assert clusters.hit_cluster.shape == (0,)


def test_single_hit_stays_unclustered():
    clusters = cluster_hits(make_hits(("HCALEndcap", [500.0, 0.0, 2600.0], 5.0)), CLIC)
    assert len(clusters) == 0
    assert clusters.hit_cluster.tolist() == [-1]


def test_equal_points_are_one_cluster():
    clusters = cluster_hits(make_hits(("ECALBarrel", np.tile(SHOWER, (7, 1)), 0.1)), CLIC)
    assert clusters.num_hits.tolist() == [7]


def test_weak_clusters_are_dissolved():
    clusters = cluster_hits(make_hits(("ECALBarrel", blob(SHOWER, 6.0), 0.004)), CLIC)
    assert len(clusters) == 0


def test_loose_hit_joins_the_nearest_cluster():
    far = np.add(SHOWER, (0, 60, 0))
    hits = make_hits(("ECALBarrel", blob(SHOWER, 6.0), 0.1), ("ECALBarrel", far, 0.01))
    assert cluster_hits(hits, CLIC).num_hits.tolist() == [21]


def test_hcal_shower_joins_the_ecal_cluster_in_front():
    hits = make_hits(
        ("ECALBarrel", blob((1650, 0, 0), 8.0), 0.1), ("HCALBarrel", blob((1800, 0, 0), 20.0), 0.2)
    )
    clusters = cluster_hits(hits, CLIC)
    assert len(clusters) == 1
    assert clusters.energy_ecal[0] == pytest.approx(2.0, abs=1e-9)
    assert clusters.energy_hcal[0] == pytest.approx(4.0, abs=1e-9)


def test_hcal_shower_elsewhere_stays_alone():
    hits = make_hits(
        ("ECALBarrel", blob((1650, 0, 0), 8.0), 0.1), ("HCALBarrel", blob((0, 1800, 0), 20.0), 0.2)
    )
    assert len(cluster_hits(hits, CLIC)) == 2


def test_muon_hits_join_the_deep_hcal_cluster_in_front():
    hits = make_hits(
        ("HCALBarrel", blob((2600, 0, 0), 20.0), 0.2),
        ("MUON", [[4500.0, 100.0, 0.0], [0.0, 4500.0, 0.0]], 0.02),
    )
    clusters = cluster_hits(hits, CLIC)
    assert clusters.hit_cluster[-2:].tolist() == [0, -1]
    assert clusters.energy_other[0] == pytest.approx(0.02, abs=1e-12)


def test_only_muon_hits_are_no_clusters():
    clusters = cluster_hits(make_hits(("MUON", [[4500.0, 0.0, 0.0]] * 3, 0.02)), CLIC)
    assert clusters.hit_cluster.tolist() == [-1, -1, -1]


def with_voxel(side):
    return replace(CLIC, granularity=replace(CLIC.granularity, voxel=side))


@pytest.mark.parametrize("voxel", [0.001, 10.0])
def test_voxels_keep_showers_apart_and_every_hit(voxel):
    hits = make_hits(
        ("ECALBarrel", blob(SHOWER, 6.0), 0.1),
        ("ECALBarrel", blob((1560, 60, 100), 6.0, seed=1), 0.2),
        ("HCALBarrel", blob((1800, 500, 0), 20.0), 0.3),
    )
    clusters = cluster_hits(hits, with_voxel(voxel))
    np.testing.assert_allclose(np.sort(clusters.energy), [2.0, 4.0, 6.0], atol=1e-9)
    assert clusters.num_hits.tolist() == [20, 20, 20]


def test_voxels_smaller_than_any_distance_change_nothing():
    hits = make_hits(
        ("ECALBarrel", blob(SHOWER, 20.0, 60), 0.1), ("HCALBarrel", blob((1900, 900, 90), 60.0), 0.2)
    )
    plain, voxels = cluster_hits(hits, CLIC), cluster_hits(hits, with_voxel(1e-6))
    # Voxels are numbered by place, so clusters may be: the partition is what counts.
    pairs = np.unique(np.stack((plain.hit_cluster, voxels.hit_cluster)), axis=1)
    assert len(plain) > 1
    assert pairs.shape[1] == len(plain) == len(voxels)


def test_one_voxel_for_all_is_one_cluster_per_calorimeter():
    hits = make_hits(
        ("ECALBarrel", [[1560.0, 20.0, 30.0], [1560.0, 400.0, 30.0]], 0.1),
        ("HCALBarrel", [[20.0, 1800.0, 40.0], [500.0, 1800.0, 900.0]], 0.3),
    )
    assert len(cluster_hits(hits, CLIC)) == 0  # single hits
    assert cluster_hits(hits, with_voxel(1e4)).energy.tolist() == pytest.approx([0.2, 0.6])


def test_hits_of_one_voxel_count_one_by_one():
    hits = make_hits(("ECALBarrel", np.tile(SHOWER, (2, 1)), 0.1))
    assert cluster_hits(hits, build_detector(description.CLIC, "hits")).num_hits.tolist() == [2]


def test_projection_keeps_the_face_and_compresses_depth():
    points = np.array([[1500.0, 0.0, 0.0], [1600.0, 0.0, 0.0], [0.0, 300.0, 2307.0]])
    expected = [[1500, 0, 0], [1485, 0, 0], [0, 300, 2307]]  # 1500 - 0.15 * 100
    np.testing.assert_allclose(project(points, CLIC), expected, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), num=st.integers(1, 120))
def test_every_clustered_hit_counts_once(seed, num):
    rng = np.random.default_rng(seed)
    names = ("ECALBarrel", "ECALEndcap", "HCALBarrel", "HCALEndcap", "MUON")
    groups = [
        (name, blob((1700 + 300 * i, 0, 0), 60.0, num, seed + i), rng.exponential(0.1, num))
        for i, name in enumerate(names)
    ]
    hits = make_hits(*groups)
    clusters = cluster_hits(hits, CLIC)
    clustered = clusters.hit_cluster >= 0
    assert clusters.hit_cluster.max(initial=-1) == len(clusters) - 1
    assert clusters.num_hits.sum() == clustered.sum()
    assert clusters.energy.sum() == pytest.approx(hits.energy[clustered].sum(), abs=1e-9)
    parts = clusters.energy_ecal + clusters.energy_hcal + clusters.energy_other
    np.testing.assert_allclose(parts, clusters.energy, atol=1e-9)
