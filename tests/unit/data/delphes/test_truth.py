import numpy as np
import pytest

from mlpf.data.delphes.truth import prepare_chunk
from mlpf.physics.features import DELPHES_TOWER_FEATURES, DELPHES_TRACK_FEATURES, PARTICLE_COLUMNS
from mlpf.physics.particles import CHARGED_HADRON, ELECTRON, MUON, NEUTRAL_HADRON, PHOTON
from tests.support.delphes_files import HandDelphes, memory_tree, read_memory

NOTHING = [0.0] * len(PARTICLE_COLUMNS)


def prepare(*events):
    """Return prepared arrays and counters."""
    chunk = prepare_chunk(read_memory(memory_tree(events), len(events)))
    arrays = {
        f"{column}_{kind}": values
        for kind, table in chunk.events.tables.items()
        for column, values in table.columns.items()
    }
    return arrays, chunk.counters


def named(row):
    return dict(zip(PARTICLE_COLUMNS.names, row.tolist(), strict=True))


def tower_of(*particles, eta=0.0):
    """The target of one tower, made of particles given as arguments of ``HandDelphes.particle``."""
    event = HandDelphes()
    event.tower([event.particle(*particle) for particle in particles], eta)
    return prepare(event)[0]["ygen_tower"][0]


def test_track_features_have_their_columns():
    event = HandDelphes()
    event.track(event.particle(13, -1, 4.0), 5.0, 1.5, 0.3, -1, EtaOuter=1.7, PhiOuter=0.9)
    event.track(event.particle(-11, 1, 4.0), 6.0)
    muon, electron = prepare(event)[0]["X_track"]
    expected = {
        "elemtype": 2, "pt": 5.0, "eta": 1.5, "sin_phi": np.sin(0.3), "cos_phi": np.cos(0.3),
        "p": 5.0 * np.cosh(1.5), "eta_outer": 1.7, "sin_phi_outer": np.sin(0.9), "cos_phi_outer": np.cos(0.9),
        "charge": -1, "is_gen_muon": 1, "is_gen_electron": 0,
    }  # fmt: skip
    assert set(expected) == set(DELPHES_TRACK_FEATURES.names)
    assert muon == pytest.approx([expected[name] for name in DELPHES_TRACK_FEATURES.names], rel=1e-6)
    truth = slice(DELPHES_TRACK_FEATURES.index("is_gen_muon"), None)
    assert electron[truth].tolist() == [0, 1]


def test_tower_features_have_their_columns():
    event = HandDelphes()
    event.tower([], eta=-2.0, phi=2.5, em=3.0, had=4.0)
    (row,) = prepare(event)[0]["X_tower"]
    expected = {
        "elemtype": 1, "et": 7.0 / np.cosh(2.0), "eta": -2.0, "sin_phi": np.sin(2.5), "cos_phi": np.cos(2.5),
        "energy": 7.0, "energy_em": 3.0, "energy_had": 4.0,
    }  # fmt: skip
    assert row == pytest.approx([expected.get(name, 0) for name in DELPHES_TOWER_FEATURES.names], rel=1e-6)


@pytest.mark.parametrize(
    ("pdg", "charge", "cls"),
    [
        (211, 1, CHARGED_HADRON),
        (-211, -1, CHARGED_HADRON),
        (321, 1, CHARGED_HADRON),
        (-11, 1, ELECTRON),
        (13, -1, MUON),
        (-3112, 1, CHARGED_HADRON),
    ],
)
def test_a_track_stands_for_its_particle(pdg, charge, cls):
    event = HandDelphes()
    event.track(event.particle(pdg, charge, 3.0, 1.0, 0.5, energy=7.0), pt=9.0, eta=1.2, charge=charge)
    row = named(prepare(event)[0]["ygen_track"][0])
    assert row == pytest.approx(
        {"cls": cls, "charge": charge, "pt": 3.0, "eta": 1.0, "energy": 7.0}
        | {"sin_phi": np.sin(0.5), "cos_phi": np.cos(0.5)}
    )


def test_an_unknown_neutral_particle_is_a_neutral_hadron():
    event = HandDelphes()
    event.track(event.particle(9900022, 0, 3.0))
    event.tower([event.particle(9900022, 0, 30.0)])
    arrays, _ = prepare(event)
    assert named(arrays["ygen_track"][0])["cls"] == NEUTRAL_HADRON
    assert named(arrays["ygen_tower"][0])["cls"] == NEUTRAL_HADRON


def test_a_track_without_particle_has_no_target():
    event = HandDelphes()
    event.particle(211, 1, 3.0)
    event.track(0)
    arrays, counters = prepare(event)
    assert arrays["ygen_track"].tolist() == [NOTHING]
    assert counters["tracks without particle"] == 1


def test_a_particle_is_the_target_of_one_track():
    event = HandDelphes()
    pion = event.particle(211, 1, 3.0)
    event.track(pion)
    event.track(pion)
    arrays, counters = prepare(event)
    assert arrays["ygen_track"][:, 0].tolist() == [CHARGED_HADRON, 0]
    assert counters["further tracks of a particle"] == 1


def test_a_tower_is_the_sum_of_its_particles_without_track():
    event = HandDelphes()
    pion = event.particle(211, 1, 50.0)
    photon = event.particle(22, 0, 3.0, 1.0, 0.2)
    other = event.particle(22, 0, 4.0, 1.2, 0.3)
    event.track(pion)
    event.tower([pion, photon, other])
    row = named(prepare(event)[0]["ygen_tower"][0])
    px = 3 * np.cos(0.2) + 4 * np.cos(0.3)
    py = 3 * np.sin(0.2) + 4 * np.sin(0.3)
    pz = 3 * np.sinh(1.0) + 4 * np.sinh(1.2)
    pt = np.hypot(px, py)
    assert row == pytest.approx(
        {
            "cls": PHOTON,
            "charge": 0,
            "pt": pt,
            "eta": np.arcsinh(pz / pt),
            "sin_phi": py / pt,
            "cos_phi": px / pt,
            "energy": 3 * np.cosh(1.0) + 4 * np.cosh(1.2),
        },
        rel=1e-5,
    )


def test_a_tower_whose_particles_all_have_tracks_is_empty():
    event = HandDelphes()
    pion = event.particle(211, 1, 50.0)
    event.track(pion)
    event.tower([pion])
    assert prepare(event)[0]["ygen_tower"].tolist() == [NOTHING]


def test_the_species_with_most_energy_names_a_tower():
    photons = [(22, 0, 4.0), (22, 0, 4.0)]
    assert tower_of(*photons, (130, 0, 7.0))[0] == PHOTON
    assert tower_of(*photons, (130, 0, 9.0))[0] == NEUTRAL_HADRON
    # Neutrons, kaons and lambdas count together, charged ones of any kind as well.
    assert tower_of(*photons, (2112, 0, 5.0), (3122, 0, 4.5))[0] == NEUTRAL_HADRON
    assert tower_of(*photons, (321, 1, 5.0), (-2212, -1, 4.5))[0] == CHARGED_HADRON
    assert tower_of(*photons, (11, -1, 9.0))[0] == ELECTRON


def test_of_equal_energies_the_first_class_wins():
    assert tower_of((22, 0, 16.0), (130, 0, 16.0))[0] == NEUTRAL_HADRON
    assert tower_of((11, -1, 16.0), (22, 0, 16.0))[0] == PHOTON
    assert tower_of((22, 0, 16.0), (211, 1, 16.0))[0] == CHARGED_HADRON


def test_a_muon_without_track_looks_like_a_charged_hadron():
    assert named(tower_of((13, -1, 16.0)))["cls"] == CHARGED_HADRON


def test_only_particles_of_charge_one_are_charged_hadrons_in_a_tower():
    alpha = (1000020040, 2, 20.0)
    row = named(tower_of(alpha))
    assert (row["cls"], row["charge"]) == (NEUTRAL_HADRON, 0)
    assert tower_of(alpha, (211, 1, 19.0))[0] == NEUTRAL_HADRON
    assert tower_of(alpha, (211, 1, 21.0))[0] == CHARGED_HADRON


def test_a_track_keeps_a_charge_of_two():
    event = HandDelphes()
    event.track(event.particle(1000020040, 2, 20.0), charge=2)
    row = named(prepare(event)[0]["ygen_track"][0])
    assert (row["cls"], row["charge"]) == (CHARGED_HADRON, 2)


def test_an_unknown_charge_is_no_charge():
    event = HandDelphes()
    unknown = event.particle(9900022, -999, 30.0)
    event.track(unknown, charge=-999)
    event.charged("PFChargedHadron", unknown, charge=999)
    event.tower([event.particle(9900022, -999, 30.0), event.particle(211, 1, 29.0)])
    arrays, counters = prepare(event)
    assert arrays["X_track"][0, DELPHES_TRACK_FEATURES.index("charge")] == 0
    assert arrays["ycand_track"][0, PARTICLE_COLUMNS.index("charge")] == 0
    for name in ("ygen_track", "ygen_tower"):
        row = named(arrays[name][0])
        assert (row["cls"], row["charge"]) == (NEUTRAL_HADRON, 0)
    assert counters["charges that Delphes does not know"] == 4


def test_neutrinos_leave_nothing_in_a_tower():
    row = named(tower_of((22, 0, 2.0), (-14, 0, 50.0)))
    assert row["cls"] == PHOTON
    assert row["energy"] == pytest.approx(2.0)


def test_the_charge_of_a_tower_is_that_of_its_leading_particle_of_the_species():
    row = named(tower_of((211, 1, 3.0), (-211, -1, 8.0), (211, 1, 4.0), (11, 1, 9.0)))
    assert (row["cls"], row["charge"]) == (CHARGED_HADRON, -1)
    assert named(tower_of((11, -1, 8.0), (-11, 1, 3.0)))["charge"] == -1
    assert named(tower_of((22, 0, 8.0), (-11, 1, 3.0)))["charge"] == 0


def test_beyond_the_tracker_charged_hadrons_are_neutral_hadrons():
    inside, outside = (
        named(tower_of((211, 1, 5.0, 2.4))),
        named(tower_of((211, 1, 5.0, -2.6))),
    )
    assert (inside["cls"], inside["charge"]) == (CHARGED_HADRON, 1)
    assert (outside["cls"], outside["charge"]) == (NEUTRAL_HADRON, 0)
    assert tower_of((11, -1, 5.0, 2.6))[0] == ELECTRON


def test_neutral_hadrons_need_nine_gev():
    assert tower_of((130, 0, 8.99)).tolist() == NOTHING
    assert tower_of((130, 0, 9.01))[0] == NEUTRAL_HADRON
    # Charged hadrons that become neutral beyond the tracker need them too; photons need nothing.
    assert tower_of((211, 1, 1.0, 2.6)).tolist() == NOTHING
    assert tower_of((22, 0, 0.1))[0] == PHOTON


def test_soft_neutral_hadrons_are_counted():
    event = HandDelphes()
    event.tower([event.particle(130, 0, 8.0)])
    event.tower([event.particle(130, 0, 10.0)])
    assert prepare(event)[1]["towers of a neutral hadron below 9 GeV"] == 1


def test_a_particle_counts_in_one_tower():
    event = HandDelphes()
    photon = event.particle(22, 0, 5.0)
    event.tower([photon], em=1.0)
    event.tower([photon], em=4.0)
    arrays, counters = prepare(event)
    assert arrays["ygen_tower"][:, 0].tolist() == [0, PHOTON]
    assert counters["further towers of a particle"] == 1


def test_a_particle_along_the_beam_keeps_its_direction():
    row = named(tower_of((22, 0, 0.0, -999.9, 0.0, 50.0), (22, 0, 1.0, 0.0, 0.0)))
    assert row["energy"] == pytest.approx(51.0)
    assert row["eta"] == pytest.approx(np.arcsinh(-50.0))


def test_charged_candidates_follow_their_particle():
    event = HandDelphes()
    pion, muon = event.particle(211, 1, 3.0), event.particle(13, -1, 4.0)
    event.track(muon)
    event.track(pion)
    event.charged("PFChargedHadron", pion, 2.0, 1.5, 0.4)
    event.charged("PFMuon", muon, 5.0, -1.0, 0.1, charge=-1)
    rows = [named(row) for row in prepare(event)[0]["ycand_track"]]
    assert rows[0] == pytest.approx(
        {"cls": MUON, "charge": -1, "pt": 5.0, "eta": -1.0, "energy": 5.0 * np.cosh(1.0)}
        | {"sin_phi": np.sin(0.1), "cos_phi": np.cos(0.1)}
    )
    assert rows[1]["cls"] == CHARGED_HADRON
    assert rows[1]["energy"] == pytest.approx(2.0 * np.cosh(1.5))


def test_several_tracks_share_the_candidates_of_their_particle():
    event = HandDelphes()
    electron = event.particle(11, -1, 3.0)
    for _ in range(3):
        event.track(electron)
    event.charged("PFElectron", electron, 2.0)
    event.charged("PFChargedHadron", electron, 1.0)
    # In the order charged hadrons, electrons, muons; each is used once.
    assert prepare(event)[0]["ycand_track"][:, 0].tolist() == [CHARGED_HADRON, ELECTRON, 0]


def test_candidates_that_belong_to_nothing_are_counted():
    event = HandDelphes()
    pion, other = event.particle(211, 1, 3.0), event.particle(211, 1, 3.0)
    event.track(pion)
    event.track(0)
    event.charged("PFChargedHadron", pion)
    event.charged("PFChargedHadron", other)
    event.charged("PFChargedHadron", 0)
    event.tower([], 0.5, 0.5)
    event.neutral("PFPhoton", 2.0, 0.5, 0.6)
    arrays, counters = prepare(event)
    assert arrays["ycand_track"][:, 0].tolist() == [CHARGED_HADRON, 0]
    assert arrays["ycand_tower"].tolist() == [NOTHING]
    assert counters["charged candidates without track"] == 2
    assert counters["neutral candidates without tower"] == 1


def test_neutral_candidates_follow_the_direction_of_their_tower():
    event = HandDelphes()
    event.tower([], 0.5, 0.5)
    event.tower([], 1.5, 0.5)
    event.neutral("PFNeutralHadron", 20.0, 1.5, 0.5)
    empty, row = prepare(event)[0]["ycand_tower"]
    assert empty.tolist() == NOTHING
    assert named(row) == pytest.approx(
        {"cls": NEUTRAL_HADRON, "charge": 0, "pt": 20.0 / np.cosh(1.5), "eta": 1.5, "energy": 20.0}
        | {"sin_phi": np.sin(0.5), "cos_phi": np.cos(0.5)}
    )


def test_a_direction_is_looked_for_in_its_own_event():
    events = HandDelphes(), HandDelphes()
    for event, energy in zip(events, (2.0, 3.0), strict=True):
        event.tower([], -0.0, 0.5)
        event.neutral("PFPhoton", energy, 0.0, 0.5)
    rows = prepare(*events)[0]["ycand_tower"]
    assert rows[:, PARTICLE_COLUMNS.index("energy")].tolist() == [2.0, 3.0]


@pytest.mark.parametrize(("photon", "cls"), [(20.0, NEUTRAL_HADRON), (40.0, PHOTON)])
def test_two_neutral_candidates_of_a_tower_are_summed(photon, cls):
    event = HandDelphes()
    event.tower([], 0.5, 0.5)
    event.neutral("PFPhoton", photon, 0.5, 0.5)
    event.neutral("PFNeutralHadron", 30.0, 0.5, 0.5)
    row = named(prepare(event)[0]["ycand_tower"][0])
    assert row["cls"] == cls
    assert row["energy"] == pytest.approx(photon + 30.0)
    assert row["pt"] == pytest.approx((photon + 30.0) / np.cosh(0.5))


def test_events_of_a_chunk_do_not_mix():
    def event(pt):
        made = HandDelphes()
        pion, photon = made.particle(211, 1, pt), made.particle(22, 0, 2 * pt)
        made.track(pion)
        made.tower([pion, photon])
        made.charged("PFChargedHadron", pion, pt)
        return made

    together, _ = prepare(event(1.0), HandDelphes(), event(5.0))
    alone = [prepare(event(pt))[0] for pt in (1.0, 5.0)]
    for name, rows in together.items():
        np.testing.assert_array_equal(rows, np.concatenate([arrays[name] for arrays in alone]))
