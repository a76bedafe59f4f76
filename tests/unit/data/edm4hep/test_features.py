from dataclasses import replace

import numpy as np
import pytest

from mlpf.config.detector import CLIC
from mlpf.data.edm4hep.features import cluster_features, hit_features, track_features
from mlpf.data.edm4hep.raw_events import SYSTEM_ECAL, SYSTEM_HCAL, SYSTEM_OTHER
from mlpf.physics.features import CLUSTER_FEATURES, HIT_FEATURES, HIT_TRACK_FEATURES, TRACK_FEATURES
from tests.support.edm4hep_files import HandEvent
from tests.support.raw_events import raw_events as read


def named(matrix, columns, row=0):
    return dict(zip(columns.names, matrix[row].tolist(), strict=True))


def test_track_columns_follow_from_the_helix():
    event = HandEvent()
    leaves = {"D0": 0.1, "Z0": -0.2, "time": 3.0, "chi2": 7.0, "ndf": 5, "dEdx": 2e-7, "dEdxError": 1e-8}
    event.track(pt=2.0, phi=np.pi / 6, tan_lambda=0.75, radiusOfInnermostHit=31.0, **leaves)
    x, replaced = track_features(read(event))
    found = named(x, TRACK_FEATURES)
    expected = {
        "elemtype": 1,
        "pt": 2.0,
        "eta": np.arcsinh(0.75),  # tan(lambda) = sinh(eta)
        "sin_phi": 0.5,
        "cos_phi": np.sqrt(3) / 2,
        "p": 2.5,  # 3-4-5 triangle: pz = 1.5
        "tanLambda": 0.75,
        "omega": 6e-4,  # 3e-4 x 4 T / 2 GeV
        "radiusOfInnermostHit": 31.0,
        **leaves,
    }
    assert replaced == 0
    assert found == pytest.approx(expected, abs=1e-6)  # float32


def test_momenta_follow_from_the_field():
    event = HandEvent()
    event.track(pt=2.0, tan_lambda=0.75)
    raw = replace(read(event), detector=CLIC.model_copy(update={"field_T": 2.0}))
    found = named(track_features(raw)[0], TRACK_FEATURES)
    # half the field, so half of the momentum for the same curvature
    assert (found["pt"], found["p"], found["omega"]) == pytest.approx((1.0, 1.25, 6e-4), abs=1e-6)


def test_cluster_columns_follow_from_direction_and_member_hits():
    event = HandEvent()
    hits = [
        event.hit(1.0, x=10.0, y=0.0, z=1.0),
        event.hit(2.0, x=20.0, y=0.0, z=1.0, collection="HCALEndcap"),
        event.hit(4.0, x=30.0, y=3.0, z=1.0, collection="MUON"),
    ]
    event.hit(99.0, x=1e3)  # belongs to no cluster
    event.cluster(hits, iTheta=np.pi / 3, phi=-np.pi / 2, x=5.0, y=6.0, z=7.0)
    x, _ = cluster_features(read(event))
    expected = {
        "elemtype": 2,
        "et": 7 * np.sqrt(3) / 2,
        "eta": 0.5 * np.log(3),  # -ln tan 30 degrees
        "sin_phi": -1.0,
        "cos_phi": 0.0,
        "energy": 7.0,
        "position.x": 5.0,
        "position.y": 6.0,
        "position.z": 7.0,
        "iTheta": np.pi / 3,
        "energy_ecal": 1.0,
        "energy_hcal": 2.0,
        "energy_other": 4.0,
        "num_hits": 3.0,
        "sigma_x": np.sqrt(200 / 3),  # unweighted, about the mean of 20
        "sigma_y": np.sqrt(2.0),
        "sigma_z": 0.0,
    }
    assert named(x, CLUSTER_FEATURES) == pytest.approx(expected, abs=2e-6)  # float32


def test_a_cluster_without_hits_has_zero_sums_and_spreads():
    event = HandEvent()
    event.cluster([], energy=3.0)
    found = named(cluster_features(read(event))[0], CLUSTER_FEATURES)
    assert [found[n] for n in ("num_hits", "energy_ecal", "sigma_x")] == [0, 0, 0]


def test_what_is_not_finite_becomes_zero_and_is_counted():
    event = HandEvent()
    event.track(pt=np.inf)  # a straight track: omega = 0
    event.track(D0=np.nan, time=-np.inf)
    event.cluster([], phi=np.nan)
    raw = read(event)
    tracks, replaced_tracks = track_features(raw)
    clusters, replaced_clusters = cluster_features(raw)
    assert np.isfinite(tracks).all()
    assert np.isfinite(clusters).all()
    assert [named(tracks, TRACK_FEATURES)[n] for n in ("pt", "p")] == [0, 0]
    assert named(tracks, TRACK_FEATURES, 1)["D0"] == 0
    assert replaced_tracks >= 4
    assert replaced_clusters == 2  # sine and cosine


def test_empty_tables_give_empty_matrices():
    event = HandEvent()
    raw = read(event)
    assert track_features(raw)[0].shape == (0, len(TRACK_FEATURES))
    assert cluster_features(raw)[0].shape == (0, len(CLUSTER_FEATURES))
    assert hit_features(raw)[0].shape == (0, len(HIT_FEATURES))


def test_tracks_beside_hits_have_a_type_and_no_energy_loss():
    event = HandEvent()
    event.track(pt=2.0, type=5, dEdx=7.0, time=3.0)
    raw = read(event)
    x, _ = track_features(raw, HIT_TRACK_FEATURES)
    with_loss = named(track_features(raw)[0], TRACK_FEATURES)
    expected = {n: v for n, v in with_loss.items() if n not in ("dEdx", "dEdxError")} | {"type": 5}
    assert named(x, HIT_TRACK_FEATURES) == expected


def test_hit_columns_follow_from_the_position():
    event = HandEvent()
    event.hit(13.0, x=300.0, y=400.0, z=-1200.0, collection="HCALEndcap")  # 3-4-5 and 5-12-13 triangles
    raw = read(event)
    raw.hits.columns["time"][:] = 6.5
    raw.hits.columns["type"][:] = 11
    x, replaced = hit_features(raw)
    expected = {
        "elemtype": 2,
        "et": 5.0,
        "eta": -np.arcsinh(2.4),
        "sin_phi": 0.8,
        "cos_phi": 0.6,  # of the azimuth itself, whatever the polar angle
        "energy": 13.0,
        "position.x": 300.0,
        "position.y": 400.0,
        "position.z": -1200.0,
        "time": 6.5,
        "subdetector": 1,
        "type": 11,
    }
    assert named(x, HIT_FEATURES) == pytest.approx(expected, abs=1e-6)  # float32
    assert replaced == 0


def test_subdetectors_are_told_apart():
    event = HandEvent()
    for collection in ("ECALBarrel", "ECALOther", "HCALOther", "MUON"):
        event.hit(1.0, collection=collection)
    found = hit_features(read(event))[0][:, HIT_FEATURES.index("subdetector")]
    assert found.tolist() == [SYSTEM_ECAL, SYSTEM_ECAL, SYSTEM_HCAL, SYSTEM_OTHER]


@pytest.mark.parametrize("z", [0.0, -5.0])
def test_a_hit_on_the_beam_axis_has_a_direction_of_length_one(z):
    event = HandEvent()
    event.hit(2.0, x=0.0, y=0.0, z=z)
    found = named(hit_features(read(event))[0], HIT_FEATURES)
    assert [found[n] for n in ("et", "eta", "sin_phi", "cos_phi")] == [0, 0, 0, 1]


def test_hits_that_are_not_finite_become_zero_and_are_counted():
    event = HandEvent()
    event.hit(2.0, x=np.inf)
    event.hit(2.0, x=np.nan)
    event.hit(2.0)
    x, replaced = hit_features(read(event))
    assert np.isfinite(x).all()
    alone = HandEvent()
    alone.hit(2.0)
    assert x[2].tolist() == hit_features(read(alone))[0][0].tolist()
    assert replaced == 5  # et and x of both, and the cosine infinity / infinity
