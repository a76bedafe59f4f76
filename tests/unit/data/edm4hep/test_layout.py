from mlpf.config.detector import CLIC
from mlpf.data.edm4hep.fields import table_groups
from mlpf.data.edm4hep.layout import collection_names, find_layout, look_alikes


def all_leaves(choice: int) -> set[str]:
    """One leaf for each column: that of the ``choice``-th collection and pattern, or the last there is."""

    def pick(options):
        return options[min(choice, len(options) - 1)]

    return {
        pick(column.patterns).format(pick(group.collections))
        for group in table_groups(CLIC.collections)
        for columns in group.tables.values()
        for column in columns.values()
    }


def test_every_first_name_is_found():
    layout = find_layout(all_leaves(0))
    assert layout.missing == []
    assert layout.old_references
    assert layout.tables["candidates"].leaves["pdg"] == "MergedRecoParticles.type"
    assert layout.tables["cluster hits"].leaves["index collection"] == "PandoraClusters#1.collectionID"


def test_every_second_name_is_found():
    layout = find_layout(all_leaves(1))
    assert layout.missing == []
    assert layout.tables["candidates"].leaves["pdg"] == "PandoraPFOs.PDG"
    assert layout.tables["candidate tracks"].leaves == {
        "index": "_PandoraPFOs_tracks.index",
        "index collection": "_PandoraPFOs_tracks.collectionID",
    }
    assert layout.tables["track states"].leaves["phi"] == "_SiTracks_Refitted_trackStates.phi"
    assert layout.tables["hit links"].leaves["particle"] == "_CalohitMCTruthLink_to.index"
    assert layout.tables["clusters"].leaves["phi"] == "PandoraClusters.iPhi"


def test_links_of_edm4hep_0_10_are_found():
    layout = find_layout(all_leaves(2))
    assert layout.tables["track links"].leaves["track"] == "_SiTracksMCTruthLink_rec.index"
    assert layout.tables["track links"].leaves["particle"] == "_SiTracksMCTruthLink_sim.index"


def test_tables_are_never_put_together_from_two_collections():
    leaves = all_leaves(0) | {"PandoraPFOs.PDG", "PandoraPFOs.charge"}
    leaves.remove("MergedRecoParticles.charge")
    assert find_layout(leaves).missing == ["MergedRecoParticles.charge"]
    states = all_leaves(0) | {"SiTracks_1.phi"}
    states.remove("SiTracks_Refitted_1.phi")
    assert find_layout(states).missing == ["SiTracks_Refitted_1.phi"]


def test_a_complete_second_collection_replaces_an_incomplete_first():
    leaves = all_leaves(0)
    leaves |= {leaf.replace("MergedRecoParticles", "PandoraPFOs") for leaf in leaves}
    leaves.remove("MergedRecoParticles.charge")
    layout = find_layout(leaves)
    assert layout.missing == []
    assert layout.tables["candidate clusters"].leaves["index"] == "PandoraPFOs#0.index"


def test_a_hit_collection_without_its_energy_is_not_taken_for_absent():
    leaves = all_leaves(0) - {"MUON.energy"}
    assert find_layout(leaves).missing == ["MUON.energy"]


def test_stand_ins_are_read_only_where_needed():
    leaves = all_leaves(0)
    assert {"dE/dx", "state places", "state ranges"}.isdisjoint(find_layout(leaves).tables)
    leaves -= {"SiTracks_Refitted.dEdx", "SiTracks_Refitted.radiusOfInnermostHit"}
    assert {"dE/dx", "state places", "state ranges"} <= set(find_layout(leaves).tables)
    leaves.remove("SiTracks_Refitted.trackStates_end")
    assert "state places" not in find_layout(leaves).tables


def test_nothing_at_all_is_eight_things_missing():
    missing = find_layout([]).missing
    assert missing[0] == "MCParticles"
    assert missing[-1].startswith("hits (one of ECALBarrel")
    assert len(missing) == 8


def test_collections_are_those_with_data_of_their_own():
    leaves = ["n_A", "A.x", "A#0.index", "_A_b.index", "A_objIdx.index", "B.y"]
    assert collection_names(leaves) == ["A", "B"]


def test_collections_of_other_names_are_recognised_by_their_members():
    leaves = {leaf.replace("MCParticles", "Particle").replace("MUON", "Yoke") for leaf in all_leaves(0)}
    assert look_alikes(leaves) == {"particles": ["Particle"], "hits": ["Yoke"]}
