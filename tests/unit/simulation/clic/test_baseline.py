"""The rules on hand-built particles."""

import numpy as np
import pytest

from mlpf.simulation.clic.baseline import reconstruct_candidates
from mlpf.simulation.clic.clustering import cluster_hits
from mlpf.simulation.clic.detector import CLIC
from tests.support.detector_hits import blob, make_hits, make_tracks

EAST = (1560.0, 0.0, 0.0)


def reconstruct(tracks, hits):
    return reconstruct_candidates(tracks, hits, cluster_hits(hits, CLIC), CLIC)


def entry(tracks, depth):
    """Point ``depth`` mm behind the face along the direction of the first track."""
    state = tracks.at_calorimeter
    direction = np.array([np.cos(state.phi[0]), np.sin(state.phi[0]), state.tan_lambda[0]])
    point = np.array([state.reference_x[0], state.reference_y[0], state.reference_z[0]])
    return point + depth * direction / np.linalg.norm(direction)


def test_nothing_gives_no_candidates():
    candidates = reconstruct(make_tracks(), make_hits())
    assert len(candidates) == 0
    assert candidates.clusters == []


def test_narrow_shower_without_track_is_a_photon():
    candidates = reconstruct(make_tracks(), make_hits(("ECALBarrel", blob(EAST, 6.0), 0.25)))
    assert candidates.pdg.tolist() == [22]
    assert candidates.energy[0] == pytest.approx(5.0, abs=1e-9)  # float64 sum of 20 numbers
    assert candidates.charge.tolist() == [0]
    assert candidates.track.tolist() == [-1]
    assert [c.tolist() for c in candidates.clusters] == [[0]]
    assert candidates.px[0] == pytest.approx(5.0, abs=0.01)  # the centroid is 2 mm off the x axis


def test_hcal_shower_without_track_is_a_neutral_hadron():
    candidates = reconstruct(make_tracks(), make_hits(("HCALBarrel", blob((1900, 0, 0), 30.0), 0.25)))
    assert candidates.pdg.tolist() == [130]
    assert candidates.energy[0] == pytest.approx(5.0, abs=1e-9)


def test_track_without_clusters_is_a_pion():
    candidates = reconstruct(make_tracks((3.0, 0.4, 0.5, -1)), make_hits())
    assert candidates.pdg.tolist() == [-211]
    assert candidates.charge.tolist() == [-1]
    momentum = [candidates.px[0], candidates.py[0], candidates.pz[0]]
    np.testing.assert_allclose(momentum, [3 * np.cos(0.4), 3 * np.sin(0.4), 1.5], atol=1e-9)
    assert candidates.energy[0] ** 2 == pytest.approx(3.0**2 + 1.5**2 + 0.13957**2, abs=1e-9)
    assert candidates.clusters[0].size == 0


def test_pion_takes_its_shower():
    tracks = make_tracks((5.0, 0.0, 0.0, 1))
    hits = make_hits(
        ("ECALBarrel", blob(entry(tracks, 100), 10.0), 0.05),
        ("HCALBarrel", blob(entry(tracks, 320), 30.0), 0.18),
    )
    candidates = reconstruct(tracks, hits)
    assert candidates.pdg.tolist() == [211]
    assert len(candidates.clusters[0]) >= 1


@pytest.mark.parametrize(("charge", "pdg"), [(-1, 11), (1, -11)])
def test_track_with_matching_narrow_shower_is_an_electron(charge, pdg):
    tracks = make_tracks((10.0, 0.3, 0.2, charge))
    p = 10.0 * np.hypot(1, 0.2)
    hits = make_hits(("ECALBarrel", blob(entry(tracks, 60), 6.0), p / 20))
    candidates = reconstruct(tracks, hits)
    assert candidates.pdg.tolist() == [pdg]
    assert candidates.mass[0] == pytest.approx(0.000511, abs=1e-9)


def test_track_pointing_at_hits_of_the_yoke_is_a_muon():
    tracks = make_tracks((200.0, 0.0, 0.0, -1), (5.0, 1.5, 0.0, 1))
    hits = make_hits(("MUON", [[r, 0.0, 0.0] for r in CLIC.muon.barrel_radii], 0.02))
    candidates = reconstruct(tracks, hits)
    assert dict(zip(candidates.track.tolist(), candidates.pdg.tolist(), strict=True)) == {0: 13, 1: 211}


def test_two_hits_of_the_yoke_are_too_few_for_a_muon():
    tracks = make_tracks((200.0, 0.0, 0.0, -1))
    hits = make_hits(("MUON", [[r, 0.0, 0.0] for r in CLIC.muon.barrel_radii[:2]], 0.02))
    assert reconstruct(tracks, hits).pdg.tolist() == [-211]


def test_excess_over_the_track_becomes_a_photon():
    tracks = make_tracks((2.0, 0.0, 0.0, 1))
    hits = make_hits(("ECALBarrel", blob(entry(tracks, 80), 8.0), 0.5))
    candidates = reconstruct(tracks, hits)
    assert candidates.pdg.tolist() == [211, 22]
    # 10 GeV deposited; 2 GeV at 80 % of the electromagnetic scale belong to the pion.
    assert candidates.energy[1] == pytest.approx(10 - 0.8 * 2, abs=1e-9)


def mixed_excess(momentum, ecal_energy, hcal_energy):
    """Candidates of a track whose one cluster has energy in both calorimeters."""
    tracks = make_tracks((momentum, 0.0, 0.0, 1))
    hits = make_hits(
        ("ECALBarrel", blob(entry(tracks, 100), 8.0), ecal_energy / 20),
        ("HCALBarrel", blob(entry(tracks, 300), 20.0), hcal_energy / 20),
    )
    return reconstruct(tracks, hits)


def test_excess_that_the_ecal_can_hold_becomes_a_photon():
    candidates = mixed_excess(momentum=10.0, ecal_energy=16.0, hcal_energy=4.0)
    assert candidates.pdg.tolist() == [211, 22]
    # 16 GeV of the ECAL count 20 on the hadronic scale; 10 of the 24 GeV belong to the pion, 14 < 16 remain.
    assert candidates.energy[1] == pytest.approx(16 / 0.8 + 4 - 10, abs=1e-9)


def test_excess_that_the_ecal_cannot_hold_becomes_a_neutral_hadron():
    candidates = mixed_excess(momentum=2.0, ecal_energy=8.0, hcal_energy=8.0)
    assert candidates.pdg.tolist() == [211, 130]
    # 8 GeV of the ECAL count 10 on the hadronic scale; 2 of the 18 GeV belong to the pion.
    assert candidates.energy[1] == pytest.approx(8 / 0.8 + 8 - 2, abs=1e-9)


def test_absorbed_fragment_is_no_neutral_hadron():
    tracks = make_tracks((10.0, 0.0, 0.0, 1))
    fragment = entry(tracks, 400) + np.array([0.0, 0.0, 250.0])
    hits = make_hits(
        ("ECALBarrel", blob(entry(tracks, 100), 10.0), 0.2),
        ("HCALBarrel", blob(fragment, 30.0, seed=1), 0.2),
    )
    candidates = reconstruct(tracks, hits)
    assert candidates.pdg.tolist() == [211]
    assert len(candidates.clusters[0]) == 2


def test_no_track_and_no_cluster_is_used_twice_by_its_kind():
    rng = np.random.default_rng(3)
    phi = rng.uniform(-0.3, 0.3, 12)
    tracks = make_tracks(
        *[(rng.uniform(0.3, 20), f, rng.uniform(-0.2, 0.2), rng.choice([-1, 1])) for f in phi]
    )
    groups = [
        (name, blob((r, 0, 0), 150.0, 150, seed), rng.exponential(0.2, 150))
        for seed, (name, r) in enumerate([("ECALBarrel", 1620), ("HCALBarrel", 2000)])
    ]
    candidates = reconstruct(tracks, make_hits(*groups))
    charged = candidates.track >= 0
    assert sorted(candidates.track[charged].tolist()) == list(range(12))
    sizes = np.array([len(c) for c in candidates.clusters])
    assert (sizes[~charged] == 1).all()
    neutral = [c[0] for c, q in zip(candidates.clusters, charged, strict=True) if not q]
    assert len(set(neutral)) == len(neutral)
    for name in ("px", "py", "pz", "energy", "mass"):
        assert np.isfinite(getattr(candidates, name)).all()
