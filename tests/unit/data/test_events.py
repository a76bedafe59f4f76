from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlpf.data.events import FORMAT_VERSION, Events, EventsWriter, iterate_events, read_metadata
from mlpf.data.flat_tables import Table, offsets_from_counts
from mlpf.errors import DataError, SchemaMismatch
from mlpf.physics.schemas import SCHEMAS
from tests.support.conversions import assert_same_events
from tests.support.parquet_files import as_other_format

COUNTS = {"track": [2, 0, 1], "calorimeter": [1, 3, 0], "particles": [4, 0, 2]}


def make_events(rng, schema="clic", first=4) -> Events:
    tables = {}
    for name, columns in SCHEMAS[schema].tables.items():
        kind = "particles" if name.endswith("particles") else name
        offsets = offsets_from_counts(np.array(COUNTS[kind if kind in COUNTS else "calorimeter"]))
        matrices = {
            column: rng.normal(size=(offsets[-1], len(names))).astype(np.float32)
            for column, names in columns.items()
        }
        tables[name] = Table(matrices, offsets)
    scalars = {
        "event": np.array([0, 1, 5]) + first,
        "lost_energy": np.array([0.5, 0, 1]),
        "lost_charge": np.array([0, -1.0, 1]),
        "num_lost": np.array([1, 0, 2]),
    }
    scalars = Table.one_row_per_event({name: scalars[name] for name in SCHEMAS[schema].scalar_types})
    return Events(tables, scalars, SCHEMAS[schema], {"source": "a.root", "truth_version": "1"})


@pytest.mark.parametrize("schema", SCHEMAS)
def test_what_is_written_comes_back(tmp_path, rng, schema):
    events = make_events(rng, schema)
    events.to_parquet(tmp_path / "a.parquet")
    back = Events.from_parquet(tmp_path / "a.parquet")
    assert_same_events(back, events)
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
    assert_same_events(back[1], chunks[1])
    assert read_metadata(tmp_path / "a.parquet")["events_read"] == 7
    assert len(Events.from_parquet(tmp_path / "a.parquet")) == 6


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
    events.to_parquet(tmp_path / "a.parquet")
    rows = pq.read_table(tmp_path / "a.parquet")["X_cluster"].to_pylist()
    np.testing.assert_array_equal(np.array(rows[1], np.float32), list(events["cluster"].split())[1]["X"])


def test_a_file_without_events_comes_back_empty(tmp_path, rng):
    Events.empty(SCHEMAS["clic"]).to_parquet(tmp_path / "a.parquet")
    assert len(Events.from_parquet(tmp_path / "a.parquet")) == 0


def test_take_and_concatenate_undo_each_other(rng):
    events = make_events(rng)
    parts = [events.take(np.arange(3) == i) for i in range(3)]
    assert_same_events(Events.concatenate(parts), events)
    assert_same_events(Events.concatenate([Events.empty(events.schema), *parts]), events)
    turned = events.take(np.array([2, 1, 0]))
    assert turned.scalars["event"].tolist() == [9, 5, 4]
    assert_same_events(turned.take(np.array([2, 1, 0])), events)


def test_events_with_a_number_that_is_not_finite_are_found(rng):
    events = make_events(rng)
    assert events.finite().tolist() == [True, True, True]
    events["cluster"]["ycand"][3, 2] = np.nan  # of event 1
    events.scalars["lost_energy"][2] = np.inf
    assert events.finite().tolist() == [True, False, False]


def test_nan_is_never_written(tmp_path, rng):
    events = make_events(rng)
    events["track"]["ygen"][0, 0] = np.nan
    with pytest.raises(DataError, match="ygen_track holds NaN"):
        events.to_parquet(tmp_path / "a.parquet")
    assert list(tmp_path.iterdir()) == []


def test_targets_must_have_a_row_per_element(rng, tmp_path):
    events = make_events(rng)
    columns = {**events["track"].columns, "ygen": events["cluster"]["ygen"]}
    wrong = replace(events, tables={**events.tables, "track": Table(columns, events["track"].offsets)})
    with pytest.raises(DataError, match=r"here: ygen_track is .* \(4, 7\) .*, expected .* \(3, 7\)"):
        wrong.check("here")
    events.to_parquet(tmp_path / "a.parquet")
    content = pq.read_table(tmp_path / "a.parquet")
    place = content.column_names.index("ygen_track")
    other = content.set_column(place, "ygen_track", content["ygen_cluster"])
    pq.write_table(
        other.replace_schema_metadata(pq.read_metadata(tmp_path / "a.parquet").metadata),
        tmp_path / "b.parquet",
    )
    with pytest.raises(DataError, match="ygen has other numbers of rows than X"):
        Events.from_parquet(tmp_path / "b.parquet")


def test_tables_must_have_all_events(rng):
    events = make_events(rng)
    short = {**events.tables, "track": events["track"].take(np.array([0, 1]))}
    with pytest.raises(DataError, match=r"X_track is .* in 2 events, expected .* in 3 events"):
        replace(events, tables=short).check("here")


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
        make_events(rng).to_parquet(tmp_path / "a.parquet")
    assert list(tmp_path.iterdir()) == []


def test_other_columns_name_the_first_difference(tmp_path, rng, monkeypatch):
    make_events(rng).to_parquet(tmp_path / "a.parquet")
    track, cluster = SCHEMAS["clic"].kinds
    swapped = replace(SCHEMAS["clic"], kinds=(replace(track, features=cluster.features), cluster))
    monkeypatch.setitem(SCHEMAS, "clic", swapped)
    with pytest.raises(SchemaMismatch, match="X_track: cluster column 1 is 'pt', expected 'et'"):
        Events.from_parquet(tmp_path / "a.parquet")


def test_missing_foreign_and_truncated_files_are_named(tmp_path, rng):
    with pytest.raises(DataError, match="no such file"):
        Events.from_parquet(tmp_path / "gone.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "foreign.parquet")
    with pytest.raises(DataError, match="not written by mlpf postprocess"):
        Events.from_parquet(tmp_path / "foreign.parquet")
    make_events(rng).to_parquet(tmp_path / "cut.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "cut.parquet").read_bytes()[:-50])
    with pytest.raises(DataError, match="not a complete parquet file"):
        Events.from_parquet(tmp_path / "cut.parquet")


@pytest.mark.parametrize("version", [1, 2])
def test_older_files_say_what_to_do(tmp_path, rng, version):
    make_events(rng).to_parquet(tmp_path / "a.parquet")
    as_other_format(tmp_path / "a.parquet", version)
    for read in (read_metadata, Events.from_parquet, lambda path: list(iterate_events(path))):
        with pytest.raises(DataError) as error:
            read(tmp_path / "a.parquet")
        assert str(error.value) == (
            f"{tmp_path / 'a.parquet'}: written by an older version (format {version}, expected "
            f"{FORMAT_VERSION}); run mlpf postprocess again"
        )
    as_other_format(tmp_path / "a.parquet", FORMAT_VERSION + 1)
    with pytest.raises(DataError, match="written by a newer version"):
        read_metadata(tmp_path / "a.parquet")
