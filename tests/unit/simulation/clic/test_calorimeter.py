import numpy as np
import pytest

from mlpf.simulation.clic.calorimeter import (
    calorimeter_layers,
    cell_centres,
    cell_keys,
    digitise,
    simulate_hits,
    thresholds,
)
from mlpf.simulation.clic.detector import CLIC
from mlpf.simulation.clic.event_data import HIT_COLLECTIONS, Hits, Particles
from mlpf.simulation.clic.propagation import propagate
from mlpf.simulation.clic.showers import shower_spots
from tests.support.particles import no_particles, single_particle

MUON_COLLECTION = HIT_COLLECTIONS.index("MUON")


def hits_of(particles: Particles, seed: int = 1) -> Hits:
    return simulate_hits(
        particles,
        propagate(particles, CLIC),
        CLIC,
        np.random.default_rng([seed, 1]),
        np.random.default_rng([seed, 2]),
    )


@pytest.mark.parametrize(
    ("pdg", "charge", "energy", "scale", "response", "tolerance"),
    [
        # Tolerances: 3 standard errors of 100 showers plus 0.01 for the width of the tabulated value.
        (22, 0.0, 5.0, 1.0, 0.99, 0.035),
        (22, 0.0, 50.0, 1.0, 1.00, 0.02),
        (11, -1.0, 20.0, 1.0, 0.99, 0.025),
        (130, 0.0, 5.0, CLIC.ecal_hadron_response, 0.96, 0.08),
        (130, 0.0, 50.0, CLIC.ecal_hadron_response, 1.05, 0.05),
        (2112, 0.0, 1.5, CLIC.ecal_hadron_response, 0.29, 0.07),
        (211, 1.0, 1.5, CLIC.ecal_hadron_response, 0.97, 0.14),
        (211, 1.0, 20.0, CLIC.ecal_hadron_response, 1.04, 0.05),
    ],
)
def test_single_particle_response(
    pdg: int, charge: float, energy: float, scale: float, response: float, tolerance: float
) -> None:
    particles = single_particle(pdg, energy, charge)
    total = []
    for seed in range(100):
        hits = hits_of(particles, seed)
        name = hits.collection[hits.links.source]
        ecal = hits.links.weight[name <= HIT_COLLECTIONS.index("ECALOther")].sum()
        total.append((ecal / scale + hits.links.weight.sum() - ecal) / energy)
    assert np.mean(total) == pytest.approx(response, abs=tolerance)


def test_muons_deposit_the_energy_of_a_minimum_ionising_particle_and_reach_the_yoke() -> None:
    energy, yoke = [], []
    for seed in range(40):
        hits = hits_of(single_particle(13, 50.0, charge=-1.0), seed)
        energy.append(hits.links.weight.sum())
        yoke.append((hits.collection == MUON_COLLECTION).sum())
    assert np.mean(energy) == pytest.approx(2.35, abs=0.1)
    assert np.mean(yoke) == pytest.approx(6 * 0.97, abs=0.3)


def test_soft_pions_curl_up_and_leave_only_noise() -> None:
    hits = hits_of(single_particle(211, 0.5, charge=1.0, theta=1.5))
    assert len(hits.links.source) == 0


@pytest.mark.parametrize("particles", [no_particles(), single_particle(12, 50.0)])
def test_events_without_visible_particles_hold_unlinked_noise_only(particles: Particles) -> None:
    hits = [hits_of(particles, seed) for seed in range(50)]
    assert all(len(h.links.source) == 0 for h in hits)
    # Poisson(5 + 3): error of the mean 0.4.
    assert np.mean([len(h) for h in hits]) == pytest.approx(8.0, abs=1.3)


def test_an_event_without_any_hit_is_allowed() -> None:
    cells = digitise(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), CLIC)
    assert len(cells.key) == len(cells.energy) == len(cells.main) == len(cells.links.source) == 0


@pytest.fixture(scope="module")
def busy() -> Hits:
    """Many overlapping hadrons and photons, muons, barrel and endcaps."""
    rng = np.random.default_rng(5)
    parts = []
    for pdg, charge in ((22, 0.0), (211, 1.0), (130, 0.0), (13, -1.0)):
        for _ in range(10):
            parts.append(single_particle(pdg, 20.0, charge, rng.uniform(0.2, 2.9), rng.uniform(-3, 3)))
    columns = parts[0].__dataclass_fields__
    return hits_of(Particles(*(np.concatenate([getattr(p, c) for p in parts]) for c in columns)))


def test_hits_are_sorted_by_collection_and_leave_the_other_collections_empty(busy: Hits) -> None:
    assert (np.diff(busy.collection) >= 0).all()
    names = {HIT_COLLECTIONS[c] for c in busy.collection}
    assert names == {"ECALBarrel", "ECALEndcap", "HCALBarrel", "HCALEndcap", "MUON"}
    assert len(np.unique(busy.cell_id)) == len(busy)


def test_link_weights_add_up_to_the_energy_of_their_hit(busy: Hits) -> None:
    total = np.bincount(busy.links.source, busy.links.weight, minlength=len(busy))
    linked = total > 0
    np.testing.assert_allclose(total[linked], busy.energy[linked], atol=1e-9)  # float64 sums
    assert 0 < (~linked).sum() < 30  # noise: Poisson(8)


def test_hits_lie_in_the_calorimeter_of_their_collection(busy: Hits) -> None:
    depth = CLIC.depth(busy.x, busy.y, busy.z)
    for name, low, high in (("ECAL", 0.0, 202.0), ("HCAL", 240.0, 1826.0)):
        of = np.isin(busy.collection, [i for i, c in enumerate(HIT_COLLECTIONS) if c.startswith(name)])
        # A cell on the edge between barrel and endcap may have its centre half a cell diagonal away.
        assert (depth[of] > low - 40.0).all()
        assert (depth[of] < high + 40.0).all()


def test_particles_from_the_origin_arrive_in_time(busy: Hits) -> None:
    linked = np.unique(busy.links.source)
    assert np.median(busy.time[linked]) == pytest.approx(0.0, abs=0.15)  # 0.5 ns over hundreds of hits


def test_digitisation_conserves_energy_but_for_cells_below_threshold() -> None:
    particles = single_particle(211, 50.0, charge=1.0, copies=5)
    spots = shower_spots(particles, propagate(particles, CLIC), CLIC, np.random.default_rng(2))
    layers = calorimeter_layers(spots.x, spots.y, spots.z, CLIC)
    key = cell_keys(layers, spots.x, spots.y, spots.z, CLIC)
    cells = digitise(key, spots.particle, spots.energy, CLIC)
    unique, inverse = np.unique(key, return_inverse=True)
    energy = np.bincount(inverse, spots.energy)
    expected = energy[energy >= thresholds(unique, CLIC)]
    assert cells.energy.sum() == pytest.approx(expected.sum(), abs=1e-9)
    assert cells.links.weight.sum() == pytest.approx(expected.sum(), abs=1e-9)
    assert len(cells.key) == len(expected)


def test_cell_centres_lie_in_their_own_cell() -> None:
    rng = np.random.default_rng(3)
    for theta in (0.4, 1.2, 2.8):
        particles = single_particle(211, 50.0, charge=1.0, theta=theta, copies=10)
        spots = shower_spots(particles, propagate(particles, CLIC), CLIC, rng)
        layers = calorimeter_layers(spots.x, spots.y, spots.z, CLIC)
        key = cell_keys(layers, spots.x, spots.y, spots.z, CLIC)
        _, x, y, z = cell_centres(key, CLIC)
        np.testing.assert_array_equal(cell_keys(layers, x, y, z, CLIC), key)


def test_spot_counts_are_rounded_and_capped() -> None:
    # 6 + 8 E^0.6: at 1.04 GeV 14.19, at 1.06 GeV 14.28, at 0.95 GeV 13.76, at 100 GeV above the cap.
    number = CLIC.granularity.em_spots(np.array([0.95, 1.04, 1.06, 100.0]))
    assert number.tolist() == [14, 14, 14, 40]


def test_photons_leave_the_hits_of_the_reference() -> None:
    # Reference detector, 30 ttbar events: 13.6 hits per photon of 1-2 GeV; 4 standard errors of 200 showers.
    number = [len(np.unique(hits_of(single_particle(22, 1.4), seed).links.source)) for seed in range(200)]
    assert np.mean(number) == pytest.approx(13.4, abs=0.5)
