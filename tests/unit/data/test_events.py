from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlpf.data.events import (
    Events,
    EventsWriter,
    Jagged,
    concatenate,
    iterate_events,
    read_events,
    read_metadata,
    write_events,
)
from mlpf.errors import DataError, SchemaMismatch
from mlpf.physics.schemas import SCHEMAS

COUNTS = {"track": [2, 0, 1], "calorimeter": [1, 3, 0], "particles": [4, 0, 2]}


def make_events(rng, schema="clic", first=4) -> Events:
    jagged = {}
    for name, columns in SCHEMAS[schema].jagged_columns.items():
        kind = name.rsplit("_", 1)[-1]
        counts = COUNTS[kind if kind in COUNTS else "calorimeter"]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        jagged[name] = Jagged(rng.normal(size=(offsets[-1], len(columns))).astype(np.float32), offsets)
    scalars = {
        "event": np.array([0, 1, 5]) + first,
        "lost_energy": np.array([0.5, 0, 1]),
        "lost_charge": np.array([0, -1.0, 1]),
        "num_lost": np.array([1, 0, 2]),
    }
    scalars = {name: scalars[name] for name in SCHEMAS[schema].scalar_types}
    return Events(jagged, scalars, {"source": "a.root", "truth_version": "1"}, SCHEMAS[schema])


@pytest.mark.parametrize("schema", SCHEMAS)
def test_what_is_written_comes_back(tmp_path, rng, schema):
    events = make_events(rng, schema)
    write_events(events, tmp_path / "a.parquet")
    back = read_events(tmp_path / "a.parquet")
    for name, jagged in events.jagged.items():
        np.testing.assert_array_equal(back.jagged[name].values, jagged.values)
        np.testing.assert_array_equal(back.jagged[name].offsets, jagged.offsets)
    for name, values in events.scalars.items():
        np.testing.assert_array_equal(back.scalars[name], values)
    assert back.schema is SCHEMAS[schema]
    assert back.metadata["source"] == "a.root"
    assert back.metadata["units"]["X_track"][1] == "GeV"


def test_chunks_are_row_groups_and_metadata_come_last(tmp_path, rng):
    chunks = [make_events(rng, first=first) for first in (0, 10)]
    with EventsWriter(tmp_path / "a.parquet", SCHEMAS["clic"]) as writer:
        for chunk in chunks:
            writer.write(chunk)
        assert not (tmp_path / "a.parquet").exists()
        writer.finish({"source": "a.root", "events_read": 7})
    back = list(iterate_events(tmp_path / "a.parquet"))
    assert [c.scalars["event"].tolist() for c in back] == [[0, 1, 5], [10, 11, 15]]
    np.testing.assert_array_equal(back[1].jagged["X_cluster"].values, chunks[1].jagged["X_cluster"].values)
    assert read_metadata(tmp_path / "a.parquet")["events_read"] == 7
    assert len(read_events(tmp_path / "a.parquet")) == 6


def test_event_numbers_may_not_repeat_between_chunks(tmp_path, rng):
    with EventsWriter(tmp_path / "a.parquet", SCHEMAS["clic"]) as writer:
        writer.write(make_events(rng))
        with pytest.raises(DataError, match="event number 4 repeats"):
            writer.write(make_events(rng))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_nobody_finished_is_dropped(tmp_path, rng):
    with EventsWriter(tmp_path / "a.parquet", SCHEMAS["clic"]) as writer:
        writer.write(make_events(rng))
    assert list(tmp_path.iterdir()) == []


def test_events_are_lists_that_any_parquet_reader_understands(tmp_path, rng):
    events = make_events(rng)
    write_events(events, tmp_path / "a.parquet")
    rows = pq.read_table(tmp_path / "a.parquet")["X_cluster"].to_pylist()
    np.testing.assert_array_equal(np.array(rows[1], np.float32), events.jagged["X_cluster"][1])


def test_a_file_without_events_comes_back_empty(tmp_path, rng):
    write_events(concatenate([], {}), tmp_path / "a.parquet")
    assert len(read_events(tmp_path / "a.parquet")) == 0


def test_select_and_concatenate_undo_each_other(rng):
    events = make_events(rng)
    parts = [events.select(np.arange(3) == i) for i in range(3)]
    back = concatenate(parts, events.metadata)
    for name, jagged in events.jagged.items():
        np.testing.assert_array_equal(back.jagged[name].values, jagged.values)
        np.testing.assert_array_equal(back.jagged[name].offsets, jagged.offsets)


def test_nan_is_never_written(tmp_path, rng):
    events = make_events(rng)
    events.jagged["ygen_track"].values[0, 0] = np.nan
    with pytest.raises(DataError, match="ygen_track holds NaN"):
        write_events(events, tmp_path / "a.parquet")
    assert list(tmp_path.iterdir()) == []


def test_targets_must_have_a_row_per_element(rng):
    events = make_events(rng)
    jagged = {**events.jagged, "ygen_track": events.jagged["ygen_cluster"]}
    with pytest.raises(DataError, match="ygen_track and X_track differ in length"):
        Events(jagged, events.scalars).check("here")


def test_event_numbers_must_be_unique(rng):
    events = make_events(rng)
    events.scalars["event"][1] = 4
    with pytest.raises(DataError, match="event numbers repeat"):
        events.check("here")


def test_a_full_disk_leaves_nothing_under_the_final_name(tmp_path, rng, monkeypatch):
    def full(writer, table, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(DataError, match="No space left on device"):
        write_events(make_events(rng), tmp_path / "a.parquet")
    assert list(tmp_path.iterdir()) == []


def test_other_columns_name_the_first_difference(tmp_path, rng, monkeypatch):
    write_events(make_events(rng), tmp_path / "a.parquet")
    track, cluster = SCHEMAS["clic"].kinds
    swapped = replace(SCHEMAS["clic"], kinds=(replace(track, features=cluster.features), cluster))
    monkeypatch.setitem(SCHEMAS, "clic", swapped)
    with pytest.raises(SchemaMismatch, match="X_track: cluster column 1 is 'pt', expected 'et'"):
        read_events(tmp_path / "a.parquet")


def test_missing_foreign_and_truncated_files_are_named(tmp_path, rng):
    with pytest.raises(DataError, match="no such file"):
        read_events(tmp_path / "gone.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "foreign.parquet")
    with pytest.raises(DataError, match="not written by mlpf postprocess"):
        read_events(tmp_path / "foreign.parquet")
    write_events(make_events(rng), tmp_path / "cut.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "cut.parquet").read_bytes()[:-50])
    with pytest.raises(DataError, match="not a complete parquet file"):
        read_events(tmp_path / "cut.parquet")
