import numpy as np
import pytest

from mlpf.simulation.clic.detector import CLIC
from mlpf.simulation.clic.event_data import TrackStates
from mlpf.simulation.clic.helix import MAX_TURNING_ANGLE, Helix, extrapolate_to_face, helix_to_face

# Positions come from sums of terms as large as the radius of curvature (1e5 mm) in float64.
POSITION_MM = 1e-6


@pytest.fixture
def helices() -> Helix:
    """Random helices from displaced vertices, pT 0.3 to 100 GeV, either charge."""
    rng = np.random.default_rng(1)
    n = 500
    pt = np.exp(rng.uniform(np.log(0.3), np.log(100), n))
    phi = rng.uniform(-np.pi, np.pi, n)
    vertex = (rng.normal(0, 60, n), rng.normal(0, 60, n), rng.normal(0, 100, n))
    momentum = (pt * np.cos(phi), pt * np.sin(phi), pt * rng.normal(0, 1.0, n))
    return Helix.from_momentum(vertex, momentum, rng.choice([-1.0, 1.0], n), CLIC.bending)


def _states(helix: Helix) -> TrackStates:
    d0, phi, z0 = helix.perigee()
    zero = np.zeros(len(helix))
    return TrackStates(d0, phi, helix.sign / helix.radius, z0, helix.tan_lambda, zero, zero, zero, zero)


def test_entry_points_lie_on_the_face(helices: Helix) -> None:
    face = helix_to_face(helices, CLIC)
    assert face.valid.sum() > 400
    depth = CLIC.depth(face.x, face.y, face.z)[face.valid]
    np.testing.assert_allclose(depth, 0.0, atol=POSITION_MM)


def test_no_trajectory_leaves_the_tracker_before_its_entry_point(helices: Helix) -> None:
    face = helix_to_face(helices, CLIC)
    total = face.path / helices.path(np.ones(len(helices)))
    for fraction in np.linspace(0.0, 0.999, 200):
        x, y, z, _ = helices.at(fraction * total)
        assert (CLIC.depth(x, y, z)[face.valid] < POSITION_MM).all()


def test_direction_at_the_face_is_the_derivative_of_the_trajectory(helices: Helix) -> None:
    face = helix_to_face(helices, CLIC)
    per_mm = 1.0 / helices.path(np.ones(len(helices)))
    before = helices.at((face.path - 0.5) * per_mm)
    after = helices.at((face.path + 0.5) * per_mm)
    for direction, a, b in zip((face.ux, face.uy, face.uz), before, after, strict=False):
        # Third-order error of the difference quotient: (0.5 mm / R)^2 / 6 with R >= 250 mm.
        np.testing.assert_allclose(direction[face.valid], (b - a)[face.valid], atol=1e-6)


def test_stiff_tracks_are_straight_lines() -> None:
    one = np.ones(1)
    helix = Helix.from_momentum(
        (0 * one, 0 * one, 0 * one), (1e5 * one, 0 * one, 5e4 * one), one, CLIC.bending
    )
    face = helix_to_face(helix, CLIC)
    # Sagitta of 1500 mm at R = 8.3e7 mm: 0.014 mm.
    np.testing.assert_allclose([face.x[0], face.y[0], face.z[0]], [1500.0, 0.0, 750.0], atol=0.02)


def test_positive_charge_turns_clockwise_in_a_field_along_z() -> None:
    one = np.ones(1)
    helix = Helix.from_momentum((0 * one, 0 * one, 0 * one), (5 * one, 0 * one, 0 * one), one, CLIC.bending)
    assert helix_to_face(helix, CLIC).y[0] < 0


def test_curling_tracks_do_not_reach_the_face() -> None:
    one = np.ones(1)
    helix = Helix.from_momentum(
        (0 * one, 0 * one, 0 * one), (0.2 * one, 0 * one, 0.001 * one), one, CLIC.bending
    )
    assert helix.plane_angle(CLIC.face_half_length)[0] > MAX_TURNING_ANGLE
    assert not helix_to_face(helix, CLIC).valid[0]


def test_perigee_of_displaced_vertices_leads_back_to_the_vertex(helices: Helix) -> None:
    at_perigee = Helix.from_states(_states(helices))
    np.testing.assert_allclose(
        np.hypot(at_perigee.x, at_perigee.y), np.abs(_states(helices).d0), atol=POSITION_MM
    )
    angle = np.mod(helices.sign * (at_perigee.phi - helices.phi) + np.pi, 2 * np.pi) - np.pi
    x, y, z, _ = at_perigee.at(angle)
    for found, expected in ((x, helices.x), (y, helices.y), (z, helices.z)):
        np.testing.assert_allclose(found, expected, atol=POSITION_MM)


def test_perigee_is_the_point_closest_to_the_axis(helices: Helix) -> None:
    at_perigee = Helix.from_states(_states(helices))
    closest = np.hypot(at_perigee.x, at_perigee.y)
    for angle in (-0.01, 0.01):
        x, y, _, _ = at_perigee.at(np.full(len(helices), angle))
        assert (np.hypot(x, y) >= closest - POSITION_MM).all()


def test_extrapolated_states_reach_the_entry_point_of_the_particle(helices: Helix) -> None:
    truth, found = helix_to_face(helices, CLIC), extrapolate_to_face(_states(helices), CLIC)
    both = truth.valid & found.valid
    assert both.sum() > 400
    for name in ("x", "y", "z", "ux", "uy", "uz"):
        np.testing.assert_allclose(getattr(found, name)[both], getattr(truth, name)[both], atol=POSITION_MM)
