"""Events of a dataset as tables: worked by hand."""

import numpy as np
import pytest

from mlpf.data.dataset.prepared_events import PreparedEvents


def make_events() -> PreparedEvents:
    """Two events with 2 and 1 elements, 0 and 2 particles."""
    return PreparedEvents.from_events(
        [
            {
                "X": np.array([[1.0], [2.0]]),
                "ygen": np.array([[10.0], [20.0]]),
                "gen_particles": np.empty((0, 2)),
                "event": np.array("a_1"),
            },
            {
                "X": np.array([[3.0]]),
                "ygen": np.array([[30.0]]),
                "gen_particles": np.array([[5.0, 6.0], [7.0, 8.0]]),
                "event": np.array("file_10"),
            },
        ]
    )


def test_a_field_is_reached_by_name():
    events = make_events()
    assert events.num_events == 2
    assert events.fields == ("X", "ygen", "gen_particles", "event")
    assert events["X"].tolist() == [[1], [2], [3]]
    assert events.table("ygen") is events.table("X") is events.elements
    assert events["gen_particles"].tolist() == [[5, 6], [7, 8]]
    assert events.table("gen_particles").counts.tolist() == [0, 2]
    assert events["event"].tolist() == events.names == ["a_1", "file_10"]
    assert "ygen" in events
    assert "ycand" not in events


@pytest.mark.parametrize(
    ("values", "names"),
    [(np.array([b"a", b"b"]), ["a", "b"]), (np.array([7, 9]), ["7", "9"]), (None, ["0", "1"])],
)
def test_names_are_texts(values, names):
    events = make_events()
    events.values.clear()
    if values is not None:
        events.values["event"] = values
    assert events.names == names


def test_take_takes_of_every_field():
    taken = make_events().take(np.array([1, 0, 1]))
    assert taken["X"].tolist() == [[3], [1], [2], [3]]
    assert taken.lists["gen_particles"].counts.tolist() == [2, 0, 2]
    assert taken.names == ["file_10", "a_1", "file_10"]


def test_concatenate_joins_every_field():
    events = make_events()
    joined = PreparedEvents.concatenate([events.take(np.array([i])) for i in (1, 0)])
    assert joined["ygen"].tolist() == [[30], [10], [20]]
    assert joined.lists["gen_particles"].counts.tolist() == [2, 0]
    assert joined.names == ["file_10", "a_1"]
    with pytest.raises(ValueError, match="all with the same fields"):
        PreparedEvents.concatenate([events, PreparedEvents(events.elements, {}, {})])


def test_events_without_fields_of_elements_are_counted():
    events = PreparedEvents.from_events([{"event": np.array("a")}, {"event": np.array("b")}])
    assert events.num_events == 2
    assert len(events.elements) == 0
    assert events.take(np.array([1])).names == ["b"]


def test_rows_of_elements_must_agree():
    with pytest.raises(ValueError, match="event 1: ygen has another number of rows"):
        PreparedEvents.from_events([{"X": np.zeros((n, 1)), "ygen": np.zeros((2, 1))} for n in (2, 3)])
