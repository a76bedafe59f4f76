import numpy as np
import pytest

from mlpf.simulation.delphes.detector import (
    CMS_TOWERS,
    CMS_TRACKER,
    ECAL,
    HCAL,
    track_efficiency,
    track_pt_width,
)


def test_the_grid_is_that_of_cms():
    assert len(CMS_TOWERS) == 4140
    assert len(CMS_TOWERS.edges) == 79
    np.testing.assert_array_equal(CMS_TOWERS.edges, -CMS_TOWERS.edges[::-1])
    assert (np.diff(CMS_TOWERS.edges) > 0).all()
    assert np.unique(CMS_TOWERS.towers_in_ring, return_counts=True)[1].tolist() == [6, 32, 40]


@pytest.mark.parametrize(
    ("eta", "number"), [(0.0, 72), (1.7, 72), (-1.75, 36), (4.3, 36), (4.4, 18), (-4.99, 18)]
)
def test_rings_are_divided_in_azimuth(eta, number):
    phi = np.linspace(-np.pi, np.pi, 10_000, endpoint=False)
    assert len(np.unique(CMS_TOWERS.index(np.full(len(phi), eta), phi))) == number


def test_points_lie_in_their_tower(rng):
    tower = np.arange(len(CMS_TOWERS))
    eta, phi = CMS_TOWERS.point(tower, *rng.uniform(0.001, 0.999, (2, len(tower))))
    np.testing.assert_array_equal(CMS_TOWERS.index(eta, phi), tower)
    # A full turn leads to the same tower.
    np.testing.assert_array_equal(CMS_TOWERS.index(eta, phi + 2 * np.pi), tower)


def test_beyond_the_last_ring_there_is_no_tower():
    assert CMS_TOWERS.index(np.array([5.01, -5.01, 999.9]), np.zeros(3)).tolist() == [-1, -1, -1]


def test_the_hole_around_the_beam_begins_where_the_towers_end():
    eta = np.arcsinh(CMS_TRACKER.face_half_length / CMS_TRACKER.endcap_inner_radius)
    assert eta == pytest.approx(5.0)


@pytest.mark.parametrize(("part", "eta", "width"), [
    (ECAL, 0.0, np.sqrt(0.9**2 + 1.2**2 + 0.45**2)),
    (HCAL, -2.9, np.sqrt(5.0**2 + 15.0**2)),
    (ECAL, 3.1, np.sqrt(10.7**2 + 20.8**2)),
    (HCAL, -4.0, np.sqrt(13.0**2 + 27.0**2)),
])  # fmt: skip
def test_widths_at_100_gev(part, eta, width):
    assert part.sigma(np.array([100.0]), np.array([eta])) == pytest.approx([width])


@pytest.mark.parametrize("part", [ECAL, HCAL])
def test_measured_energies_have_the_true_mean_and_the_width(part, rng):
    energy, eta = np.full(40_000, 200.0), np.zeros(40_000)
    measured = part.measured(energy, eta, rng)
    assert measured.mean() == pytest.approx(200.0, rel=0.005)
    assert measured.std() == pytest.approx(part.sigma(energy, eta)[0], rel=0.03)
    assert (measured > 0).all()


def test_what_is_below_threshold_or_one_sigma_is_not_read_out(rng):
    energy = rng.exponential(2.0, 10_000)
    energy[::2] = 0.0
    measured = HCAL.measured(energy, np.zeros(10_000), rng)
    assert (measured[::2] == 0).all()
    read = measured[measured > 0]
    assert 1000 < len(read) < 5000
    # sqrt((0.05 E)^2 + 1.5^2 E) = E at E = 2.256
    assert read.min() == pytest.approx(2.256, abs=0.02)


def test_tracks_are_found_in_the_tracker_only():
    pt = np.array([0.39, 0.5, 0.5, 2.0, 2.0, 2.0])
    eta = np.array([0.0, 0.0, -2.0, 0.0, -2.0, 2.6])
    assert track_efficiency(pt, eta).tolist() == [0.0, 0.70, 0.60, 0.95, 0.85, 0.0]
    assert track_pt_width(np.array([0.0, -1.0, 2.0])).tolist() == [0.01, 0.015, 0.025]
