import json

import numpy as np
import pytest

from mlpf.data.edm4hep import conversion as edm4hep_conversion
from mlpf.data.edm4hep.conversion import prepare_chunk
from mlpf.data.edm4hep.truth import TRUTH_VERSION
from mlpf.data.events import Events, EventsWriter
from mlpf.data.formats import open_conversion
from mlpf.errors import DataError
from mlpf.physics.features import PARTICLE_COLUMNS
from mlpf.physics.particles import NONE, PHOTON
from mlpf.physics.schemas import SCHEMAS
from tests.support.conversions import ELEMENTS, GivenChunks, assert_same_events, converted, joined
from tests.support.edm4hep_files import HandEvent, simple_event, write_edm4hep
from tests.support.raw_events import raw_events

CLIC, HITS = SCHEMAS["clic"], SCHEMAS["clic_hits"]
BOTH = pytest.mark.parametrize("schema", [CLIC, HITS], ids=lambda s: s.name)
CLS = PARTICLE_COLUMNS.index("cls")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Five events; the fourth is empty and the second has a broken range."""
    seen = []

    def break_second(leaves):
        seen.append(leaves)
        if len(seen) == 2:
            leaves["PandoraClusters"]["hits_end"][0] = 99

    events = [simple_event(10.0), simple_event(), simple_event(20.0), HandEvent(), simple_event(30.0)]
    return write_edm4hep(tmp_path_factory.mktemp("in") / "reco_1.root", events, change=break_second)


@BOTH
def test_all_fields_of_the_schema_are_there_and_consistent(path, schema):
    events = converted(path, ELEMENTS[schema.name])
    assert {name: set(table.columns) for name, table in events.tables.items()} == {
        name: set(columns) for name, columns in schema.tables.items()
    }
    assert set(events.scalars.columns) == set(schema.scalar_types)
    assert events.schema is schema
    events.check("prepared")
    second = schema.kinds[1].name
    classes = events[second]["ygen"][:2, CLS].tolist()
    assert classes == ([NONE, PHOTON] if schema is CLIC else [PHOTON, NONE])
    assert events[second]["ycand"][:2, CLS].tolist() == classes
    assert events["track"]["X"][:, schema.kinds[0].features.index("pt")] == pytest.approx(
        [10, 20, 30], rel=1e-6
    )


@BOTH
def test_unusable_events_are_left_out_and_counted(path, schema):
    events = converted(path, ELEMENTS[schema.name])
    assert events.scalars["event"].tolist() == [0, 2, 4]
    empty = "no tracks and no clusters" if schema is CLIC else "no tracks and no hits"
    assert events.metadata["skipped"] == {"inconsistent ranges": 1, empty: 1}
    assert events.metadata["events_read"] == 5


def test_what_describes_the_file_is_complete_and_can_be_written_as_text(path):
    metadata = converted(path).metadata
    assert metadata["source"] == "reco_1.root"
    assert metadata["source_bytes"] == path.stat().st_size
    assert metadata["truth_version"] == TRUTH_VERSION
    assert json.loads(json.dumps(metadata)) == metadata


@BOTH
def test_chunks_of_any_size_give_the_same_events(path, schema, monkeypatch):
    whole = converted(path, ELEMENTS[schema.name])
    monkeypatch.setattr(edm4hep_conversion, "CHUNK_EVENTS", {"cluster": 2, "hit": 2})
    with open_conversion(path, ELEMENTS[schema.name]) as conversion:
        chunks = list(conversion.chunks())
    assert [len(c) for c in chunks] == [1, 1, 1]
    assert conversion.metadata == whole.metadata
    assert_same_events(Events.concatenate(chunks), whole)


def test_a_second_pass_counts_again_from_zero(path):
    with open_conversion(path) as conversion:
        assert sum(len(c) for c in conversion.chunks()) == 3
        first = conversion.metadata
        assert sum(len(c) for c in conversion.chunks()) == 3
        assert conversion.metadata == first


@BOTH
def test_chunks_written_one_by_one_read_back_as_one_file(path, schema, tmp_path, monkeypatch):
    monkeypatch.setattr(edm4hep_conversion, "CHUNK_EVENTS", {"cluster": 1, "hit": 1})
    with (
        open_conversion(path, ELEMENTS[schema.name]) as conversion,
        EventsWriter(tmp_path / "a.parquet", schema) as writer,
    ):
        for chunk in conversion.chunks():
            writer.write(chunk)
        writer.finish(conversion.metadata)
    found = Events.from_parquet(tmp_path / "a.parquet")
    assert found.scalars["event"].tolist() == [0, 2, 4]
    assert found.metadata["skipped"] == conversion.metadata["skipped"]
    assert_same_events(found, converted(path, ELEMENTS[schema.name]))


def test_a_file_without_usable_event_gives_none(tmp_path):
    events = converted(write_edm4hep(tmp_path / "a.root", [HandEvent()]))
    assert len(events) == 0
    assert events.metadata["skipped"] == {"no tracks and no clusters": 1}


def test_hits_outside_clusters_make_an_event_usable_for_hits_only():
    event = HandEvent()
    event.hit(4.0, [(event.particle(22, 0.0, 4.0), 1.0)])
    raw = raw_events(event)
    usable = {
        schema.name: len(joined(GivenChunks(schema, [prepare_chunk(raw, schema)]))) for schema in (CLIC, HITS)
    }
    assert usable == {"clic": 0, "clic_hits": 1}


def test_an_event_is_counted_by_its_first_reason_only():
    raw = raw_events(HandEvent(), simple_event())
    raw.bad.update({"one": np.array([True, False]), "two": np.array([True, False])})
    events = joined(GivenChunks(CLIC, [prepare_chunk(raw)]))
    assert events.scalars["event"].tolist() == [1]
    assert events.metadata["skipped"] == {"one": 1}


LARGEST = float(np.finfo(np.float32).max)
BROKEN = (
    ("ECALBarrel", "position.x", np.nan),
    ("ECALBarrel", "position.z", -np.inf),
    ("ECALBarrel", "energy", LARGEST),  # beyond float32 on the hadronic scale
    ("ECALBarrel", "energy", np.inf),
    ("MCParticles", "momentum.x", np.inf),
    ("MCParticles", "charge", -np.inf),
    ("MergedRecoParticles", "momentum.y", np.inf),
    ("SiTracks_1", "tanLambda", LARGEST),  # pz is
    ("CalohitMCTruthLink", "weight", np.inf),
)


@pytest.fixture(scope="module")
def numbers_path(tmp_path_factory):
    """Events of which every second one is broken in its own way."""
    seen = []

    def break_every_second(leaves):
        place, odd = divmod(len(seen), 2)
        seen.append(leaves)
        if odd:
            collection, leaf, value = BROKEN[place]
            leaves[collection][leaf][0] = value

    events = []
    for _ in BROKEN:
        event = HandEvent()
        neutron, pion = event.particle(2112, 0.0, 9.0), event.particle(211, 1.0, 8.0)
        event.deposit([(neutron, 4.0)])
        event.track([(pion, 1.0)], pt=8.0)
        event.candidate(2112, 0.0, 9.0, clusters=[0])
        events += [simple_event(20.0), event]
    return write_edm4hep(tmp_path_factory.mktemp("in") / "a.root", events, change=break_every_second)


@BOTH
def test_numbers_that_no_target_can_hold_cost_their_event_only(numbers_path, schema):
    found = converted(numbers_path, ELEMENTS[schema.name])
    assert found.scalars["event"].tolist() == [2 * i for i in range(len(BROKEN))]
    assert found.metadata["skipped"] == {"not a number": len(BROKEN)}
    found.check("prepared")


def test_a_file_without_truth_is_told_what_can_be_done_with_it(tmp_path):
    truth = ("MCParticles", "MCParticles#0", "CalohitMCTruthLink", "SiTracksMCTruthLink")
    truth += tuple(f"{name}#{i}" for name in truth[2:] for i in (0, 1))
    path = write_edm4hep(tmp_path / "a.root", [simple_event()], drop=truth, parents=False)
    with pytest.raises(DataError, match=r"A file of data has none: for such events use the ONNX file"):
        converted(path)
    path = write_edm4hep(tmp_path / "b.root", [simple_event()], drop=(*truth, "SiTracks_1"), parents=False)
    with pytest.raises(DataError, match=r"keep these collections when the file is written$"):
        converted(path)
