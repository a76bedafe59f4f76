import json

import numpy as np
import pytest

from mlpf.data.delphes.conversion import (
    EMPTY_EVENT,
    NOT_FINITE,
    SCHEMA,
    DelphesFilePreparation,
    PreparedChunk,
)
from mlpf.data.events import Events, Jagged
from mlpf.data.flat_tables import offsets_from_counts


def events_with(tracks, towers):
    """Events of ones with these numbers of elements."""
    offsets = {"track": offsets_from_counts(np.array(tracks)), "tower": offsets_from_counts(np.array(towers))}
    jagged = {}
    for name, columns in SCHEMA.jagged_columns.items():
        of_kind = offsets[name.rsplit("_", 1)[1]]
        jagged[name] = Jagged(np.ones((of_kind[-1], len(columns)), np.float32), of_kind)
    return Events(jagged, {"event": np.arange(len(tracks))}, {}, SCHEMA)


class Prepared(DelphesFilePreparation):
    truth_version = "test"
    content = ()

    def _read(self):
        self._counters["read"] += 1
        yield from self.content


@pytest.fixture
def prepared(tmp_path):
    path = tmp_path / "events.root"
    path.write_bytes(b"12345")
    return Prepared(path)


def test_good_events_pass_as_they_are(prepared):
    events = events_with([1, 2], [0, 3])
    prepared.content = [PreparedChunk(events, {})]
    assert list(prepared.chunks()) == [events]
    assert prepared.metadata["skipped"] == {}
    assert "lost" not in prepared.metadata


def test_events_are_left_out_for_their_first_reason(prepared):
    events = events_with([1, 0, 2, 1], [1, 0, 1, 1])
    events.jagged["ycand_tower"].values[1, 3] = np.nan  # of event 2
    bad = {"broken": np.array([True, False, False, False])}
    prepared.content = [PreparedChunk(events, bad)]
    (left,) = prepared.chunks()
    assert left.scalars["event"].tolist() == [3]
    left.check("here")
    assert prepared.metadata["skipped"] == {"broken": 1, NOT_FINITE: 1, EMPTY_EVENT: 1}


def test_a_chunk_without_good_events_is_not_yielded(prepared):
    prepared.content = [PreparedChunk(events_with([n], [0]), {}) for n in (0, 1)]
    assert [len(chunk) for chunk in prepared.chunks()] == [1]


def test_every_pass_counts_afresh(prepared):
    prepared.content = [
        PreparedChunk(
            events_with([1, 0, 1], [1, 0, 1]), {}, {"reason": {"energy": np.array([1.0, 10.0, 100.0])}}
        )
    ] * 2
    for _ in range(2):
        list(prepared.chunks())
    metadata = prepared.metadata
    assert metadata["events_read"] == 6
    assert metadata["skipped"] == {EMPTY_EVENT: 2}
    assert metadata["lost"] == {"reason": {"energy": 202.0}}
    assert metadata["counters"] == {"read": 1}
    assert (metadata["source"], metadata["source_bytes"], metadata["truth_version"]) == (
        "events.root",
        5,
        "test",
    )
    json.dumps(metadata)  # as parquet files keep it
