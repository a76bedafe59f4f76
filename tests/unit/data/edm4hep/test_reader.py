import numpy as np
import pytest

from mlpf.data.edm4hep.raw_events import SYSTEM_ECAL, SYSTEM_HCAL
from mlpf.errors import DataError
from tests.support.conversions import converted, describe_edm4hep, read_edm4hep
from tests.support.edm4hep_files import (
    HIT_COLLECTIONS,
    HandEvent,
    as_new_layout,
    simple_event,
    write_edm4hep,
)

BAD_REFERENCES = ("null references", "references out of range", "references to unknown collections")


def read_one(path):
    (chunk,) = read_edm4hep(path)
    return chunk


def test_tables_hold_what_was_written(tmp_path):
    raw = read_one(write_edm4hep(tmp_path / "a.root", [simple_event(10.0), simple_event(20.0)]))
    assert len(raw) == 2
    assert raw.particles["pdg"].tolist() == [211, 22, 211, 22]
    assert raw.particles.offsets.tolist() == [0, 2, 4]
    assert raw.clusters.counts.tolist() == [2, 2]
    assert raw.hits["system"].tolist() == [SYSTEM_ECAL, SYSTEM_HCAL] * 2
    np.testing.assert_allclose(raw.hits["energy"], [5, 6, 10, 12], atol=1e-6)  # float32 in the file


def test_references_become_rows_of_the_whole_chunk(tmp_path):
    raw = read_one(write_edm4hep(tmp_path / "a.root", [simple_event(), simple_event()]))
    assert raw.cluster_hits.source.tolist() == [0, 1, 2, 3]
    assert raw.cluster_hits.target.tolist() == [
        1,
        0,
        3,
        2,
    ]  # the HCAL hit of a cluster comes after the ECAL hit
    assert raw.hit_particles.target.tolist() == [0, 1, 2, 3]
    assert raw.track_particles.source.tolist() == [0, 1]
    assert raw.candidate_clusters.target.tolist() == [1, 3]


def test_only_the_first_state_of_a_track_is_read(tmp_path):
    event = HandEvent()
    for phi in (0.1, 0.2):
        event.track(phi=phi)
    raw = read_one(write_edm4hep(tmp_path / "a.root", [event]))
    np.testing.assert_allclose(raw.tracks["phi"], [0.1, 0.2], atol=1e-7)  # float32 in the file


def test_chunks_together_are_the_file(tmp_path):
    path = write_edm4hep(tmp_path / "a.root", [simple_event(e) for e in (10, 20, 30, 40, 50)])
    chunks = list(read_edm4hep(path, chunk_events=2))
    assert [len(c) for c in chunks] == [2, 2, 1]
    assert np.concatenate([c.number for c in chunks]).tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(np.concatenate([c.particles["px"] for c in chunks])[::2], [10, 20, 30, 40, 50])


def test_parents_point_at_rows_and_missing_ones_are_minus_one(tmp_path):
    event = simple_event()
    event.particle(11, -1, 1.0, status=0, parent=1)
    path = write_edm4hep(tmp_path / "a.root", [event, event])
    assert read_one(path).particles["parent"].tolist() == [-1, -1, 1, -1, -1, 4]


def test_files_without_parents_are_read(tmp_path):
    path = write_edm4hep(tmp_path / "a.root", [simple_event()], parents=False)
    assert read_one(path).particles["parent"].tolist() == [-1, -1]


def test_bad_references_are_counted_and_ignored(tmp_path):
    event = simple_event()
    event.hit_links += [("ECALBarrel", -2, 0, 1.0), ("ECALBarrel", 50, 0, 1.0), ("LumiCal", 0, 0, 1.0)]
    event.track_links += [(0, 77, 1.0)]
    raw = read_one(write_edm4hep(tmp_path / "a.root", [event]))
    assert len(raw.hit_particles) == 2
    assert len(raw.track_particles) == 1
    assert raw.counters["null references"] == 1
    assert raw.counters["references out of range"] == 2
    assert raw.counters["references to unknown collections"] == 1


def reason_of(path):
    return converted(path).metadata["skipped"]


def break_range(leaves):
    leaves["PandoraClusters"]["hits_end"] = [999 for _ in leaves["PandoraClusters"]["hits_end"]]


def break_momentum(leaves):
    leaves["MCParticles"]["momentum.x"][0] = np.nan


def break_lengths(leaves):
    leaves["PandoraClusters"]["phi"] = leaves["PandoraClusters"]["phi"][:-1]


def break_states(leaves):
    leaves["SiTracks_Refitted"]["trackStates_begin"][0] = 44


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (break_range, "inconsistent ranges"),
        (break_states, "inconsistent ranges"),
        (break_momentum, "not a number"),
        (break_lengths, "inconsistent lengths"),
    ],
)
def test_an_event_that_makes_no_sense_is_skipped_with_its_reason(tmp_path, change, reason):
    calls = []

    def only_second(leaves):
        calls.append(leaves)
        if len(calls) == 2:
            change(leaves)

    path = write_edm4hep(tmp_path / "a.root", [simple_event(e) for e in (10, 20, 30)], change=only_second)
    assert reason_of(path) == {reason: 1}
    events = converted(path)
    assert events.scalars["event"].tolist() == [0, 2]
    assert events.metadata["skipped"] == {reason: 1}
    np.testing.assert_allclose(events["gen_particles"]["gen_particles"][[0, 2], 2], [10, 30], atol=1e-5)


def test_events_without_tracks_or_without_clusters_are_kept_and_empty_ones_are_not(tmp_path):
    photon_only, track_only, empty = HandEvent(), HandEvent(), HandEvent()
    photon_only.deposit([(photon_only.particle(22, 0.0, 5.0), 5.0)])
    track_only.track([(track_only.particle(13, -1.0, 5.0, mass=0.1057), 1.0)], pt=5.0)
    events = converted(write_edm4hep(tmp_path / "a.root", [photon_only, track_only, empty]))
    assert events.scalars["event"].tolist() == [0, 1]
    assert events.metadata["skipped"] == {"no tracks and no clusters": 1}
    assert events["track"].counts.tolist() == [0, 1]
    assert events["cluster"].counts.tolist() == [1, 0]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.root: no such file"):
        list(read_edm4hep(tmp_path / "gone.root"))


@pytest.mark.parametrize("content", [b"", b"just some text, longer than a ROOT header would be" * 20])
def test_a_file_that_is_not_root_is_named(tmp_path, content):
    path = tmp_path / "text.root"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"text\.root: cannot be read as a ROOT file"):
        list(read_edm4hep(path))


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_a_truncated_file_is_an_error_in_one_line(tmp_path, fraction):
    path = write_edm4hep(tmp_path / "cut.root", [simple_event(e) for e in range(5, 25)])
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(DataError, match=r"cut\.root") as caught:
        list(read_edm4hep(path))
    assert "\n" not in str(caught.value)


def test_damaged_content_is_an_error_in_one_line(tmp_path):
    path = write_edm4hep(tmp_path / "bad.root", [simple_event(e) for e in range(5, 25)])
    content = bytearray(path.read_bytes())
    content[400:-4000] = bytes(len(content) - 4400)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.root"):
        list(read_edm4hep(path))


def test_an_old_file_without_collection_ids_says_so(tmp_path):
    path = write_edm4hep(tmp_path / "a.root", [simple_event()], ids=None)
    with pytest.raises(DataError, match=r"no table of collection ids .* not a skim"):
        list(read_edm4hep(path))


@pytest.mark.parametrize("missing", ["MCParticles", "PandoraClusters#1", "SiTracksMCTruthLink"])
def test_a_missing_collection_is_named_with_those_found(tmp_path, missing):
    path = write_edm4hep(tmp_path / "a.root", [simple_event()], drop=(missing,), parents=False)
    with pytest.raises(DataError, match=f"missing {missing}.*; found .*ECALBarrel.*MergedReco") as caught:
        list(read_edm4hep(path))
    assert "\n" not in str(caught.value)


def test_all_that_is_missing_is_named_at_once(tmp_path):
    drop = ("SiTracks_1", "MergedRecoParticles", "MergedRecoParticles#0", *HIT_COLLECTIONS)
    path = write_edm4hep(tmp_path / "a.root", [simple_event()], drop=drop)
    with pytest.raises(DataError) as caught:
        list(read_edm4hep(path))
    for text in (
        "SiTracks_Refitted_1 or _SiTracks_Refitted_trackStates or SiTracks_1",
        "MergedRecoParticles or PandoraPFOs",
        "hits (one of ECALBarrel",
    ):
        assert text in str(caught.value)


def test_a_missing_leaf_is_named(tmp_path):
    def change(leaves):
        del leaves["PandoraClusters"]["iTheta"]

    path = write_edm4hep(tmp_path / "a.root", [simple_event()], change=change)
    with pytest.raises(DataError, match=r"missing PandoraClusters\.iTheta; found"):
        list(read_edm4hep(path))


def test_an_absent_hit_collection_is_empty_and_counted(tmp_path):
    raw = read_one(write_edm4hep(tmp_path / "a.root", [simple_event()] * 3, drop=("ECALOther", "ECALBarrel")))
    assert raw.counters["events without collection ECALOther"] == 3
    assert raw.counters["events without collection MUON"] == 0
    assert raw.hits["system"].tolist() == [SYSTEM_HCAL] * 3
    assert raw.counters["references to unknown collections"] == 6  # a cluster's and a link's in each event
    assert len(raw.cluster_hits) == 3


def test_integers_and_other_numbers_have_one_type_each(tmp_path):
    raw = read_one(write_edm4hep(tmp_path / "a.root", [simple_event()]))
    for table in (raw.particles, raw.tracks, raw.clusters, raw.hits, raw.candidates):
        assert {column.dtype for column in table.columns.values()} <= {np.dtype("i8"), np.dtype("f8")}
    assert raw.particles["pdg"].dtype == raw.hits["type"].dtype == np.int64


def test_one_bad_event_does_not_cost_the_others_their_parents(tmp_path):
    event = simple_event()
    event.particle(11, -1, 1.0, status=0, parent=1)
    calls = []

    def break_second(leaves):
        calls.append(leaves)
        if len(calls) == 2:
            leaves["MCParticles"]["parents_end"].pop()

    raw = read_one(write_edm4hep(tmp_path / "a.root", [event] * 3, change=break_second))
    assert raw.particles["parent"].tolist() == [-1, -1, 1, -1, -1, 4]
    assert raw.bad["inconsistent lengths"].tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("collection", "leaf", "value"),
    [
        ("MCParticles", "parents_begin", 4_000_000_000),
        ("MCParticles#0", "index", 2_147_483_647),
        ("MCParticles#0", "index", -2_147_483_648),
        ("PandoraClusters", "hits_begin", 7),
        ("PandoraClusters#1", "collectionID", -1),
        ("CalohitMCTruthLink#0", "index", 2_147_483_647),
        ("MergedRecoParticles", "tracks_end", 4_294_967_295),
        ("SiTracks_Refitted", "trackStates_begin", 4_294_967_295),
    ],
)
def test_wild_numbers_harm_only_themselves(tmp_path, collection, leaf, value):
    event = simple_event()
    event.particle(11, -1, 1.0, status=0, parent=2)  # its own parent

    def change(leaves):
        leaves[collection][leaf][0] = value

    raw = read_one(write_edm4hep(tmp_path / "a.root", [event], change=change))
    assert raw.bad["inconsistent ranges"].any() or sum(raw.counters[name] for name in BAD_REFERENCES) > 0
    for relation, source, target in (
        (raw.cluster_hits, raw.clusters, raw.hits),
        (raw.hit_particles, raw.hits, raw.particles),
        (raw.candidate_tracks, raw.candidates, raw.tracks),
    ):
        assert (relation.source < len(source)).all()
        assert (relation.target < len(target)).all()
        assert (relation.target >= 0).all()


def test_fractions_where_indices_belong_are_an_error(tmp_path):
    path = write_edm4hep(tmp_path / "a.root", [simple_event()], real=("index",))
    with pytest.raises(DataError, match=r"leaf \S+#\d\.index holds float32, expected integers"):
        list(read_edm4hep(path))


def test_time_and_type_are_zeros_and_counted_where_a_file_lacks_them(tmp_path):
    raw = read_one(write_edm4hep(tmp_path / "a.root", [simple_event()]))
    assert raw.hits["time"].tolist() == raw.hits["type"].tolist() == [0, 0]
    assert raw.tracks["type"].tolist() == [0]
    assert raw.counters["tracks without time"] == 0
    assert raw.counters["hits without time"] == raw.counters["hits without type"] == 2
    assert raw.counters["tracks without type"] == 1


def test_time_and_type_are_read(tmp_path):
    def change(leaves):
        leaves["HCALBarrel"] |= {"time": [7.5], "type": [3]}
        leaves["ECALBarrel"] |= {"time": [2.5], "type": [-1]}
        leaves["SiTracks_Refitted"]["type"] = [5]

    raw = read_one(write_edm4hep(tmp_path / "a.root", [simple_event()], change=change))
    assert raw.hits["time"].tolist() == [2.5, 7.5]
    assert raw.hits["type"].tolist() == [-1, 3]
    assert raw.tracks["type"].tolist() == [5]
    assert raw.counters["hits without time"] == 0


def new_layout(leaves, hashes=True):
    as_new_layout(leaves, hashes)
    tracks = leaves["SiTracks_Refitted"]
    num = len(tracks["chi2"])
    tracks["trackStates_end"] = [begin + 2 for begin in tracks["trackStates_begin"]]
    # The state at the interaction point, and one 3-4-5 triangle away from the beam.
    states = leaves["_SiTracks_Refitted_trackStates"]
    states |= {
        "location": [1, 2] * num,
        "referencePoint.x": [0, 30] * num,
        "referencePoint.y": [0, -40] * num,
    }
    leaves["SiTracks_Refitted_dQdx"] = {"dQdx.value": [5.0, 4.0], "dQdx.error": [0.5, 0.25]}
    leaves["_SiTracks_Refitted_dQdx_track"] = {"index": [1, 0]}


def event_of_three_tracks():
    event = simple_event()
    event.track(pt=3.0)
    event.track(pt=2.0)
    return event


@pytest.mark.parametrize("ids", [None, "metadata"])
def test_the_new_layout_is_read_with_and_without_metadata(tmp_path, ids):
    def change(leaves):
        new_layout(leaves, hashes=ids is None)  # a table overrules the hashes

    events = [event_of_three_tracks(), event_of_three_tracks()]
    old = read_one(write_edm4hep(tmp_path / "old.root", events))
    new = read_one(write_edm4hep(tmp_path / "new.root", events, change=change, ids=ids))
    assert len(old.hit_particles) == len(old.candidate_clusters) * 2 == 4
    kinds = "cluster_hits", "hit_particles", "candidate_tracks", "candidate_clusters", "track_particles"
    for name in kinds:
        assert getattr(new, name).source.tolist() == getattr(old, name).source.tolist(), name
        assert getattr(new, name).target.tolist() == getattr(old, name).target.tolist(), name
    for name in ("candidates", "clusters", "hits", "particles"):
        for column, values in getattr(old, name).columns.items():
            assert getattr(new, name)[column].tolist() == values.tolist(), column


def test_new_tracks_get_their_dedx_and_innermost_radius_from_elsewhere(tmp_path):
    path = write_edm4hep(tmp_path / "a.root", [event_of_three_tracks()] * 2, change=new_layout, ids=None)
    raw = read_one(path)
    assert raw.tracks["dEdx"].tolist() == [4, 5, 0] * 2
    assert raw.tracks["dEdxError"].tolist() == [0.25, 0.5, 0] * 2
    assert raw.tracks["radiusOfInnermostHit"].tolist() == [50] * 6
    assert raw.counters["tracks without dE/dx"] == 2
    assert raw.counters["tracks without innermost hit"] == 0


def test_tracks_without_either_are_counted(tmp_path):
    def change(leaves):
        new_layout(leaves)
        leaves["_SiTracks_Refitted_trackStates"]["location"][1] = 3
        del leaves["SiTracks_Refitted_dQdx"]

    path = write_edm4hep(tmp_path / "a.root", [event_of_three_tracks()], change=change, ids=None)
    raw = read_one(path)
    assert raw.tracks["radiusOfInnermostHit"].tolist() == [0, 50, 50]
    assert raw.tracks["dEdx"].tolist() == [0, 0, 0]
    assert raw.counters["tracks without dE/dx"] == 3
    assert raw.counters["tracks without innermost hit"] == 1


def test_a_description_names_leaves_and_gaps(tmp_path):
    path = write_edm4hep(
        tmp_path / "a.root",
        [simple_event()] * 3,
        change=new_layout,
        ids=None,
        drop=("MUON", "CalohitMCTruthLink"),
    )
    found = describe_edm4hep(path)
    assert found.num_events == 3
    assert found.layout == "TTree, relations by name (podio 0.17 and newer)"
    assert found.id_table == "hashes of the names"
    assert found.leaves["clusters"]["phi"] == "PandoraClusters.iPhi"
    assert found.absent_hits == ("MUON",)
    assert found.missing == ("CalohitMCTruthLink.weight",)
    assert "PandoraPFOs" in found.collections


def test_an_old_file_without_ids_can_be_described(tmp_path):
    found = describe_edm4hep(write_edm4hep(tmp_path / "a.root", [simple_event()], ids=None))
    assert found.layout == "TTree, relations by number (podio 0.16 and older)"
    assert (found.id_table, found.missing) == ("", ())
    assert found.absent["tracks"] == ("type",)
