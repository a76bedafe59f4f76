import numpy as np
import pytest

from mlpf.simulation.clic.edm4hep_layouts import LAYOUT_NAMES, LAYOUTS, first_hit_states
from mlpf.simulation.clic.event_data import Links, Tracks, TrackStates


def tracks_of(num, seed=3):
    rng = np.random.default_rng(seed)
    zero = np.zeros(num)
    phi = rng.uniform(-np.pi, np.pi, num)
    phi[:4] = [0.0, np.pi / 2, -np.pi / 4, np.pi]
    at_ip = TrackStates(
        rng.normal(0, 0.01, num), phi, rng.normal(0, 1e-3, num), rng.normal(0, 1, num),
        rng.normal(0, 1, num), zero, zero, zero, zero,
    )  # fmt: skip
    links = Links(np.zeros(0, int), np.zeros(0, int), np.zeros(0))
    radius = rng.uniform(20, 400, num)
    return Tracks(zero, zero, zero, zero, radius, zero, at_ip, at_ip, links)


def test_the_first_hit_is_exactly_as_far_from_the_beam_as_the_leaf_of_old_files_says():
    tracks = tracks_of(20_000)
    states = first_hit_states(tracks)
    x, y = (v.astype(np.float32).astype(np.float64) for v in (states.reference_x, states.reference_y))
    wanted = tracks.radius_of_innermost_hit.astype(np.float32)
    assert (np.hypot(x, y).astype(np.float32) == wanted).all()


def test_a_straight_track_hits_straight_ahead():
    zero = np.zeros(1)
    at_ip = TrackStates(
        zero, np.array([0.5]), np.array([1e-6]), zero, np.array([2.0]), zero, zero, zero, zero
    )
    links = Links(np.zeros(0, int), np.zeros(0, int), np.zeros(0))
    states = first_hit_states(Tracks(zero, zero, zero, zero, np.array([30.0]), zero, at_ip, at_ip, links))
    np.testing.assert_allclose(states.reference_x, 30 * np.cos(0.5), rtol=1e-4)
    np.testing.assert_allclose(states.reference_y, 30 * np.sin(0.5), rtol=1e-4)
    np.testing.assert_allclose(states.reference_z, 60.0, rtol=1e-4)
    np.testing.assert_allclose(states.phi, 0.5, rtol=1e-4)


def test_the_direction_turns_on_the_way_to_the_hit():
    """A circle of radius 100 mm through the origin: a chord of 100 mm spans 60 degrees, half on each side."""
    zero = np.zeros(1)
    at_ip = TrackStates(zero, zero, np.array([0.01]), zero, zero, zero, zero, zero, zero)
    links = Links(np.zeros(0, int), np.zeros(0, int), np.zeros(0))
    states = first_hit_states(Tracks(zero, zero, zero, zero, np.array([100.0]), zero, at_ip, at_ip, links))
    np.testing.assert_allclose(states.phi, -np.pi / 3, rtol=1e-6)  # positive charge turns clockwise
    np.testing.assert_allclose(np.arctan2(states.reference_y, states.reference_x), -np.pi / 6, rtol=1e-6)


@pytest.mark.parametrize("name", LAYOUT_NAMES)
def test_every_collection_has_an_id_of_its_own(name):
    ids = LAYOUTS[name].ids
    assert len(set(ids.values())) == len(ids)
    data = {c for c in LAYOUTS[name].collections if "#" not in c and not c.startswith("_")}
    assert data - {"SiTracks_1", "SiTracks_Refitted_1"} <= set(ids)
