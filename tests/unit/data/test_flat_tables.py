"""The container of flat events: worked by hand, and against a loop over events."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlpf.data.flat_tables import Table


def make_table() -> Table:
    """Three events of 2, 0 and 1 rows."""
    columns = {"pt": np.array([1.0, 2.0, 3.0]), "X": np.arange(6, dtype=np.float32).reshape(3, 2)}
    return Table(columns, np.array([0, 2, 2, 3]))


def same(a: Table, b: Table) -> bool:
    return np.array_equal(a.offsets, b.offsets) and all(
        np.array_equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a.columns
    )


def test_counts_and_event_of_each_row():
    table = make_table()
    assert (table.num_events, len(table)) == (3, 3)
    assert table.counts.tolist() == [2, 0, 1]
    assert table.event.tolist() == [0, 0, 2]


def test_take_by_position_keeps_the_order_asked_for():
    taken = make_table().take(np.array([2, 0]))
    assert taken["pt"].tolist() == [3, 1, 2]
    assert taken["X"].tolist() == [[4, 5], [0, 1], [2, 3]]
    assert taken.offsets.tolist() == [0, 1, 3]


def test_take_by_boolean():
    assert same(make_table().take(np.array([True, False, True])), make_table().take(np.array([0, 2])))


def test_take_of_random_events_equals_a_loop():
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 5, 40)
    table = Table.from_events([{"a": rng.normal(size=n)} for n in counts])
    wanted = rng.permutation(40)[:17]
    rows = [table["a"][table.offsets[e] : table.offsets[e + 1]] for e in wanted]
    assert table.take(wanted)["a"].tolist() == np.concatenate(rows).tolist()


def test_where_keeps_all_events():
    kept = make_table().where(np.array([False, True, False]))
    assert kept["pt"].tolist() == [2]
    assert kept["X"].tolist() == [[2, 3]]
    assert kept.offsets.tolist() == [0, 1, 1, 1]


def test_sums_of_events_without_rows_are_zero():
    table = make_table()
    assert table.sum(table["pt"]).tolist() == [3, 0, 3]
    assert table.sum(np.array([1, 1, 1])).dtype == np.float64


def test_select_keeps_the_rows_of_the_columns_asked_for():
    table = make_table()
    assert list(table.select(["X"]).columns) == ["X"]
    assert same(table.select(["X"]), Table({"X": table["X"]}, table.offsets))
    assert table.select([]).num_events == 3


def test_split_and_concatenate_are_inverse():
    table = make_table()
    assert [len(t) for t in table.split()] == [2, 0, 1]
    assert same(Table.concatenate(list(table.split([1, 2]))), table)


def test_split_wants_all_events():
    with pytest.raises(ValueError, match="2 events asked for, the table has 3"):
        list(make_table().split([2]))


def test_concatenate_refuses_other_columns():
    with pytest.raises(ValueError, match="same columns"):
        Table.concatenate([make_table(), Table({"pt": np.zeros(0)}, np.array([0]))])


def test_from_events_names_the_event_that_does_not_fit():
    with pytest.raises(ValueError, match="event 1: b has another number of rows"):
        Table.from_events([{"a": np.zeros(1), "b": np.zeros(1)}, {"a": np.zeros(2), "b": np.zeros(1)}])


def test_arrow_and_parquet_give_the_same_table_back(tmp_path):
    table = make_table()
    pq.write_table(pa.table(table.to_arrow()), tmp_path / "t.parquet")
    read = pq.read_table(tmp_path / "t.parquet")
    assert same(Table.from_arrow({n: read[n].combine_chunks() for n in read.column_names}), table)


def test_arrow_of_a_part_of_a_file_starts_at_its_own_rows():
    arrays = {name: array.slice(1) for name, array in make_table().to_arrow().items()}
    assert same(Table.from_arrow(arrays), make_table().take(np.array([1, 2])))


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (pa.array([1.0]), "expected a list per event"),
        (pa.array([["a"]]), "expected lists of numbers"),
        (pa.array([[1.0], None]), "expected a list per event"),
        (pa.array([[1.0, None]]), "expected lists of numbers"),
    ],
)
def test_from_arrow_says_what_does_not_fit(array, what):
    with pytest.raises(ValueError, match=what):
        Table.from_arrow({"x": array})


def test_from_arrow_wants_lists_of_equal_lengths():
    with pytest.raises(ValueError, match="b has other numbers of rows than a"):
        Table.from_arrow({"a": pa.array([[1.0]]), "b": pa.array([[1.0, 2.0]])})


def test_one_row_per_event():
    table = Table.one_row_per_event({"event": np.array([4, 7]), "x": np.ones((2, 3))})
    assert table.counts.tolist() == [1, 1]
    assert table.take(np.array([1]))["event"].tolist() == [7]
    assert Table.one_row_per_event({"event": np.zeros(0, int)}).num_events == 0


def test_rows_that_are_not_there_are_refused():
    rows = pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2))
    lists = pa.LargeListArray.from_arrays(pa.array([0, 2, 3]), rows)
    with pytest.raises(ValueError, match=r"X is .*, expected lists of numbers"):
        Table.from_arrow({"X": lists})
