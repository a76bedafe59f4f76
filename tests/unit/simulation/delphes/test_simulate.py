from collections import Counter

import numpy as np
import pytest

from mlpf.data.delphes.truth import gen_targets, prepare_chunk
from mlpf.physics.features import PARTICLE_COLUMNS
from mlpf.physics.particles import CHARGED_HADRON, CLASSES, ELECTRON, MUON
from mlpf.simulation.delphes.detector import CMS_TOWERS
from mlpf.simulation.delphes.simulate import find_impacts, simulate_event
from tests.support.proton_collisions import FakeGenerator, collision

CLASS_OF_LABEL = {particle.pdg: particle.index for particle in CLASSES}


@pytest.fixture(scope="module")
def event():
    return simulate_event(FakeGenerator(), 3)


def test_an_event_depends_on_its_number_only(event):
    again, other = simulate_event(FakeGenerator(), 3), simulate_event(FakeGenerator(), 4)
    for name in ("particles", "tracks", "towers", "charged", "neutral"):
        table = getattr(event, name)
        assert len(table) > 10
        for column, values in table.columns.items():
            np.testing.assert_array_equal(values, getattr(again, name)[column])
    assert not np.array_equal(event.towers["energy"], other.towers["energy"])


def test_unique_ids_are_not_positions(event):
    ids = event.particles["id"]
    assert sorted(ids.tolist()) == list(range(1, len(ids) + 1))
    assert (ids == np.arange(len(ids)) + 1).mean() < 0.1


def test_neutral_particles_go_straight_and_charged_ones_bend(rng):
    particles = collision(rng)
    particles.vz[:] = 0.0
    impacts = find_impacts(particles)
    pt, phi = np.hypot(particles.px, particles.py), np.arctan2(particles.py, particles.px)
    reached = impacts.tower >= 0
    turn = np.mod(impacts.phi - phi + np.pi, 2 * np.pi) - np.pi
    photons = reached & (particles.pdg == 22)
    assert photons.sum() > 300
    np.testing.assert_allclose(turn[photons], 0.0, atol=1e-9)
    np.testing.assert_allclose(impacts.eta[photons], np.arcsinh(particles.pz / pt)[photons], atol=1e-9)
    # In the barrel the half turn of the direction is sin(a) = 0.3 B R / (2 pT).
    sine = 0.299792458 * 3.8 * 1.29 / 2 / pt
    central = (particles.charge != 0) & (sine < 0.9) & (np.abs(impacts.eta) < 1.0) & reached
    assert central.sum() > 100
    np.testing.assert_allclose(
        turn[central], (-particles.charge * np.arcsin(np.minimum(sine, 1)))[central], atol=1e-6
    )


def test_curling_particles_reach_the_endcap(rng):
    particles = collision(rng, mean_pt=0.3)
    pt = np.hypot(particles.px, particles.py)
    radius = pt / (0.299792458e-3 * 3.8)
    eta = np.arcsinh(particles.pz / pt)
    curling = (particles.charge != 0) & (2 * radius < 1200) & (np.abs(eta) < 2.0)
    impacts = find_impacts(particles)
    assert curling.sum() > 200
    # Not reached is only the hole around the beam.
    assert (impacts.tower[curling] >= 0).mean() > 0.9
    reached = curling & (impacts.tower >= 0)
    distance = 3000.0 / np.sinh(np.abs(impacts.eta[reached]))
    assert (distance < 2 * radius[reached] + 1e-6).all()
    assert (np.sign(impacts.eta[reached]) == np.sign(particles.pz[reached])).all()


def test_nothing_reaches_the_calorimeter_beyond_its_last_ring(rng):
    particles = collision(rng)
    particles.vz[:] = 0.0
    eta = np.arcsinh(particles.pz / np.hypot(particles.px, particles.py))
    photons = particles.pdg == 22
    reached = find_impacts(particles).tower >= 0
    np.testing.assert_array_equal(reached[photons], (np.abs(eta) < 5.0)[photons])
    assert not reached[particles.pdg == 12].any()


def test_towers_list_what_falls_into_them(event):
    tower, particle = event.tower_particles.source, event.tower_particles.target
    assert len(np.unique(particle)) == len(particle)
    pdg = np.abs(event.particles["pdg"])
    assert not np.isin(pdg[particle], (12, 13)).any()
    assert (np.diff(tower) >= 0).all()
    # Every tower that is read out has got its energy from something.
    np.testing.assert_array_equal(np.unique(tower), np.arange(len(event.towers)))
    # Photons start on the axis: their azimuth is that of their tower, and eta moves with the vertex only.
    photons = pdg[particle] == 22
    of_tower, of_photon = (
        {name: table[name][rows].astype(np.float64) for name in ("eta", "phi")}
        for table, rows in ((event.towers, tower[photons]), (event.particles, particle[photons]))
    )
    number = CMS_TOWERS.index(of_tower["eta"], of_tower["phi"])
    width = 2 * np.pi / CMS_TOWERS.towers_in_ring[CMS_TOWERS.ring(number)]
    assert len(np.unique(width)) == 3
    turn = np.mod(of_tower["phi"] - of_photon["phi"] + np.pi, 2 * np.pi) - np.pi
    assert (np.abs(turn) < width).all()
    assert np.abs(of_tower["eta"] - of_photon["eta"]).max() < 0.5


def test_tower_energies_close():
    """Measured energy of the towers over that of their particles: 1 up to thresholds and resolution."""
    measured, true = 0.0, 0.0
    for number in range(5):
        event = simulate_event(FakeGenerator(4000), number)
        measured += event.towers["energy"].sum(dtype=np.float64)
        true += event.particles["energy"][event.tower_particles.target].sum(dtype=np.float64)
    assert measured / true == pytest.approx(1.0, abs=0.05)


def test_tower_and_track_targets_hold_every_particle_once(event):
    """Without the rule of 9 GeV, momentum of targets = momentum of particles on a track or in a tower."""
    counters = Counter()
    targets = gen_targets(event, counters)
    towers = targets.towers
    rows = np.concatenate([targets.tracks, towers])
    columns = {name: rows[:, PARTICLE_COLUMNS.index(name)] for name in PARTICLE_COLUMNS.names}
    seen = np.union1d(event.track_particle, event.tower_particles.target)
    listed = event.tower_particles
    tracked = np.isin(listed.target, event.track_particle)
    energy = event.particles["energy"].astype(np.float64)
    per_tower = np.bincount(listed.source[~tracked], energy[listed.target[~tracked]], len(event.towers))
    dropped = per_tower[towers[:, 0] == 0].sum()
    assert counters["towers of a neutral hadron below 9 GeV"] > 10
    assert columns["energy"].sum() + dropped == pytest.approx(energy[seen].sum(), rel=1e-6)
    kept = towers[:, 0] != 0
    of_kept = listed.target[~tracked & kept[listed.source]]
    px = event.particles["pt"].astype(np.float64) * np.cos(event.particles["phi"].astype(np.float64))
    chosen = np.concatenate([event.track_particle, of_kept])
    assert (columns["pt"] * columns["cos_phi"]).sum() == pytest.approx(px[chosen].sum(), rel=1e-4, abs=1e-3)


def test_targets_agree_with_a_loop_over_particles(event):
    """The rules once more, written as they are read."""
    towers = gen_targets(event, Counter()).towers
    p = {name: values.tolist() for name, values in event.particles.columns.items()}
    members = [[] for _ in range(len(event.towers))]
    tracked = set(event.track_particle.tolist())
    for source, target in zip(event.tower_particles.source, event.tower_particles.target, strict=True):
        if target not in tracked:
            members[source].append(target)
    for row, rows in zip(towers, members, strict=True):
        energies = dict.fromkeys((130, 211, 22, 11), 0.0)
        for i in rows:
            code = abs(p["pdg"][i])
            energies[code if code in energies else (211 if abs(p["charge"][i]) == 1 else 130)] += p["energy"][
                i
            ]
        label = max(energies, key=energies.get)
        total = sum(energies.values())
        pz = sum(p["pt"][i] * np.sinh(p["eta"][i]) for i in rows)
        pt = np.hypot(*(sum(p["pt"][i] * f(p["phi"][i]) for i in rows) for f in (np.cos, np.sin)))
        if label == 211 and abs(np.arcsinh(pz / pt)) > 2.5:
            label = 130
        if not rows or (label == 130 and total < 9):
            label, total, pt = 0, 0.0, 0.0
        assert row[PARTICLE_COLUMNS.index("cls")] == CLASS_OF_LABEL[label]
        assert row[PARTICLE_COLUMNS.index("energy")] == pytest.approx(total, rel=1e-5)
        assert row[PARTICLE_COLUMNS.index("pt")] == pytest.approx(pt, rel=1e-4)


def test_tracks_resemble_their_particles(event):
    particle = event.track_particle
    assert len(np.unique(particle)) == len(particle) > 200
    assert (event.particles["charge"][particle] == event.tracks["charge"]).all()
    assert (np.abs(event.particles["eta"][particle]) < 2.5).all()
    assert (event.particles["pt"][particle] > 0.4).all()
    ratio = event.tracks["pt"] / event.particles["pt"][particle]
    assert 0.01 < np.std(ratio) < 0.025
    assert np.abs(event.tracks["eta"] - event.particles["eta"][particle]).max() < 0.06


def test_the_baseline_finds_every_track_and_neutral_excess(event):
    prepared, _, counters, _ = prepare_chunk(event)
    cand, x = prepared["track"]["ycand"], prepared["track"]["X"]
    np.testing.assert_allclose(cand[:, PARTICLE_COLUMNS.index("pt")], x[:, 1], rtol=1e-6)
    assert set(np.unique(cand[:, 0])) == {CHARGED_HADRON, ELECTRON, MUON}
    assert counters["charged candidates without track"] == 0
    assert counters["neutral candidates without tower"] == 0
    towers = prepared["tower"]["ycand"]
    energy = PARTICLE_COLUMNS.index("energy")
    assert (towers[:, energy] <= event.towers["energy"] * (1 + 1e-6)).all()
    # A tower that no track points to is a candidate whole.
    alone = np.setdiff1d(
        np.arange(len(event.towers)),
        event.tower_particles.source[np.isin(event.tower_particles.target, event.track_particle)],
    )
    assert len(alone) > 100
    np.testing.assert_allclose(towers[alone, energy], event.towers["energy"][alone], rtol=1e-5)
