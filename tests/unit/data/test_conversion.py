"""What all formats share: which events are left out, and what a file is described by."""

import json
from collections import Counter

import numpy as np
import pytest

from mlpf.data.conversion import BAD_NUMBERS, Chunk, empty_event
from mlpf.data.events import Events
from mlpf.data.flat_tables import Table, offsets_from_counts
from mlpf.physics.schemas import SCHEMAS
from tests.support.conversions import GivenChunks

SCHEMA = SCHEMAS["delphes"]
EMPTY_EVENT = "no tracks and no towers"


def events_with(*counts, schema=SCHEMA):
    """Events of ones with these numbers of elements, kind by kind."""
    number = len(counts[0])
    tables = {}
    for i, (name, columns) in enumerate(schema.tables.items()):
        offsets = offsets_from_counts(np.array(counts[i] if i < len(counts) else [1] * number))
        ones = {column: np.ones((offsets[-1], len(n)), np.float32) for column, n in columns.items()}
        tables[name] = Table(ones, offsets)
    scalars = {name: np.arange(number).astype(kind) for name, kind in schema.scalar_types.items()}
    return Events(tables, Table.one_row_per_event(scalars), schema)


def conversion(*chunks, schema=SCHEMA, **options):
    return GivenChunks(schema, chunks, **options)


def test_good_events_pass_as_they_are():
    events = events_with([1, 2], [0, 3])
    prepared = conversion(Chunk(events, {}, Counter()))
    (found,) = prepared.chunks()
    assert found is events
    assert prepared.metadata["skipped"] == {}
    assert "lost" not in prepared.metadata


def test_events_are_left_out_for_their_first_reason():
    events = events_with([1, 0, 2, 1, 0], [1, 0, 1, 1, 0])
    events["tower"]["ycand"][1, 3] = np.nan  # of event 2
    bad = {"broken": np.array([True, False, False, False, True]), "worse": np.array([True] + [False] * 4)}
    prepared = conversion(Chunk(events, bad, Counter()))
    (left,) = prepared.chunks()
    assert left.scalars["event"].tolist() == [3]
    left.check("here")
    assert prepared.metadata["skipped"] == {"broken": 2, BAD_NUMBERS: 1, EMPTY_EVENT: 1}


@pytest.mark.parametrize("schema", [SCHEMAS["clic"], SCHEMAS["clic_hits"]], ids=lambda s: s.name)
def test_an_event_that_is_broken_in_any_table_is_left_out_whole(schema):
    events = events_with([1, 1, 1, 0], [1, 1, 1, 0], schema=schema)
    events["gen_particles"]["gen_particles"][1, 2] = np.inf
    events.scalars["lost_energy"][2] = np.nan
    prepared = conversion(Chunk(events, {}, Counter()), schema=schema)
    (left,) = prepared.chunks()
    assert left.scalars["event"].tolist() == [0]
    empty = "no tracks and no clusters" if schema.name == "clic" else "no tracks and no hits"
    assert empty_event(schema) == empty
    # The last one has a generator particle, but no element.
    assert prepared.metadata["skipped"] == {BAD_NUMBERS: 2, empty: 1}


def test_a_reader_s_own_bad_numbers_count_as_those_found_here():
    events = events_with([1, 1], [1, 1])
    events["track"]["X"][1, 0] = np.nan
    bad = {BAD_NUMBERS: np.array([True, False]), "broken": np.array([True, False])}
    prepared = conversion(Chunk(events, bad, Counter()))
    assert list(prepared.chunks()) == []
    assert prepared.metadata["skipped"] == {BAD_NUMBERS: 2}


def test_a_chunk_without_good_events_is_not_yielded():
    prepared = conversion(*(Chunk(events_with([n], [0]), {}, Counter()) for n in (0, 1)))
    assert [len(chunk) for chunk in prepared.chunks()] == [1]


def test_every_pass_counts_afresh(tmp_path):
    chunk = Chunk(
        events_with([1, 0, 1], [1, 0, 1]),
        {},
        Counter({"read": 1, "never met": 0}),
        {"reason": {"energy": np.array([1.0, 10.0, 100.0])}},
    )
    prepared = conversion(chunk, chunk, path=tmp_path / "events.root", num_bytes=5)
    for _ in range(2):
        assert sum(len(events) for events in prepared.chunks()) == 4
    metadata = prepared.metadata
    assert metadata["events_read"] == 6
    assert metadata["skipped"] == {EMPTY_EVENT: 2}
    assert metadata["lost"] == {"reason": {"energy": 202.0}}
    assert metadata["counters"] == {"read": 2}
    assert (metadata["source"], metadata["source_bytes"]) == ("events.root", 5)
    assert (metadata["format"], metadata["truth_version"]) == ("given", "test")
    assert json.loads(json.dumps(metadata)) == metadata  # as parquet files keep it
