"""The same events in every layout of EDM4HEP, and files that podio itself wrote, where those are at hand."""

from dataclasses import fields

import numpy as np
import pytest
import uproot
from click.testing import CliRunner

from mlpf.cli import cli
from mlpf.data.flat_tables import Relation, Table
from mlpf.errors import DataError, OutputExists
from mlpf.simulation.clic.edm4hep_layouts import LAYOUT_NAMES
from mlpf.simulation.clic.edm4hep_writer import Provenance, read_provenance
from mlpf.workflows import simulate
from tests.support.conversions import assert_same_events, converted, describe_edm4hep, read_edm4hep
from tests.support.edm4hep_files import UNKNOWN_ID, HandEvent, as_new_layout, write_edm4hep

SAMPLE = "single_pi"
NEW_LAYOUTS = [name for name in LAYOUT_NAMES if name != "old"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same twelve events in each layout, written in chunks of five."""
    from mlpf.simulation.clic import edm4hep_writer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edm4hep_writer, "EVENTS_PER_CHUNK", 5)
        return {
            name: simulate.run(SAMPLE, 12, tmp_path_factory.mktemp(name), layout=name)[0]
            for name in LAYOUT_NAMES
        }


def arrays_of(raw) -> dict[str, np.ndarray]:
    """Every array of a chunk."""
    out = {"number": raw.number}
    for field in fields(raw):
        value = getattr(raw, field.name)
        if isinstance(value, Table):
            out |= {f"{field.name}.{name}": column for name, column in value.columns.items()}
            out[f"{field.name} offsets"] = value.offsets
        elif isinstance(value, Relation):
            out |= {f"{field.name}.{end}": getattr(value, end) for end in ("source", "target", "weight")}
    return out | {f"bad {reason}": bad for reason, bad in raw.bad.items()}


def assert_equal_bit_by_bit(old, new):
    one, other = arrays_of(old), arrays_of(new)
    assert one.keys() == other.keys()
    assert [n for n in one if one[n].dtype != other[n].dtype or one[n].tobytes() != other[n].tobytes()] == []
    assert +old.counters == +new.counters


@pytest.mark.parametrize("layout", NEW_LAYOUTS)
@pytest.mark.parametrize("chunk_events", [7, 200])
def test_events_are_equal_bit_by_bit(files, layout, chunk_events):
    chunks = zip(
        read_edm4hep(files["old"], chunk_events), read_edm4hep(files[layout], chunk_events), strict=True
    )
    for old, new in chunks:
        assert len(old.hits) > 0
        assert_equal_bit_by_bit(old, new)


def test_an_event_of_many_particles_is_equal_bit_by_bit(tmp_path):
    raw = {}
    for name in LAYOUT_NAMES:
        (path,) = simulate.run("ttbar", 1, tmp_path / name, layout=name)
        (raw[name],) = read_edm4hep(path)
    assert len(raw["old"].candidates) > 50
    assert len(raw["old"].candidate_tracks) > 10
    for name in NEW_LAYOUTS:
        assert_equal_bit_by_bit(raw["old"], raw[name])


@pytest.mark.parametrize("layout", NEW_LAYOUTS)
def test_what_training_sees_is_equal(files, layout):
    old, new = converted(files["old"]), converted(files[layout])
    assert len(old) == 12
    assert_same_events(new, old)


def event_of_relations() -> HandEvent:
    """Ancestors over three generations, clusters with hits of several collections, candidates of several."""
    event = HandEvent()
    tau = event.particle(15, -1.0, 30.0, mass=1.777, status=2)
    pion = event.particle(-211, -1.0, 20.0, mass=0.1396, parent=tau)
    pizero = event.particle(111, 0.0, 0.0, 10.0, mass=0.135, status=2, parent=tau)
    photons = [event.particle(22, 0.0, 0.0, 5.0, z, parent=pizero) for z in (0.5, -0.5)]
    event.track([(pion, 0.9), (photons[0], 0.1)], pt=20.0, phi=0.1)
    event.track([(pion, 1.0)], pt=4.0, phi=0.2)
    shower = [
        event.hit(2.0, [(pion, 2.0)], "ECALBarrel"),
        event.hit(3.0, [(pion, 2.0), (photons[1], 1.0)], "ECALEndcap"),
        event.hit(4.0, [(pion, 4.0)], "HCALBarrel"),
        event.hit(0.5, [(pion, 0.5)], "MUON"),
    ]
    event.cluster([shower[3], shower[0], shower[2]])
    event.cluster([event.hit(5.0, [(photons[0], 5.0)], "ECALEndcap"), shower[1]])
    event.cluster([event.hit(6.0, [(photons[1], 6.0)], "ECALBarrel")])
    event.candidate(-211, -1.0, 20.0, mass=0.1396, tracks=[0, 1], clusters=[0])
    event.candidate(22, 0.0, 0.0, 10.0, clusters=[2, 1])
    return event


def write_as(layout, path, event):
    if layout == "old":
        return write_edm4hep(path, [event] * 2)
    return write_edm4hep(path, [event] * 2, change=as_new_layout, ids=None, tuples=layout == "rntuple")


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
def test_every_relation_of_an_event_is_found(tmp_path, layout):
    (raw,) = read_edm4hep(write_as(layout, tmp_path / "a.root", event_of_relations()))

    def pairs(name):
        relation = getattr(raw, name)
        return list(zip(relation.source.tolist(), relation.target.tolist(), strict=True))

    assert raw.particles["parent"].tolist() == [-1, 0, 0, 2, 2, -1, 5, 5, 7, 7]
    # Hits of an event: ECALBarrel 0 and 1, ECALEndcap 2 and 3, HCALBarrel 4, MUON 5.
    hits = [(0, 5), (0, 0), (0, 4), (1, 3), (1, 2), (2, 1)]
    makers = [(0, 1), (2, 1), (2, 4), (4, 1), (5, 1), (3, 3), (1, 4)]
    for name, first, sources, targets in (
        ("cluster_hits", hits, 3, 6),
        ("hit_particles", makers, 6, 5),
        ("track_particles", [(0, 1), (0, 3), (1, 1)], 2, 5),
        ("candidate_tracks", [(0, 0), (0, 1)], 2, 2),
        ("candidate_clusters", [(0, 0), (1, 2), (1, 1)], 2, 3),
    ):
        assert pairs(name) == first + [(s + sources, t + targets) for s, t in first], name
    np.testing.assert_allclose(raw.hit_particles.weight[:7], [2, 2, 1, 4, 0.5, 5, 6])
    np.testing.assert_allclose(raw.track_particles.weight[:3], [0.9, 0.1, 1.0], rtol=1e-6)
    assert not any(+raw.counters[reason] for reason in raw.counters if "references" in reason)


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
def test_candidates_of_the_forward_calorimeter_get_no_cluster_of_another(tmp_path, layout):
    event = event_of_relations()
    before = converted(write_as(layout, tmp_path / "a.root", event))
    event.candidate(22, 0.0, 0.1, 0.0, 190.0, clusters=[("LumiCalClusters", 0)], tracks=[("Other", 1)])
    path = write_as(layout, tmp_path / "b.root", event)
    (raw,) = read_edm4hep(path)
    assert raw.candidates.counts.tolist() == [3, 3]
    assert raw.candidate_clusters.source.tolist() == [0, 1, 1, 3, 4, 4]
    assert raw.candidate_tracks.source.tolist() == [0, 0, 3, 3]
    assert raw.counters["references to unknown collections"] == 4
    after = converted(path)
    for kind in ("track", "cluster"):
        assert after[kind]["ycand"].tolist() == before[kind]["ycand"].tolist(), kind


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
def test_tracks_before_the_fit_count_as_those_after_it(tmp_path, layout):
    event = event_of_relations()
    event.candidates[0]["tracks"] = [("SiTracks", 1)]
    event.candidates[1]["tracks"] = [("SiTracks_Refitted", 0)]
    (raw,) = read_edm4hep(write_as(layout, tmp_path / "a.root", event))
    assert raw.candidate_tracks.target.tolist() == [1, 0, 3, 2]


def test_references_without_ids_of_collections_are_believed(tmp_path):
    def change(leaves):
        for name in (
            "MergedRecoParticles#0",
            "MergedRecoParticles#1",
            "SiTracksMCTruthLink#0",
            "MCParticles#0",
        ):
            del leaves[name]["collectionID"]

    event = event_of_relations()
    one, other = (
        next(read_edm4hep(write_edm4hep(tmp_path / f"{name}.root", [event], change=edit)))
        for name, edit in (("with", None), ("without", change))
    )
    assert {n: a.tolist() for n, a in arrays_of(one).items()} == {
        n: a.tolist() for n, a in arrays_of(other).items()
    }


@pytest.mark.parametrize("end", ["#0", "#1"])
def test_links_of_tracks_and_parents_into_other_collections_are_ignored(tmp_path, end):
    def change(leaves):
        leaves[f"SiTracksMCTruthLink{end}"]["collectionID"][1] = UNKNOWN_ID
        leaves["MCParticles#0"]["collectionID"][0] = UNKNOWN_ID

    (raw,) = read_edm4hep(write_edm4hep(tmp_path / "a.root", [event_of_relations()], change=change))
    assert raw.track_particles.weight.tolist() == pytest.approx([0.9, 1.0])
    assert raw.particles["parent"].tolist() == [-1, -1, 0, 2, 2]
    assert raw.counters["references to unknown collections"] == 2


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
def test_tracks_without_time_are_counted_once(tmp_path, layout):
    def change(leaves):
        del leaves["SiTracks_1"]["time"]
        if layout != "old":
            as_new_layout(leaves)

    event = event_of_relations()
    path = tmp_path / "a.root"
    ids = "metadata" if layout == "old" else None
    (raw,) = read_edm4hep(write_edm4hep(path, [event], change=change, ids=ids, tuples=layout == "rntuple"))
    assert raw.tracks["time"].tolist() == [0, 0]
    assert raw.counters["tracks without time"] == 2


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
def test_the_provenance_is_in_every_layout(files, layout):
    assert read_provenance(files[layout]) == Provenance(SAMPLE, 1, 0, 12, layout)


def test_leaves_have_the_types_of_their_time(files):
    def type_of(layout, leaf):
        with uproot.open(files[layout]) as file:
            return str(file["events"][leaf].array().type.content).split(" * ")[-1]

    assert type_of("old", "MCParticles.momentum.x") == "float32"
    assert type_of("old", "PandoraClusters#1.collectionID") == "int32"
    for layout in NEW_LAYOUTS:
        assert type_of(layout, "MCParticles.momentum.x") == "float64"
        assert type_of(layout, "_PandoraClusters_hits.collectionID") == "uint32"
        assert type_of(layout, "SiTracks_Refitted_dQdx.dQdx.type") == "int16"


def test_each_layout_is_recognised(files):
    told = {name: describe_edm4hep(path) for name, path in files.items()}
    assert {name: d.layout for name, d in told.items()} == {
        "old": "TTree, relations by number (podio 0.16 and older)",
        "new": "TTree, relations by name (podio 0.17 and newer)",
        "rntuple": "RNTuple, relations by name (podio 0.17 and newer)",
    }
    assert told["old"].id_table == "metadata/m_names"
    assert told["rntuple"].id_table == "podio_metadata/events___idTable/m_names"
    assert {d.missing for d in told.values()} == {()}
    assert {d.num_events for d in told.values()} == {12}


def test_a_file_of_another_layout_is_not_taken_for_the_same(tmp_path):
    simulate.run(SAMPLE, 1, tmp_path)
    with pytest.raises(OutputExists, match=r"layout old.*asked for .*layout rntuple.*--overwrite"):
        simulate.run(SAMPLE, 1, tmp_path, layout="rntuple")


def test_the_command_writes_the_layout_asked_for(tmp_path):
    command = ["simulate", SAMPLE, "-n", "1", "-o", str(tmp_path), "--layout", "new"]
    result = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert read_provenance(tmp_path / "reco_single_pi_1.root").layout == "new"


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
@pytest.mark.parametrize("fraction", [0.02, 0.5, 0.98])
def test_a_truncated_file_has_no_provenance_and_no_events(files, tmp_path, layout, fraction):
    content = files[layout].read_bytes()
    path = tmp_path / "cut.root"
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(DataError, match=r"^\S*cut\.root: [^\n]*$"):
        list(read_edm4hep(path))
    with pytest.raises(DataError, match=r"cut\.root: not a complete file written by `mlpf simulate` [^\n]*$"):
        read_provenance(path)


@pytest.mark.parametrize(
    ("name", "layout", "num_events", "id_table", "tracks"),
    [
        ("podio_0.13_fcc_spring2021", "number", 100, "metadata/CollectionIDs/m_names", ["EFlowTrack"]),
        ("podio_1.1_p8_ee_WW_ecm240", "name", 10, "hashes of the names", ["EFlowTrack"]),
    ],
)
def test_files_of_podio_are_understood_and_what_they_lack_is_listed(
    repo_root, name, layout, num_events, id_table, tracks
):
    path = repo_root.parent / "shared" / "data" / f"{name}.root"
    if not path.is_file():
        pytest.skip("files of podio are not at hand")
    found = describe_edm4hep(path)
    assert f"relations by {layout}" in found.layout
    assert (found.num_events, found.id_table) == (num_events, id_table)
    assert found.look_alikes["particles"] == ["Particle"]
    assert found.look_alikes["clusters"] == ["EFlowNeutralHadron", "EFlowPhoton"]
    assert found.look_alikes["tracks"] == tracks
    with pytest.raises(DataError, match=r"missing MCParticles, .*PandoraClusters, .*; found .*EFlowTrack"):
        list(read_edm4hep(path))
