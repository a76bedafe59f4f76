import numpy as np
import pytest

from mlpf.config.data_schema import POSITION_COLUMNS, DatasetConfig
from mlpf.layers import helix_encoding
from mlpf.layers.helix_encoding import NUM_HELIX_FEATURES, face_points, helix_features
from mlpf.physics import features
from mlpf.physics.schemas import SCHEMAS
from tests.support.events import clic_like_events


def track(phi=0.0, tan_lambda=0.0, d0=0.0, z0=0.0, omega=0.0, pt=1.0):
    columns = {"elemtype": 1, "sin_phi": np.sin(phi), "cos_phi": np.cos(phi), "tanLambda": tan_lambda}
    columns |= {"D0": d0, "Z0": z0, "omega": omega, "pt": pt}
    x = np.zeros((1, 1, features.NUM_CLIC_FEATURES))
    for name, value in columns.items():
        x[..., features.TRACK_FEATURES.index(name)] = value
    return x.astype(np.float32)


def cluster(*position):
    x = np.zeros((1, 1, features.NUM_CLIC_FEATURES), np.float32)
    x[..., 0] = 2
    x[..., features.CLUSTER_FEATURES.slice("position.x", "position.z")] = position
    return x


FACE = (1500.0, 2307.0)  # radius and half length of CLIC's calorimeter, mm


def point(x, face=FACE):
    return np.asarray(face_points(x, *face))[0, 0]


def test_columns_are_those_of_the_physics_room():
    assert DatasetConfig().helix_columns == helix_encoding.CLIC_COLUMNS
    assert POSITION_COLUMNS == (helix_encoding.TRACK_COLUMNS, helix_encoding.CLUSTER_COLUMNS)
    for schema in SCHEMAS.values():
        for kind in schema.kinds:
            names = kind.features.names
            assert names[helix_encoding.COMMON["elemtype"]] == "elemtype"
            assert names[helix_encoding.COMMON["pt"]] in ("pt", "et")
            assert names[helix_encoding.COMMON["energy"]] in ("p", "energy")
    assert features.ELEMTYPE_TRACK == helix_encoding.ELEMTYPE_TRACK
    assert features.ELEMTYPE_CLUSTER == helix_encoding.ELEMTYPE_CLUSTER


def test_straight_track_goes_straight():
    # 0.1 mm: float32 on 1500 mm
    assert point(track(phi=0.5, tan_lambda=0.2, z0=3.0)) == pytest.approx(
        [1500 * np.cos(0.5), 1500 * np.sin(0.5), 303.0], abs=0.1
    )


def test_curved_track_hand_worked():
    # radius 1500 mm: the crossing of the cylinder of 1500 mm is 60 degrees along the circle, whose centre is
    # (0, -1500) for positive omega; the point is (1500 sin 60, -1500 (1 - cos 60)); path 1500 pi / 3 = 1570.8
    expected = [1299.04, -750.0, 157.08]
    assert point(track(tan_lambda=0.1, omega=1 / 1500)) == pytest.approx(expected, abs=0.1)
    assert point(track(tan_lambda=0.1, omega=-1 / 1500)) == pytest.approx([1299.04, 750.0, 157.08], abs=0.1)


def test_displaced_curved_tracks_agree_with_stepping_along_the_helix(rng):
    for _ in range(50):
        omega = rng.choice([-1, 1]) * rng.uniform(1e-4, 1e-2)
        phi, tan_lambda, d0, z0 = rng.uniform(-3, 3), rng.normal(), rng.normal(0, 50), rng.normal(0, 50)
        # start at the perigee (-D0 sin phi, D0 cos phi, Z0) and turn by -omega per mm
        s = np.arange(0, 3 * np.pi / abs(omega), 0.2)
        x = -d0 * np.sin(phi) + (np.sin(phi) - np.sin(phi - omega * s)) / omega
        y = d0 * np.cos(phi) - (np.cos(phi) - np.cos(phi - omega * s)) / omega
        z = z0 + s * tan_lambda
        outside = (np.hypot(x, y) >= 1500) | (np.abs(z) >= 2307)
        if not outside.any():
            continue
        i = np.argmax(outside)
        found = point(track(phi, tan_lambda, d0, z0, omega))
        # one step is 0.2 mm along the path in the transverse plane
        assert np.hypot(*(found[:2] - [x[i], y[i]])) < 0.5
        assert abs(found[2] - z[i]) < 0.2 * abs(tan_lambda) + 0.3


def test_forward_track_ends_on_the_end_cap():
    # tan 2: the plane is met after 2307 / 2 = 1153.5 mm in the transverse plane
    assert point(track(tan_lambda=2.0)) == pytest.approx([1153.5, 0.0, 2307.0], abs=0.1)
    assert point(track(tan_lambda=-2.0)) == pytest.approx([1153.5, 0.0, -2307.0], abs=0.1)


def test_looper_ends_at_its_farthest_point():
    # radius 100 mm: half a turn away is (0, -200), path 314.16 mm
    assert point(track(omega=0.01, tan_lambda=0.01)) == pytest.approx([0.0, -200.0, 3.14], abs=0.1)


def test_cluster_is_projected_along_its_direction():
    assert point(cluster(3000.0, 0.0, 1000.0)) == pytest.approx([1500.0, 0.0, 500.0], abs=1e-2)
    assert point(cluster(0.0, 230.7, -4614.0)) == pytest.approx([0.0, 115.35, -2307.0], abs=1e-2)


def test_positions_of_hit_based_events_are_read_from_their_own_columns():
    schema, columns = SCHEMAS["clic_hits"], DatasetConfig(schema="clic_hits").helix_columns
    x = np.zeros((1, 2, schema.num_features), np.float32)
    # The numbers of the tests above: a curved track and a cluster.
    track_values = {"elemtype": 1, "cos_phi": 1.0, "tanLambda": 0.1, "omega": 1 / 1500}
    hit_values = {"elemtype": 2, "position.x": 3000.0, "position.z": 1000.0}
    for row, (kind, values) in enumerate(zip(schema.kinds, (track_values, hit_values), strict=True)):
        for name, value in values.items():
            x[0, row, kind.features.index(name)] = value
    found = np.asarray(face_points(x, *FACE, columns))[0]
    assert found[0] == pytest.approx([1299.04, -750.0, 157.08], abs=0.1)
    assert found[1] == pytest.approx([1500.0, 0.0, 500.0], abs=1e-2)


def test_features_are_finite_and_of_order_one():
    x = clic_like_events(4, 200)
    y = np.asarray(helix_features(x, *FACE))
    assert y.shape == (4, 200, NUM_HELIX_FEATURES)
    assert np.isfinite(y).all()
    # the largest is log(1 + E) of about 1000 GeV
    assert np.abs(y).max() < 10


def test_sine_of_the_highest_octave_is_that_of_the_angle():
    y = np.asarray(helix_features(track(phi=0.3), *FACE))[0, 0]
    octave = 6
    # cos and sin of 2^k phi follow direction (3) and point (3); 1e-4: doubling multiplies roundings
    assert y[6 + 2 * octave : 8 + 2 * octave] == pytest.approx(
        [np.cos(0.3 * 2**octave), np.sin(0.3 * 2**octave)], abs=1e-4
    )


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e9, -1e9])
def test_nonsense_stays_finite(value):
    for kind in (0, 1, 2):
        x = np.full((1, 1, 17), value, np.float32)
        x[..., 0] = kind
        assert np.isfinite(np.asarray(helix_features(x, *FACE))).all()
        assert np.isfinite(point(x)).all()


def test_points_lie_on_the_face_that_is_given():
    other = (2000.0, 2600.0)
    # as above: 60 degrees along a circle whose radius is that of the face
    expected = [2000 * np.sin(np.pi / 3), -1000.0, 0.1 * 2000 * np.pi / 3]
    assert point(track(tan_lambda=0.1, omega=1 / 2000), other) == pytest.approx(expected, abs=0.1)
    assert point(track(tan_lambda=2.0), other) == pytest.approx([1300.0, 0.0, 2600.0], abs=0.1)
    assert point(cluster(3000.0, 0.0, 1000.0), other) == pytest.approx([2000.0, 0.0, 2000 / 3], abs=1e-2)
