import numpy as np
import pytest

from mlpf.data.edm4hep import read_events
from mlpf.data.features import cluster_features, track_features
from mlpf.physics.features import CLUSTER_FEATURES, TRACK_FEATURES
from tests.support.edm4hep_files import HandEvent, write_edm4hep


def named(matrix, columns, row=0):
    return dict(zip(columns.names, matrix[row].tolist(), strict=True))


@pytest.fixture
def read(tmp_path):
    def run(event):
        (raw,) = read_events(write_edm4hep(tmp_path / "a.root", [event]))
        return raw

    return run


def test_track_columns_follow_from_the_helix(read):
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


def test_cluster_columns_follow_from_direction_and_member_hits(read):
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


def test_a_cluster_without_hits_has_zero_sums_and_spreads(read):
    event = HandEvent()
    event.cluster([], energy=3.0)
    found = named(cluster_features(read(event))[0], CLUSTER_FEATURES)
    assert [found[n] for n in ("num_hits", "energy_ecal", "sigma_x")] == [0, 0, 0]


def test_what_is_not_finite_becomes_zero_and_is_counted(read):
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


def test_empty_tables_give_empty_matrices(read):
    event = HandEvent()
    raw = read(event)
    assert track_features(raw)[0].shape == (0, len(TRACK_FEATURES))
    assert cluster_features(raw)[0].shape == (0, len(CLUSTER_FEATURES))
