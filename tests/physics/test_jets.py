"""Jets of hand-made events, where the answer is known."""

import numpy as np
import pytest

from mlpf.data.flat_tables import Table, offsets_from_counts
from mlpf.physics.jets import cluster_jets, jet_index, match_jets

ALGORITHMS = ("ee_genkt", "antikt")


def random_event(rng: np.random.Generator, number: int) -> tuple[np.ndarray, ...]:
    pt = rng.exponential(3.0, number) + 0.1
    eta = rng.normal(0.0, 1.2, number)
    return pt, eta, rng.uniform(-np.pi, np.pi, number), pt * np.cosh(eta)


def jets_at(*events: list[tuple[float, float, float]]) -> Table:
    flat = np.array([jet for event in events for jet in event], dtype=float).reshape(-1, 3)
    counts = np.array([len(event) for event in events], dtype=np.int64)
    columns = {"pt": flat[:, 0], "eta": flat[:, 1], "phi": flat[:, 2]}
    return Table(columns, offsets_from_counts(counts))


def jets_of(*events: tuple[np.ndarray, ...], algorithm="ee_genkt") -> Table:
    """Cluster events, each pt, eta, phi and energy of its particles."""
    counts = np.array([len(pt) for pt, *_ in events])
    momenta = (np.concatenate(column) for column in zip(*events, strict=True))
    counts, columns = cluster_jets(counts, *momenta, algorithm)
    return Table(columns, offsets_from_counts(counts))


def index_of(pt, eta, phi, energy, algorithm="ee_genkt") -> np.ndarray:
    """Jet of each particle of a single event."""
    return jet_index(np.array([len(pt)]), pt, eta, phi, energy, algorithm)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_two_back_to_back_pairs_make_two_jets_with_summed_momenta(algorithm):
    pt = np.array([30.0, 10.0, 25.0, 12.0])
    phi = np.array([0.1, -0.1, np.pi - 0.05, -np.pi + 0.05])
    eta = np.zeros(4)
    jets = jets_of((pt, eta, phi, pt), algorithm=algorithm)
    assert jets.counts.tolist() == [2]
    px, py = 40 * np.cos(0.1), 20 * np.sin(0.1)
    assert jets["pt"][0] == pytest.approx(np.hypot(px, py), abs=1e-9)  # float64 sums
    assert jets["energy"].tolist() == pytest.approx([40.0, 37.0], abs=1e-9)
    assert jets["phi"][0] == pytest.approx(np.arctan2(py, px), abs=1e-9)
    assert abs(jets["phi"][1]) > 3.0
    assert index_of(pt, eta, phi, pt, algorithm).tolist() == [1, 1, 2, 2]


def test_soft_particle_far_from_the_jets_is_in_no_jet():
    pt = np.array([2.0, 8.0, 50.0])
    eta = np.array([0.0, 2.0, -2.0])
    phi = np.array([1.5, 0.0, 3.0])
    assert index_of(pt, eta, phi, pt * np.cosh(eta)).tolist() == [0, 2, 1]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_momenta_of_the_particles_of_each_jet_sum_to_the_jet(algorithm):
    rng = np.random.default_rng(3)
    events = [random_event(rng, number) for number in (40, 0, 1, 90)]
    jets = jets_of(*events, algorithm=algorithm)
    first = 0
    for event, number in zip(events, jets.counts, strict=True):
        pt, eta, phi, energy = event
        index = index_of(pt, eta, phi, energy, algorithm)
        assert index.max(initial=0) == number
        for rank in range(1, number + 1):
            jet, members = first + rank - 1, index == rank
            px, py = (pt * np.cos(phi))[members].sum(), (pt * np.sin(phi))[members].sum()
            # sums of tens of float64 numbers below 1 TeV
            assert jets["energy"][jet] == pytest.approx(energy[members].sum(), abs=1e-8)
            assert jets["pt"][jet] == pytest.approx(np.hypot(px, py), abs=1e-8)
        assert np.all(np.diff(jets["pt"][first : first + number]) <= 0)
        first += number
    assert np.all(jets["pt"] >= 5.0)


def test_events_do_not_leak_into_each_other():
    rng = np.random.default_rng(4)
    events = [random_event(rng, number) for number in (30, 50, 20)]
    together = jets_of(*events)
    flat = [np.concatenate(column) for column in zip(*events, strict=True)]
    index = jet_index(np.array([len(event[0]) for event in events]), *flat)
    np.testing.assert_array_equal(index, np.concatenate([index_of(*event) for event in events]))
    alone = [jets_of(event) for event in events]
    assert together.counts.tolist() == [len(jets) for jets in alone]
    np.testing.assert_array_equal(together["pt"], np.concatenate([jets["pt"] for jets in alone]))


def test_particles_without_energy_or_with_nan_are_left_out():
    pt = np.array([20.0, 0.0, np.nan, 10.0])
    energy = np.array([20.0, 5.0, 5.0, 0.0])
    zero = np.zeros(4)
    jets = jets_of((pt, zero, zero, energy))
    assert jets["pt"].tolist() == pytest.approx([20.0], abs=1e-9)  # float64 trigonometry
    assert index_of(pt, zero, zero, energy).tolist() == [1, 0, 0, 0]


def test_no_particles_give_no_jets():
    empty = np.empty(0)
    assert jets_of((empty,) * 4, (empty,) * 4).counts.tolist() == [0, 0]
    counts, columns = cluster_jets(np.zeros(0, np.int64), empty, empty, empty, empty)
    assert len(counts) == 0
    assert {name: len(values) for name, values in columns.items()} == {
        "pt": 0,
        "eta": 0,
        "phi": 0,
        "energy": 0,
    }
    assert index_of(empty, empty, empty, empty).tolist() == []


def test_unknown_algorithm_is_an_error():
    one = np.ones(1)
    with pytest.raises(ValueError, match="no jet algorithm 'kt'"):
        cluster_jets(np.array([1]), one, one, one, one, "kt")


def test_matching_is_one_to_one_and_prefers_the_nearest_pair():
    gen = jets_at([(50, 0.0, 0.0), (40, 0.08, 0.0)], [(30, 1.0, 3.14)], [])
    reco = jets_at([(45, 0.06, 0.0)], [(20, 1.0, -3.13), (9, 1.0, 2.0)], [(10, 0.0, 0.0)])
    gen_place, reco_place = match_jets(gen, reco)
    # event 0: the reco jet is nearest to the second gen jet; event 1: the pair sits astride the seam
    assert gen_place.tolist() == [1, 2]
    assert reco_place.tolist() == [0, 1]


def test_second_choice_is_taken_when_the_first_is_gone():
    gen = jets_at([(50, 0.00, 0.0), (40, 0.05, 0.0)])
    reco = jets_at([(50, 0.04, 0.0), (40, -0.05, 0.0)])
    gen_place, reco_place = match_jets(gen, reco)
    assert gen_place.tolist() == [0, 1]
    assert reco_place.tolist() == [1, 0]


def test_matching_needs_the_same_events():
    with pytest.raises(ValueError, match="1 events of gen jets but 2"):
        match_jets(jets_at([]), jets_at([], []))
