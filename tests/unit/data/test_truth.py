import numpy as np
import pytest

from mlpf.data.edm4hep import read_events
from mlpf.data.truth import candidate_targets, gen_targets, link_truth, visible_particles
from mlpf.physics.features import PARQUET_TARGETS
from tests.support.edm4hep_files import HandEvent, simple_event, write_edm4hep

PDG, CHARGE, PT, ENERGY = (PARQUET_TARGETS.index(n) for n in ("PDG", "charge", "pt", "energy"))
# Files hold float32; energies of up to 100 GeV are then good to 1e-5 GeV.
GEV = 2e-5


@pytest.fixture
def truth_of(tmp_path):
    """Write events, read them back, return raw tables, links and targets."""

    def run(*events, **options):
        (raw,) = read_events(write_edm4hep(tmp_path / "a.root", list(events), **options))
        links = link_truth(raw)
        return raw, links, gen_targets(raw, links)

    return run


def closure(raw, links, targets):
    """Energy and charge of stable particles minus targets minus lost, per event."""
    num, particles = len(raw), raw.particles

    def per_event(table, values):
        return np.bincount(table.event, values, minlength=num)

    energy = per_event(particles, links.energy * links.stable) - targets.lost_energy
    charge = per_event(particles, particles["charge"] * links.stable) - targets.lost_charge
    for table, rows in ((raw.tracks, targets.track), (raw.clusters, targets.cluster)):
        energy -= per_event(table, rows[:, ENERGY])
        charge -= per_event(table, rows[:, CHARGE])
    return energy, charge


def assert_closes(raw, links, targets):
    energy, charge = closure(raw, links, targets)
    np.testing.assert_allclose(energy, 0, atol=1e-9)  # float64 sums of about 100 GeV
    np.testing.assert_allclose(charge, 0, atol=1e-9)


def test_a_charged_particle_takes_its_track_and_a_photon_its_cluster(truth_of):
    raw, links, targets = truth_of(simple_event())
    assert targets.track[0, [PDG, CHARGE]].tolist() == [211, 1]
    assert targets.cluster[:, PDG].tolist() == [0, 22]  # the pion's own cluster is absorbed
    assert targets.track[0, ENERGY] == pytest.approx(np.hypot(10, 0.1396), abs=GEV)
    assert targets.num_lost.tolist() == [0]
    assert_closes(raw, links, targets)


def test_hit_weights_are_shares_of_the_calibrated_energy(truth_of):
    event = HandEvent()
    first, second = event.particle(22, 0.0, 9.0), event.particle(22, 0.0, 1.0)
    # The weights are in arbitrary units of the sub-detector: only their ratio counts.
    event.cluster([event.hit(8.0, [(first, 3e-6), (second, 1e-6)])])
    _, links, _ = truth_of(event)
    np.testing.assert_allclose(links.cluster_energy.toarray().ravel(), [6.0, 2.0], atol=GEV)


def test_duplicate_links_add_up(truth_of):
    event = HandEvent()
    photon = event.particle(22, 0.0, 4.0)
    event.cluster([event.hit(4.0, [(photon, 1.0), (photon, 1.0)])])
    event.track([(event.particle(211, 1.0, 4.0), 0.3)] * 2)
    _, links, _ = truth_of(event)
    assert links.cluster_energy.nnz == 1
    assert links.cluster_energy.sum() == pytest.approx(4.0, abs=GEV)
    assert links.track_weight.max() == pytest.approx(0.6, abs=1e-6)


def test_a_one_hit_link_cannot_claim_a_track(truth_of):
    event = HandEvent()
    energetic = event.particle(211, 1.0, 50.0)
    soft = event.particle(-211, -1.0, 2.0)
    event.deposit([(energetic, 30.0)], "HCALBarrel")
    event.track([(energetic, 0.1), (soft, 0.9)], pt=2.0)
    raw, links, targets = truth_of(event)
    assert targets.track[0, CHARGE] == -1
    assert targets.track[0, PT] == pytest.approx(2.0, abs=GEV)
    assert targets.cluster[0, [PDG, CHARGE]].tolist() == [130, 0]
    assert targets.lost_charge.tolist() == [1]  # a cluster's target is neutral
    assert_closes(raw, links, targets)


def test_the_largest_link_claims_a_track_even_below_one_half(truth_of):
    event = HandEvent()
    first, second = event.particle(211, 1.0, 5.0), event.particle(211, 1.0, 4.0)
    event.deposit([(first, 3.0)])
    event.deposit([(second, 3.0)])
    event.track([(first, 0.35), (second, 0.45)])
    _, _, targets = truth_of(event)
    assert targets.track_of.tolist() == [-1, 0]


def test_a_neutral_particle_never_takes_a_track(truth_of):
    event = HandEvent()
    photon = event.particle(22, 0.0, 5.0)
    event.track([(photon, 1.0)])
    event.deposit([(photon, 5.0)])
    raw, links, targets = truth_of(event)
    assert targets.track[0].tolist() == [0] * 7
    assert targets.cluster[0, PDG] == 22
    assert_closes(raw, links, targets)


def test_a_charged_particle_without_track_owns_its_largest_free_cluster_as_neutral(truth_of):
    event = HandEvent()
    big = event.particle(22, 0.0, 20.0)
    proton = event.particle(2212, 1.0, 8.0, mass=0.938)
    event.deposit([(big, 15.0), (proton, 4.0)])
    event.deposit([(proton, 2.0)])
    event.deposit([(proton, 1.0)])
    raw, links, targets = truth_of(event)
    assert targets.cluster_of.tolist() == [0, 1]
    assert targets.cluster[1, [PDG, CHARGE]].tolist() == [130, 0]
    assert_closes(raw, links, targets)


def test_every_particle_left_over_is_added_to_the_owner_of_its_best_cluster(truth_of):
    event = HandEvent()
    photons = [event.particle(22, 0.0, px, py) for px, py in ((10.0, 0.0), (4.0, 3.0), (3.0, -4.0))]
    event.deposit([(photons[0], 9.0), (photons[1], 4.0), (photons[2], 4.0)])
    raw, links, targets = truth_of(event)
    assert targets.merged_into.tolist() == [-1, 0, 0]
    # running sums: 10 + 5 + 5 GeV along (17, -1); the last one alone would give 15 GeV
    assert targets.cluster[0, ENERGY] == pytest.approx(20.0, abs=GEV)
    assert targets.cluster[0, PT] == pytest.approx(np.hypot(17, -1), abs=GEV)
    assert targets.num_lost.tolist() == [0]
    assert_closes(raw, links, targets)


def test_a_particle_without_deposit_is_lost_and_not_merged_into_cluster_zero(truth_of):
    event = HandEvent()
    owner = event.particle(22, 0.0, 10.0)
    event.deposit([(owner, 9.0)])
    winner, loser = event.particle(211, 1.0, 6.0), event.particle(-211, -1.0, 3.0)
    event.track([(winner, 0.7), (loser, 0.6)], pt=6.0)
    raw, links, targets = truth_of(event)
    assert visible_particles(links).tolist() == [True, True, True]
    assert targets.cluster[0, ENERGY] == pytest.approx(10.0, abs=GEV)
    assert targets.num_lost.tolist() == [1]
    assert targets.lost_energy[0] == pytest.approx(3.0, abs=GEV)
    assert targets.lost_charge.tolist() == [-1]
    assert_closes(raw, links, targets)


def test_particles_outside_acceptance_are_lost_and_neutrinos_are_not_counted(truth_of):
    event = simple_event()
    event.particle(211, 1.0, 0.1, 0.0, 40.0)
    event.particle(-14, 0.0, 30.0)
    raw, links, targets = truth_of(event)
    assert targets.num_lost.tolist() == [1]
    assert targets.lost_energy[0] == pytest.approx(40.0, abs=1e-3)  # pt of 0.1 GeV beside 40 GeV
    assert_closes(raw, links, targets)


def test_a_deposit_below_a_tenth_of_the_energy_is_invisible(truth_of):
    event = HandEvent()
    event.deposit([(event.particle(130, 0.0, 10.0), 0.9)])
    event.deposit([(event.particle(130, 0.0, 8.0), 0.9)])
    _, links, _ = truth_of(event)
    assert visible_particles(links).tolist() == [False, True]


def test_links_of_secondaries_belong_to_their_stable_ancestor(truth_of):
    event = HandEvent()
    photon = event.particle(22, 0.0, 10.0)
    electron = event.particle(11, -1.0, 6.0, status=0, parent=photon)
    brems = event.particle(22, 0.0, 2.0, status=0, parent=electron)
    event.deposit([(electron, 4.0), (brems, 2.0), (photon, 3.0)])
    event.track([(electron, 1.0)], pt=6.0)
    raw, links, targets = truth_of(event)
    assert links.cluster_energy.toarray()[:, 0] == pytest.approx([9.0, 0, 0], abs=GEV)
    assert targets.cluster[0, [PDG]].tolist() == [22]
    assert targets.track[0, PDG] == 0
    assert_closes(raw, links, targets)


def test_links_of_secondaries_without_parents_are_counted(truth_of):
    event = simple_event()
    secondary = event.particle(11, -1.0, 1.0, status=0)
    event.deposit([(secondary, 1.0)])
    raw, links, targets = truth_of(event, parents=False)
    assert links.counters["hit links without stable particle"] == 1
    assert targets.cluster[2].tolist() == [0] * 7
    assert_closes(raw, links, targets)


def test_a_cycle_of_parents_ends(truth_of):
    event = simple_event()
    first = event.particle(11, -1.0, 1.0, status=0, parent=3)
    event.particle(11, -1.0, 1.0, status=0, parent=first)
    event.deposit([(first, 1.0)])
    _, links, _ = truth_of(event)
    assert links.counters["hit links without stable particle"] == 1


def test_energy_and_charge_close_in_crowded_random_events(truth_of, rng):
    events = []
    for _ in range(20):
        event = HandEvent()
        kinds = rng.choice([0, 1, 2], 30)
        for kind in kinds:
            pdg, charge = ((22, 0.0), (211, 1.0), (-211, -1.0))[kind]
            px, py, pz = rng.normal(0, 5, 3)
            event.particle(pdg, charge, px, py, pz, mass=0.14 * abs(charge))
        for _ in range(8):
            makers = rng.choice(30, 3, replace=False)
            event.track([(int(p), float(w)) for p, w in zip(makers, rng.dirichlet([1, 1, 1]), strict=True)])
        for _ in range(6):
            event.deposit([(int(p), float(rng.exponential(2))) for p in rng.choice(30, 4, replace=False)])
        events.append(event)
    raw, links, targets = truth_of(*events)
    assert (targets.merged_into >= 0).any()
    assert (targets.num_lost > 0).any()
    assert_closes(raw, links, targets)
    used = targets.track_of[targets.track_of >= 0]
    assert len(np.unique(used)) == len(used)


def candidates_of(tmp_path, event):
    (raw,) = read_events(write_edm4hep(tmp_path / "a.root", [event]))
    return candidate_targets(raw)


def two_of_each():
    event = HandEvent()
    for _ in range(2):
        event.track()
        event.cluster([event.hit(1.0)])
    return event


def test_a_candidate_with_several_elements_counts_once_on_the_first(tmp_path):
    event = two_of_each()
    event.candidate(310, 0.0, 5.0, tracks=[1, 0])
    event.candidate(2112, 0.0, 7.0, clusters=[1, 0])
    track, cluster, counters = candidates_of(tmp_path, event)
    assert track[:, PT].tolist() == [0, 5]
    assert cluster[:, PT].tolist() == [0, 7]
    assert cluster[1, PDG] == 130
    assert counters["candidates with several elements"] == 2


def test_a_track_comes_before_clusters_and_type_zero_is_ignored(tmp_path):
    event = two_of_each()
    event.candidate(-11, 1.0, 5.0, tracks=[0], clusters=[0, 1])
    event.candidate(0, 0.0, 9.0, clusters=[1])
    event.candidate(22, 0.0, 9.0)
    track, cluster, counters = candidates_of(tmp_path, event)
    assert track[0, [PDG, CHARGE]].tolist() == [11, 1]
    assert not cluster.any()
    assert counters["candidates without element"] == 1


def test_candidates_on_one_element_add_up(tmp_path):
    event = two_of_each()
    event.candidate(22, 0.0, 3.0, 0.0, clusters=[0])
    event.candidate(22, 0.0, 0.0, 4.0, clusters=[0])
    _, cluster, counters = candidates_of(tmp_path, event)
    assert cluster[0, [PT, ENERGY]].tolist() == [5, 7]
    assert counters["candidates sharing an element"] == 1
