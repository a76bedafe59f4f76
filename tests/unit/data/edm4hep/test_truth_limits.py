from dataclasses import replace

import numpy as np
import pytest

from mlpf.config.detector import CLIC
from mlpf.data.edm4hep.truth import link_truth
from mlpf.data.edm4hep.truth_limits import gen_particles, oracle_particles, perfect_particles
from mlpf.physics.features import PARTICLE_COLUMNS
from mlpf.physics.particles import CHARGED_HADRON, NEUTRAL_HADRON, PHOTON
from tests.support.edm4hep_files import HandEvent, simple_event
from tests.support.raw_events import raw_events

CLS, CHARGE, PT, ENERGY = (PARTICLE_COLUMNS.index(n) for n in ("cls", "charge", "pt", "energy"))
GEV = 2e-5  # masses of classes are rounded to that


def limits_of(*events, kind="cluster"):
    """Rows and events of the three lists."""
    raw = raw_events(*events)
    links = link_truth(raw, kind)
    return [make(raw, links) for make in (gen_particles, oracle_particles, perfect_particles)]


def test_all_lists_agree_on_a_clean_event():
    for rows, event in limits_of(simple_event(10.0), simple_event(20.0)):
        assert event.tolist() == [0, 0, 1, 1]
        assert rows[:, CLS].tolist() == [CHARGED_HADRON, PHOTON] * 2
        assert rows[:, CHARGE].tolist() == [1, 0] * 2
    oracle = limits_of(simple_event(10.0))[1][0]
    assert oracle[:, ENERGY] == pytest.approx([np.hypot(10, 0.13957), 5.0], abs=GEV)


def test_generator_particles_include_those_outside_acceptance_but_no_neutrinos():
    event = simple_event()
    event.particle(22, 0.0, 0.0, 0.0, 50.0)
    event.particle(12, 0.0, 7.0)
    event.particle(211, 1.0, 3.0, status=2)
    rows, _ = limits_of(event)[0]
    assert rows[:, CLS].tolist() == [CHARGED_HADRON, PHOTON, PHOTON]
    assert rows[2, PT] == 0


def mixed_cluster(neutral_energy):
    event = HandEvent()
    pion, neutron = event.particle(211, 1.0, 8.0), event.particle(2112, 0.0, 9.0, mass=0.94)
    event.track([(pion, 1.0)], pt=8.0)
    ecal = event.hit(4.0, [(pion, 4.0 - neutral_energy), (neutron, neutral_energy)])
    hcal = event.hit(1.0, [(pion, 0.5), (neutron, 0.5)], "HCALBarrel")
    event.cluster([ecal, hcal])
    return event


def test_the_oracle_keeps_a_cluster_whole_or_absorbs_it():
    kept, _ = limits_of(mixed_cluster(2.1))[1]  # 2.6 of 5 GeV are neutral
    assert kept[:, CLS].tolist() == [CHARGED_HADRON, NEUTRAL_HADRON]
    assert kept[1, ENERGY] == pytest.approx(4.0 / 0.80 + 1.0, abs=GEV)
    absorbed, _ = limits_of(mixed_cluster(1.9))[1]
    assert absorbed[:, CLS].tolist() == [CHARGED_HADRON]


def test_perfect_assignment_takes_only_the_particle_s_own_hits():
    rows, _ = limits_of(mixed_cluster(2.0))[2]
    assert rows[:, CLS].tolist() == [CHARGED_HADRON, NEUTRAL_HADRON]
    assert rows[1, ENERGY] == pytest.approx(2.0 / 0.80 + 0.5, abs=GEV)
    assert rows[1, PT] == pytest.approx(rows[1, ENERGY], abs=GEV)  # massless, at z = 0


def test_energies_follow_from_the_detector():
    raw = raw_events(mixed_cluster(2.1))
    other = CLIC.model_copy(update={"field_T": 2.0, "ecal_hadron_response": 0.5})
    raw = replace(raw, detector=other)
    links = link_truth(raw, "cluster")
    (oracle, _), (perfect, _) = oracle_particles(raw, links), perfect_particles(raw, links)
    assert oracle[1, ENERGY] == pytest.approx(4.0 / 0.5 + 1.0, abs=GEV)
    assert perfect[1, ENERGY] == pytest.approx(2.1 / 0.5 + 0.5, abs=GEV)
    # the curvature was made for 8 GeV in 4 T
    assert oracle[0, PT] == perfect[0, PT] == pytest.approx(4.0, abs=GEV)


def test_a_split_track_is_used_by_the_oracle_and_not_by_perfect_assignment():
    event = HandEvent()
    pion = event.particle(211, 1.0, 8.0)
    event.track([(pion, 0.5)], pt=7.0)
    event.deposit([(pion, 4.0)], "HCALBarrel")
    _, (oracle, _), (perfect, _) = limits_of(event)
    assert oracle[:, PT] == pytest.approx([7.0], abs=GEV)
    assert perfect[:, PT] == pytest.approx([4.0], abs=GEV)


def test_of_two_tracks_the_better_one_is_used_once():
    event = HandEvent()
    pion = event.particle(211, 1.0, 8.0)
    event.track([(pion, 0.7)], pt=7.0)
    event.track([(pion, 0.9)], pt=9.0)
    for rows, _ in limits_of(event)[1:]:
        assert rows[:, PT] == pytest.approx([9.0], abs=GEV)


def test_deposits_below_threshold_are_no_perfect_particle():
    event = HandEvent()
    event.deposit([(event.particle(22, 0.0, 1.0), 0.04)])
    assert len(limits_of(event)[2][0]) == 0


def test_the_lists_do_not_depend_on_what_the_elements_are():
    events = [mixed_cluster(2.1), simple_event(), mixed_cluster(1.9)]
    for clusters, hits in zip(limits_of(*events), limits_of(*events, kind="hit"), strict=True):
        np.testing.assert_array_equal(clusters[0], hits[0])
        np.testing.assert_array_equal(clusters[1], hits[1])
        assert len(hits[0])
