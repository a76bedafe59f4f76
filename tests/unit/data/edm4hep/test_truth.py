import numpy as np
import pytest

from mlpf.data.edm4hep.truth import candidate_targets, elements_of, gen_targets, link_truth, visible_particles
from mlpf.physics.features import PARTICLE_COLUMNS
from mlpf.physics.particles import CHARGED_HADRON, ELECTRON, NEUTRAL_HADRON, PHOTON
from tests.support.edm4hep_files import HandEvent, simple_event
from tests.support.raw_events import raw_events

CLS, CHARGE, PT, ENERGY = (PARTICLE_COLUMNS.index(n) for n in ("cls", "charge", "pt", "energy"))
GEV = 1e-9  # sums of about 100 GeV in double precision
KINDS = ("cluster", "hit")


def truth_of(*events, kind="cluster"):
    """Raw tables, links and targets."""
    raw = raw_events(*events)
    links = link_truth(raw, kind)
    return raw, links, gen_targets(raw, links)


def shared(event, links):
    """One cluster of one hit with these (particle, energy), so that clusters and hits have the same truth."""
    return event.cluster([event.hit(sum(energy for _, energy in links), links)])


def assert_closes(raw, links, targets):
    """Energy and charge of stable particles are on targets or lost, per event."""
    num, particles = len(raw), raw.particles
    elements = raw.clusters if len(targets.element) == len(raw.clusters) else raw.hits

    def per_event(table, values):
        return np.bincount(table.event, values, minlength=num)

    energy = per_event(particles, links.energy * links.stable) - targets.lost_energy
    charge = per_event(particles, particles["charge"] * links.stable) - targets.lost_charge
    for table, rows in ((raw.tracks, targets.track), (elements, targets.element)):
        energy -= per_event(table, rows[:, ENERGY])
        charge -= per_event(table, rows[:, CHARGE])
    np.testing.assert_allclose(energy, 0, atol=GEV)
    np.testing.assert_allclose(charge, 0, atol=GEV)


@pytest.mark.parametrize("kind", KINDS)
def test_a_charged_particle_takes_its_track_and_a_photon_its_element(kind):
    raw, links, targets = truth_of(simple_event(), kind=kind)
    assert targets.track[0, [CLS, CHARGE]].tolist() == [CHARGED_HADRON, 1]
    # The pion's own element is absorbed; hits are in the order of their collections.
    expected = {"cluster": [0, PHOTON], "hit": [PHOTON, 0]}
    assert targets.element[:, CLS].tolist() == expected[kind]
    assert targets.track[0, ENERGY] == pytest.approx(np.hypot(10, 0.1396), abs=GEV)
    assert targets.num_lost.tolist() == [0]
    assert_closes(raw, links, targets)


def test_hit_weights_are_shares_of_the_calibrated_energy():
    event = HandEvent()
    first, second = event.particle(22, 0.0, 9.0), event.particle(22, 0.0, 1.0)
    # The weights are in arbitrary units of the sub-detector: only their ratio counts.
    event.cluster([event.hit(8.0, [(first, 3e-6), (second, 1e-6)])])
    _, links, _ = truth_of(event)
    np.testing.assert_allclose(links.hit_energy.toarray().ravel(), [6.0, 2.0], atol=GEV)
    np.testing.assert_allclose(links.cluster_energy.toarray().ravel(), [6.0, 2.0], atol=GEV)


def test_weights_that_are_not_positive_carry_nothing():
    event = HandEvent()
    first, second = event.particle(22, 0.0, 9.0), event.particle(22, 0.0, 1.0)
    event.cluster([event.hit(8.0, [(first, 1.0), (second, -1.0)]), event.hit(2.0, [(second, 0.0)])])
    _, links, _ = truth_of(event)
    assert links.hit_energy.toarray().tolist() == [[8.0, 0.0], [0.0, 0.0]]


def test_duplicate_links_add_up():
    event = HandEvent()
    photon = event.particle(22, 0.0, 4.0)
    event.cluster([event.hit(4.0, [(photon, 1.0), (photon, 1.0)])])
    event.track([(event.particle(211, 1.0, 4.0), 0.3)] * 2)
    _, links, _ = truth_of(event)
    assert links.hit_energy.nnz == 1
    assert links.cluster_energy.sum() == pytest.approx(4.0, abs=GEV)
    assert links.track_weight.max() == pytest.approx(0.6, abs=GEV)


def test_a_one_hit_link_cannot_claim_a_track():
    for kind in KINDS:
        event = HandEvent()
        energetic = event.particle(211, 1.0, 50.0)
        soft = event.particle(-211, -1.0, 2.0)
        shared(event, [(energetic, 30.0)])
        event.track([(energetic, 0.1), (soft, 0.9)], pt=2.0)
        raw, links, targets = truth_of(event, kind=kind)
        assert targets.track[0, CHARGE] == -1
        assert targets.track[0, PT] == pytest.approx(2.0, abs=GEV)
        assert targets.element[0, [CLS, CHARGE]].tolist() == [NEUTRAL_HADRON, 0]
        assert targets.lost_charge.tolist() == [1]  # the target of an element is neutral
        assert_closes(raw, links, targets)


def test_the_largest_link_claims_a_track_even_below_one_half():
    event = HandEvent()
    first, second = event.particle(211, 1.0, 5.0), event.particle(211, 1.0, 4.0)
    event.deposit([(first, 3.0)])
    event.deposit([(second, 3.0)])
    event.track([(first, 0.35), (second, 0.45)])
    _, _, targets = truth_of(event)
    assert targets.track_of.tolist() == [-1, 0]


def test_of_two_halves_of_a_track_the_one_of_higher_energy_has_it():
    event = HandEvent()
    soft, hard = event.particle(211, 1.0, 5.0), event.particle(-211, -1.0, 6.0)
    event.deposit([(soft, 3.0)])
    event.deposit([(hard, 3.0)])
    event.track([(soft, 0.5), (hard, 0.5)])
    _, _, targets = truth_of(event)
    assert targets.track_of.tolist() == [-1, 0]
    assert targets.element_of.tolist() == [0, -1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_neutral_particle_never_takes_a_track(kind):
    event = HandEvent()
    photon = event.particle(22, 0.0, 5.0)
    event.track([(photon, 1.0)])
    shared(event, [(photon, 5.0)])
    raw, links, targets = truth_of(event, kind=kind)
    assert targets.track[0].tolist() == [0] * 7
    assert targets.element[0, CLS] == PHOTON
    assert_closes(raw, links, targets)


@pytest.mark.parametrize("kind", KINDS)
def test_a_converted_photon_with_two_tracks_stands_on_one_element(kind):
    event = HandEvent()
    photon = event.particle(22, 0.0, 10.0)
    positron = event.particle(-11, 1.0, 6.0, status=0, parent=photon)
    electron = event.particle(11, -1.0, 4.0, status=0, parent=photon)
    event.track([(positron, 1.0)], pt=6.0)
    event.track([(electron, 1.0)], pt=4.0)
    shared(event, [(electron, 3.5)])
    shared(event, [(positron, 5.5)])
    raw, links, targets = truth_of(event, kind=kind)
    assert not targets.track.any()
    assert targets.element[:, CLS].tolist() == [0, PHOTON]
    assert targets.element[1, ENERGY] == pytest.approx(10.0, abs=GEV)
    assert_closes(raw, links, targets)


@pytest.mark.parametrize("kind", KINDS)
def test_a_decay_in_flight_belongs_to_the_particle_that_decayed(kind):
    event = HandEvent()
    kaon = event.particle(321, 1.0, 12.0, mass=0.494)
    muon = event.particle(-13, 1.0, 9.0, status=0, parent=kaon, mass=0.106)
    event.particle(14, 0.0, 3.0, status=0, parent=kaon)
    event.track([(kaon, 0.3), (muon, 0.7)], pt=11.0)  # a kink that was fitted as one track
    event.track([(muon, 0.4)], pt=9.0)
    shared(event, [(muon, 0.5)])
    raw, links, targets = truth_of(event, kind=kind)
    assert links.track_weight.toarray()[kaon].tolist() == pytest.approx([1.0, 0.4], abs=GEV)
    assert targets.track[:, CLS].tolist() == [CHARGED_HADRON, 0]
    assert targets.track[0, ENERGY] == pytest.approx(np.hypot(12, 0.494), abs=GEV)
    assert targets.element[0].tolist() == [0] * 7
    assert_closes(raw, links, targets)


@pytest.mark.parametrize("kind", KINDS)
def test_a_charged_particle_without_track_owns_its_largest_free_element_as_neutral(kind):
    event = HandEvent()
    big = event.particle(22, 0.0, 20.0)
    proton = event.particle(2212, 1.0, 8.0, mass=0.938)
    electron = event.particle(11, -1.0, 7.0)
    shared(event, [(big, 15.0), (proton, 4.0)])
    shared(event, [(proton, 1.0)])
    shared(event, [(proton, 2.0)])
    shared(event, [(electron, 6.0)])
    raw, links, targets = truth_of(event, kind=kind)
    assert targets.element_of.tolist() == [0, 2, 3]
    assert targets.element[:, CLS].tolist() == [PHOTON, 0, NEUTRAL_HADRON, PHOTON]
    assert not targets.element[:, CHARGE].any()
    assert targets.lost_charge.tolist() == [0]  # of proton and electron together
    assert_closes(raw, links, targets)


def test_a_split_shower_counts_once_on_its_larger_cluster_or_its_largest_hit():
    event = HandEvent()
    photon = event.particle(22, 0.0, 20.0)
    event.deposit([(photon, 5.0), (photon, 5.5)])
    event.deposit([(photon, 9.0)])
    _, _, clusters = truth_of(event)
    assert clusters.element[:, ENERGY].tolist() == [20.0, 0.0]
    _, _, hits = truth_of(event, kind="hit")
    assert hits.element[:, ENERGY].tolist() == [0.0, 0.0, 20.0]


def test_a_hit_of_two_particles_goes_to_the_one_of_higher_energy():
    event = HandEvent()
    soft, hard = event.particle(22, 0.0, 6.0), event.particle(22, 0.0, 10.0)
    both = event.hit(8.0, [(soft, 4.5), (hard, 3.5)])
    event.cluster([both, event.hit(1.0, [(soft, 1.0)]), event.hit(2.0, [(hard, 2.0)])])
    raw, links, targets = truth_of(event, kind="hit")
    # The harder one made less of the shared hit, but it is the hit it left most in.
    assert targets.element_of.tolist() == [1, 0]
    assert_closes(raw, links, targets)
    _, _, clusters = truth_of(event)
    assert clusters.merged_into.tolist() == [hard, -1]  # one cluster, one owner


@pytest.mark.parametrize("kind", KINDS)
def test_every_particle_left_over_is_added_to_the_owner_of_its_best_element(kind):
    event = HandEvent()
    momenta = ((10.0, 0.0), (4.0, 3.0), (3.0, -4.0), (0.0, 4.0))
    photons = [event.particle(22, 0.0, px, py) for px, py in momenta]
    shared(event, list(zip(photons, (9.0, 4.0, 4.0, 3.0), strict=True)))
    raw, links, targets = truth_of(event, kind=kind)
    assert targets.merged_into.tolist() == [-1, 0, 0, 0]
    # running sums: 10 + 5 + 5 + 4 GeV along (17, 3); the last one alone would give 14 GeV
    assert targets.element[0, ENERGY] == pytest.approx(24.0, abs=GEV)
    assert targets.element[0, PT] == pytest.approx(np.hypot(17, 3), abs=GEV)
    assert targets.num_lost.tolist() == [0]
    assert targets.counters["particles merged into another"] == 3
    assert_closes(raw, links, targets)


@pytest.mark.parametrize("kind", KINDS)
def test_a_guest_goes_to_the_owner_and_not_to_the_particle_with_a_track(kind):
    event = HandEvent()
    pion = event.particle(211, 1.0, 30.0)
    first, second = event.particle(22, 0.0, 20.0), event.particle(22, 0.0, 15.0)
    guest = event.particle(211, 1.0, 4.0)
    event.track([(pion, 1.0)], pt=30.0)
    shared(event, [(first, 18.0), (guest, 1.0)])
    shared(event, [(pion, 9.0), (second, 14.0), (guest, 1.5)])
    raw, links, targets = truth_of(event, kind=kind)
    assert targets.element_of.tolist() == [-1, 0, 1, -1]
    assert targets.merged_into[guest] == second
    assert targets.element[1, ENERGY] == pytest.approx(19.0, abs=GEV)
    assert targets.element[1, CHARGE] == 0
    assert targets.lost_charge.tolist() == [1]  # energy merges, charge does not
    assert_closes(raw, links, targets)


def test_a_particle_without_deposit_is_lost_and_not_merged_into_element_zero():
    for kind in KINDS:
        event = HandEvent()
        shared(event, [(event.particle(22, 0.0, 10.0), 9.0)])
        winner, loser = event.particle(211, 1.0, 6.0), event.particle(-211, -1.0, 3.0)
        event.track([(winner, 0.7), (loser, 0.6)], pt=6.0)
        raw, links, targets = truth_of(event, kind=kind)
        assert visible_particles(links).tolist() == [True, True, True]
        assert targets.element[0, ENERGY] == pytest.approx(10.0, abs=GEV)
        assert targets.num_lost.tolist() == [1]
        assert targets.lost_energy[0] == pytest.approx(3.0, abs=GEV)
        assert targets.lost_charge.tolist() == [-1]
        assert_closes(raw, links, targets)


@pytest.mark.parametrize("kind", KINDS)
def test_particles_outside_acceptance_are_lost_and_neutrinos_are_not_counted(kind):
    event = simple_event()
    event.particle(211, 1.0, 0.0, 0.0, 40.0)
    event.particle(-14, 0.0, 30.0)
    event.particle(16, 0.0, 30.0)
    raw, links, targets = truth_of(event, kind=kind)
    assert targets.num_lost.tolist() == [1]
    assert targets.lost_energy[0] == pytest.approx(40.0, abs=GEV)
    assert targets.lost_charge.tolist() == [1]
    assert_closes(raw, links, targets)


@pytest.mark.parametrize("kind", KINDS)
def test_a_deposit_below_a_tenth_of_the_energy_is_invisible(kind):
    event = HandEvent()
    shared(event, [(event.particle(130, 0.0, 10.0), 0.9)])
    shared(event, [(event.particle(130, 0.0, 8.0), 0.9)])
    shared(event, [(event.particle(22, 0.0, 0.009), 0.009)])  # below the smallest energy
    _, links, targets = truth_of(event, kind=kind)
    assert visible_particles(links).tolist() == [False, True, False]
    assert targets.num_lost.tolist() == [2]
    assert targets.element_of.tolist() == [-1, 1, -1]


def test_deposits_outside_clusters_make_a_particle_visible_to_hits_only():
    event = HandEvent()
    photon = event.particle(22, 0.0, 5.0)
    event.hit(4.0, [(photon, 1.0)])
    event.cluster([event.hit(0.1, [(photon, 1.0)])])
    raw, links, targets = truth_of(event)
    assert targets.num_lost.tolist() == [1]
    assert_closes(raw, links, targets)
    raw, links, targets = truth_of(event, kind="hit")
    assert targets.element[:, ENERGY].tolist() == [5.0, 0.0]
    assert_closes(raw, links, targets)


@pytest.mark.parametrize("kind", KINDS)
def test_links_of_secondaries_belong_to_their_stable_ancestor(kind):
    event = HandEvent()
    photon = event.particle(22, 0.0, 10.0)
    electron = event.particle(11, -1.0, 6.0, status=0, parent=photon)
    brems = event.particle(22, 0.0, 2.0, status=0, parent=electron)
    shared(event, [(electron, 4.0), (brems, 2.0), (photon, 3.0)])
    raw, links, targets = truth_of(event, kind=kind)
    assert links.element_energy.toarray()[:, 0] == pytest.approx([9.0, 0, 0], abs=GEV)
    assert targets.element[0, CLS] == PHOTON
    assert_closes(raw, links, targets)


def test_links_of_secondaries_without_parents_and_of_neutrinos_are_counted():
    event = simple_event()
    event.deposit([(event.particle(11, -1.0, 1.0, status=0), 1.0)])
    event.track([(event.particle(14, 0.0, 1.0), 1.0)])
    raw, links, targets = truth_of(event)
    assert links.counters["hit links without stable particle"] == 1
    assert links.counters["track links without stable particle"] == 1
    assert targets.element[2].tolist() == [0] * 7
    assert_closes(raw, links, targets)


def test_a_cycle_of_parents_ends():
    event = simple_event()
    first = event.particle(11, -1.0, 1.0, status=0, parent=3)
    event.particle(11, -1.0, 1.0, status=0, parent=first)
    event.deposit([(first, 1.0)])
    _, links, _ = truth_of(event)
    assert links.counters["hit links without stable particle"] == 1


def test_another_kind_of_element_is_refused():
    with pytest.raises(ValueError, match="'tower', expected 'cluster' or 'hit'"):
        elements_of(raw_events(simple_event()), "tower")


def two_of_each():
    event = HandEvent()
    for _ in range(2):
        event.track()
        event.cluster([event.hit(1.0)])
    return event


@pytest.mark.parametrize("kind", KINDS)
def test_a_candidate_with_several_elements_counts_once_on_the_first(kind):
    event = two_of_each()
    event.candidate(310, 0.0, 5.0, tracks=[1, 0])
    event.candidate(2112, 0.0, 7.0, clusters=[1, 0])
    track, element, counters = candidate_targets(raw_events(event), kind)
    assert track[:, PT].tolist() == [0, 5]
    assert element[:, PT].tolist() == [0, 7]
    assert element[1, CLS] == NEUTRAL_HADRON
    assert counters["candidates with several elements"] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_track_comes_before_clusters_and_type_zero_is_ignored(kind):
    event = two_of_each()
    event.candidate(-11, 1.0, 5.0, tracks=[0], clusters=[0, 1])
    event.candidate(0, 0.0, 9.0, clusters=[1])
    event.candidate(22, 0.0, 9.0)
    track, element, counters = candidate_targets(raw_events(event), kind)
    assert track[0, [CLS, CHARGE]].tolist() == [ELECTRON, 1]
    assert not element.any()
    assert counters["candidates without element"] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_candidates_on_one_element_add_up(kind):
    event = two_of_each()
    event.candidate(22, 0.0, 3.0, 0.0, clusters=[0])
    event.candidate(22, 0.0, 0.0, 4.0, clusters=[0])
    _, element, counters = candidate_targets(raw_events(event), kind)
    assert element[0, [PT, ENERGY]].tolist() == [5, 7]
    assert counters["candidates sharing an element"] == 1


def test_the_hit_of_highest_energy_stands_for_the_cluster_of_a_candidate():
    event = HandEvent()
    event.cluster([])
    event.hit(9.0)  # in no cluster
    event.cluster([event.hit(e) for e in (1.0, 3.0, 3.0, 2.0)])
    event.candidate(22, 0.0, 5.0, clusters=[1])
    event.candidate(22, 0.0, 6.0, clusters=[0])
    raw = raw_events(event)
    _, element, counters = candidate_targets(raw, "hit")
    assert element[:, ENERGY].tolist() == [0, 0, 5, 0, 0]
    assert counters["candidates without element"] == 1  # its cluster has no hits
    assert candidate_targets(raw)[1][:, ENERGY].tolist() == [6, 5]
