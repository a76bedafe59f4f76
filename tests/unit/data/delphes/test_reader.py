import awkward as ak
import pytest

from mlpf.data.delphes.reader import BAD_LENGTHS, decode_references
from mlpf.errors import DataError
from mlpf.physics.particles import CHARGED_HADRON, ELECTRON, MUON, PHOTON
from tests.support.conversions import read_delphes
from tests.support.delphes_files import (
    EFLOW_BRANCHES,
    HandDelphes,
    MemoryLeaf,
    memory_tree,
    read_memory,
    simple_delphes,
    write_delphes,
)


def read_one(path):
    (raw,) = read_delphes(path)
    return raw


def test_references_are_unique_ids_and_not_positions(tmp_path):
    event = HandDelphes()
    ids = [event.particle(pdg, 0, 1.0) for pdg in (22, 130, 211)]
    event.track(ids[2])
    event.tower([ids[1], ids[0]])
    event.tower([ids[0]])
    raw = read_one(write_delphes(tmp_path / "a.root", [event]))
    assert raw.track_particle.tolist() == [2]
    assert raw.tower_particles.source.tolist() == [0, 0, 1]
    assert raw.tower_particles.target.tolist() == [1, 0, 0]


def test_references_stay_within_their_event(tmp_path):
    events = [simple_delphes(), HandDelphes(), simple_delphes(20.0)]
    raw = read_one(write_delphes(tmp_path / "a.root", events))
    assert raw.number.tolist() == [0, 1, 2]
    assert raw.track_particle.tolist() == [0, 2]
    assert raw.charged_particle.tolist() == [0, 2]
    assert raw.tower_particles.target.tolist() == [0, 1, 2, 3]
    assert raw.particles["pt"].tolist() == [10.0, 5.0, 20.0, 5.0]
    assert raw.particles.counts.tolist() == [2, 0, 2]


def test_chunks_hold_the_same_as_the_whole(tmp_path):
    path = write_delphes(tmp_path / "a.root", [simple_delphes(10.0 + i) for i in range(5)])
    chunks = list(read_delphes(path, chunk_events=2))
    assert [chunk.number.tolist() for chunk in chunks] == [[0, 1], [2, 3], [4]]
    assert [p for chunk in chunks for p in chunk.particles["pt"][::2].tolist()] == [10, 11, 12, 13, 14]
    assert all(chunk.track_particle.tolist() == [0, 2][: len(chunk)] for chunk in chunks)


def test_references_to_nothing_are_dropped_and_counted(tmp_path):
    event = HandDelphes()
    known = event.particle(211, 1, 1.0)
    event.track(known + 1)
    event.track(0)
    event.tower([known, known + 2, known + 3])
    raw = read_one(write_delphes(tmp_path / "a.root", [event]))
    assert raw.track_particle.tolist() == [-1, -1]
    assert raw.tower_particles.target.tolist() == [0]
    assert raw.counters["references to particles not in the file"] == 3
    assert raw.counters["null references"] == 1


def test_references_as_root_has_them_are_decoded():
    single = ak.Array([[{"@pidf": 0, "ref": 7}, {"@pidf": 0, "ref": 9}], []])
    several = ak.Array([[{"fName": "", "fSize": 2, "refs": [3, 4]}, {"fName": "", "fSize": 0, "refs": []}]])
    assert decode_references(single).to_list() == [[7, 9], []]
    assert decode_references(several).to_list() == [[[3, 4], []]]
    assert decode_references(ak.Array([[1, 2]])).to_list() == [[1, 2]]


def test_files_of_delphes_and_of_the_simulation_read_the_same(tmp_path):
    events = [simple_delphes(), simple_delphes(20.0)]
    events[1].tower([events[1].particle(22, 0, 3.0), events[1].particle(130, 0, 3.0)], 0.3)
    tree = memory_tree(events)
    real = read_memory(tree, 2)
    written = read_one(write_delphes(tmp_path / "a.root", events))
    assert not real.bad[BAD_LENGTHS].any()
    for name in ("track_particle", "charged_particle"):
        assert getattr(real, name).tolist() == getattr(written, name).tolist() != []
    for name in ("source", "target"):
        values = [getattr(raw.tower_particles, name).tolist() for raw in (real, written)]
        assert values[0] == values[1]
        assert len(values[0]) == 6


def test_towers_with_lists_of_another_length_spoil_their_event_only():
    events = [simple_delphes(), simple_delphes()]
    tree = memory_tree(events)
    tree["Tower.Particles"] = MemoryLeaf(ak.concatenate([tree["Tower.Particles"].values[:1], [[]]]))
    raw = read_memory(tree, 2)
    assert raw.bad[BAD_LENGTHS].tolist() == [False, True]
    assert raw.tower_particles.target.tolist() == [0, 1]


@pytest.mark.parametrize("size", [-1, 1, 3])
def test_a_wrong_number_of_references_spoils_its_event_only(tmp_path, size):
    events = [simple_delphes(), simple_delphes(), simple_delphes()]
    events[1].towers[0]["Particles_size"] = size
    raw = read_one(write_delphes(tmp_path / "a.root", events))
    assert raw.bad[BAD_LENGTHS].tolist() == [False, True, False]
    assert raw.tower_particles.source.tolist() == [0, 0, 2, 2]
    assert raw.tower_particles.target.tolist() == [0, 1, 4, 5]


def test_leaves_of_unequal_length_spoil_their_event_only():
    events = [simple_delphes(), simple_delphes()]
    tree = memory_tree(events)
    tree["Track.PT"] = MemoryLeaf(ak.Array([[1.0, 2.0], [3.0]]))
    raw = read_memory(tree, 2)
    assert raw.bad[BAD_LENGTHS].tolist() == [True, False]
    assert raw.tracks["pt"].tolist() == [3.0]
    assert raw.tracks.counts.tolist() == [0, 1]


def test_candidates_come_in_the_order_of_their_branches_within_each_event(tmp_path):
    events = []
    for pt in (1.0, 10.0):
        event = HandDelphes()
        muon, pion = event.particle(13, -1, pt), event.particle(211, 1, pt + 1)
        event.charged("PFMuon", muon, pt)
        event.charged("PFChargedHadron", pion, pt + 1)
        events.append(event)
    raw = read_one(write_delphes(tmp_path / "a.root", events))
    assert raw.charged["cls"].tolist() == [CHARGED_HADRON, MUON, CHARGED_HADRON, MUON]
    assert raw.charged["pt"].tolist() == [2.0, 1.0, 11.0, 10.0]
    assert raw.charged_particle.tolist() == [1, 0, 3, 2]


def test_cards_with_energy_flow_branches_are_read_by_particle_code(tmp_path):
    event = HandDelphes()
    for pdg in (-11, 321, 13):
        event.charged("EFlowTrack", event.particle(pdg, 1, 2.0), pdg=pdg)
    event.neutral("EFlowPhoton", 3.0)
    path = write_delphes(tmp_path / "a.root", [event], particle_branch="Particle", candidates=EFLOW_BRANCHES)
    raw = read_one(path)
    assert raw.charged["cls"].tolist() == [ELECTRON, CHARGED_HADRON, MUON]
    assert raw.charged_particle.tolist() == [0, 1, 2]
    assert raw.neutral["cls"].tolist() == [PHOTON]


def test_a_card_without_candidates_is_read(tmp_path):
    raw = read_one(write_delphes(tmp_path / "a.root", [simple_delphes()], candidates={}))
    assert len(raw.charged) == len(raw.neutral) == len(raw.charged_particle) == 0
    assert raw.track_particle.tolist() == [0]


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        (["Track"], "no branch Track, found .*Tower.* add it to the Delphes card"),
        (["PileUpMix"], "no branch PileUpMix or Particle, found"),
        (["PileUpMix.fUniqueID"], "leaf PileUpMix.fUniqueID is missing"),
        (["Tower.Eem"], "leaf Tower.Eem is missing"),
        (["TowerParticles"], "leaf Tower.Particles is missing"),
        (["PFMuon.Particle"], "leaf PFMuon.Particle is missing"),
    ],
)
def test_what_a_file_lacks_is_named(tmp_path, drop, message):
    path = write_delphes(tmp_path / "a.root", [simple_delphes()], drop=drop)
    with pytest.raises(DataError, match=message) as error:
        read_one(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_truncated_file_is_refused(tmp_path):
    path = write_delphes(tmp_path / "a.root", [simple_delphes()] * 20)
    path.write_bytes(path.read_bytes()[:-800])
    with pytest.raises(DataError, match="cannot be read as a ROOT file"):
        read_one(path)
