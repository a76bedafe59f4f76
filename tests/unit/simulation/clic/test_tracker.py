import numpy as np
import pytest

from mlpf.simulation.clic.detector import CLIC
from mlpf.simulation.clic.event_data import Particles, Tracks
from mlpf.simulation.clic.propagation import propagate
from mlpf.simulation.clic.tracker import reconstruct_tracks
from tests.support.particles import no_particles, single_particle


def track(particles: Particles, seed: int = 1) -> Tracks:
    return reconstruct_tracks(particles, propagate(particles, CLIC), CLIC, np.random.default_rng(seed))


@pytest.mark.parametrize("particles", [no_particles(), single_particle(22, 5.0), single_particle(12, 5.0)])
def test_events_without_charged_particles_have_no_tracks(particles: Particles) -> None:
    tracks = track(particles)
    assert len(tracks) == 0
    assert len(tracks.links.source) == 0


def test_pions_are_found_with_the_stated_efficiency_and_resolution() -> None:
    n = 20_000
    tracks = track(single_particle(211, 10.0, charge=1.0, copies=n))
    clean = np.flatnonzero(tracks.ndf > 0)[: int((tracks.links.weight >= 0.6).sum())]
    # 0.995, binomial error 5e-4.
    assert len(clean) / n == pytest.approx(0.995, abs=0.003)
    pt = CLIC.bending / tracks.at_ip.omega[clean]
    truth = np.sqrt(10.0**2 - 0.13957**2) * np.sin(1.2)
    low, high = np.quantile(pt / truth - 1.0, (0.16, 0.84))
    expected = np.hypot(1.3e-5 * truth, 2.1e-3 / np.sin(1.2) ** 1.5)
    # Tails widen the core by about 1 %; statistical error 1 %.
    assert (high - low) / 2 == pytest.approx(expected, abs=0.05 * expected)


def test_split_and_fake_tracks_are_rare_and_linked() -> None:
    n = 50_000
    tracks = track(single_particle(211, 10.0, charge=-1.0, copies=n))
    assert (tracks.links.weight == 0.5).mean() == pytest.approx(0.004, abs=0.001)  # 14 per mille of it
    num_links = np.bincount(tracks.links.source, minlength=len(tracks))
    assert num_links.min() == 1
    assert (num_links == 2).mean() == pytest.approx(0.003, abs=0.001)
    assert (tracks.at_ip.omega < 0).all()


def test_displaced_particles_beyond_400_mm_have_no_track_but_reach_the_calorimeter() -> None:
    particles = single_particle(211, 10.0, charge=1.0, vertex=(450.0, 0.0, 0.0), copies=20)
    assert len(track(particles)) == 0
    assert propagate(particles, CLIC).face.valid.all()


def test_calorimeter_states_lie_on_the_face() -> None:
    tracks = track(single_particle(11, 5.0, charge=-1.0, copies=100))
    state = tracks.at_calorimeter
    depth = CLIC.depth(state.reference_x, state.reference_y, state.reference_z)
    np.testing.assert_allclose(depth, 0.0, atol=1e-6)  # float64 at 1e4 mm radius of curvature
    np.testing.assert_array_equal(state.omega, tracks.at_ip.omega)


def test_the_same_stream_gives_the_same_tracks() -> None:
    particles = single_particle(211, 10.0, charge=1.0, copies=50)
    np.testing.assert_array_equal(track(particles, 7).at_ip.omega, track(particles, 7).at_ip.omega)
