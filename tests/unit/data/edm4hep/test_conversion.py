import json

import numpy as np
import pytest

from mlpf.data.edm4hep import conversion as preparation
from mlpf.data.edm4hep.conversion import Preparation, usable_events
from mlpf.data.edm4hep.truth import TRUTH_VERSION
from mlpf.data.events import EventsWriter, read_events
from mlpf.errors import DataError
from mlpf.physics.features import PARQUET_TARGETS
from mlpf.physics.schemas import SCHEMAS
from tests.support.edm4hep_files import HandEvent, prepare_file, simple_event, write_edm4hep
from tests.support.raw_events import raw_events

CLIC, HITS = SCHEMAS["clic"], SCHEMAS["clic_hits"]
BOTH = pytest.mark.parametrize("schema", [CLIC, HITS], ids=lambda s: s.name)
PDG, ENERGY = PARQUET_TARGETS.index("PDG"), PARQUET_TARGETS.index("energy")


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
    events = prepare_file(path, schema)
    assert set(events.jagged) == set(schema.jagged_columns)
    assert set(events.scalars) == set(schema.scalar_types)
    assert events.schema is schema
    events.check("prepared")
    second = schema.kinds[1].name
    labels = events.jagged[f"ygen_{second}"].values[:2, PDG].tolist()
    assert labels == ([0, 22] if schema is CLIC else [22, 0])
    assert events.jagged[f"ycand_{second}"].values[:2, PDG].tolist() == labels
    assert events.jagged["X_track"].values[:, schema.kinds[0].features.index("pt")] == pytest.approx(
        [10, 20, 30], rel=1e-6
    )


@BOTH
def test_unusable_events_are_left_out_and_counted(path, schema):
    events = prepare_file(path, schema)
    assert events.scalars["event"].tolist() == [0, 2, 4]
    empty = "no tracks and no clusters" if schema is CLIC else "no tracks and no hits"
    assert events.metadata["skipped"] == {"inconsistent ranges": 1, empty: 1}
    assert events.metadata["events_read"] == 5


def test_what_describes_the_file_is_complete_and_can_be_written_as_text(path):
    metadata = prepare_file(path).metadata
    assert metadata["source"] == "reco_1.root"
    assert metadata["source_bytes"] == path.stat().st_size
    assert metadata["truth_version"] == TRUTH_VERSION
    assert json.loads(json.dumps(metadata)) == metadata


@BOTH
def test_chunks_of_any_size_give_the_same_events(path, schema, monkeypatch):
    whole = prepare_file(path, schema)
    monkeypatch.setattr(preparation, "CHUNK_EVENTS", {"cluster": 2, "hit": 2})
    source = Preparation(path, schema)
    chunks = list(source.chunks())
    assert [len(c) for c in chunks] == [1, 1, 1]
    assert source.metadata == whole.metadata
    for name, jagged in whole.jagged.items():
        np.testing.assert_array_equal(jagged.values, np.concatenate([c.jagged[name].values for c in chunks]))
    for name, values in whole.scalars.items():
        np.testing.assert_array_equal(values, np.concatenate([c.scalars[name] for c in chunks]))


def test_a_second_pass_counts_again_from_zero(path):
    source = Preparation(path)
    assert sum(len(c) for c in source.chunks()) == 3
    first = source.metadata
    assert sum(len(c) for c in source.chunks()) == 3
    assert source.metadata == first


@BOTH
def test_chunks_written_one_by_one_read_back_as_one_file(path, schema, tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "CHUNK_EVENTS", {"cluster": 1, "hit": 1})
    source = Preparation(path, schema)
    with EventsWriter(tmp_path / "a.parquet", schema) as writer:
        for chunk in source.chunks():
            writer.write(chunk)
        writer.finish(source.metadata)
    found = read_events(tmp_path / "a.parquet")
    assert found.scalars["event"].tolist() == [0, 2, 4]
    assert found.metadata["skipped"] == source.metadata["skipped"]
    expected = prepare_file(path, schema).jagged["gen_particles"].values
    np.testing.assert_array_equal(found.jagged["gen_particles"].values, expected)


def test_a_file_without_usable_event_gives_none(tmp_path):
    source = Preparation(write_edm4hep(tmp_path / "a.root", [HandEvent()]))
    assert list(source.chunks()) == []
    assert source.metadata["skipped"] == {"no tracks and no clusters": 1}


def test_hits_outside_clusters_make_an_event_usable_for_hits_only():
    event = HandEvent()
    event.hit(4.0, [(event.particle(22, 0.0, 4.0), 1.0)])
    raw = raw_events(event)
    assert usable_events(raw, CLIC)[0].tolist() == [False]
    assert usable_events(raw, HITS)[0].tolist() == [True]


def test_an_event_is_counted_by_its_first_reason_only():
    raw = raw_events(HandEvent(), simple_event())
    raw.bad.update({"one": np.array([True, False]), "two": np.array([True, False])})
    keep, reasons = usable_events(raw)
    assert keep.tolist() == [False, True]
    assert reasons == {"one": 1}


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
    found = prepare_file(numbers_path, schema)
    assert found.scalars["event"].tolist() == [2 * i for i in range(len(BROKEN))]
    assert found.metadata["skipped"] == {"not a number": len(BROKEN)}
    found.check("prepared")


def test_a_schema_that_needs_other_files_is_refused(path):
    with pytest.raises(DataError, match=r"reco_1\.root: schema 'delphes' cannot .*choose clic or clic_hits$"):
        Preparation(path, SCHEMAS["delphes"])
