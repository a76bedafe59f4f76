import awkward as ak
import numpy as np
import pytest
import uproot

from mlpf.data.edm4hep.leaves import RNTUPLE, TTREE, EventFile
from mlpf.data.source_file import open_source
from mlpf.errors import DataError

LISTS = [[1.5, 2.5], [], [3.5], [4.5, 5.5, 6.5], [], [7.5]]


def write(path, kind, chunks=(LISTS,)):
    with uproot.recreate(path) as file:
        tree = None
        for chunk in chunks:
            lists = ak.values_astype(ak.Array(chunk), np.float32)
            event = {"A": ak.zip({"x": lists, "i": ak.local_index(lists)}), "one": np.arange(len(chunk))}
            if kind == RNTUPLE:
                file.mkrntuple("events", event)
                continue
            if tree is None:
                types = {"A": event["A"].type.content, "one": "int64"}
                names = {"counter_name": lambda n: f"n_{n}", "field_name": lambda o, i: f"{o}.{i}"}
                tree = file.mktree("events", types, **names)
            tree.extend(event)
    return path


def read(path, leaf, *ranges):
    with open_source(path) as source:
        events = EventFile(source)
        events.select([leaf])
        return [tuple(part.tolist() for part in events.read(leaf, *r)) for r in ranges]


@pytest.mark.parametrize("kind", [TTREE, RNTUPLE])
def test_any_range_of_events_is_read(tmp_path, kind):
    path = write(tmp_path / "a.root", kind)
    assert read(path, "A.x", (0, 6), (1, 4), (4, 5), (2, 2)) == [
        ([1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5], [2, 0, 1, 3, 0, 1]),
        ([3.5, 4.5, 5.5, 6.5], [0, 1, 3]),
        ([], [0]),
        ([], []),
    ]


def test_baskets_are_put_together(tmp_path):
    path = write(tmp_path / "a.root", TTREE, chunks=(LISTS[:2], LISTS[2:3], LISTS[3:]))
    with open_source(path) as source:
        assert source.root["events"]["A.x"].num_baskets == 3
    whole = ([1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5], [2, 0, 1, 3, 0, 1])
    # The last range goes back to a basket that is no longer in memory.
    assert read(path, "A.x", (0, 6), (1, 4), (0, 6))[::2] == [whole, whole]
    assert read(path, "A.i", (2, 5)) == [([0, 0, 1, 2], [1, 3, 0])]


@pytest.mark.parametrize("kind", [TTREE, RNTUPLE])
def test_names_and_kind(tmp_path, kind):
    path = write(tmp_path / "a.root", kind)
    with open_source(path) as source:
        events = EventFile(source)
    assert (events.kind, events.num_events) == (kind, 6)
    assert {"A.x", "A.i", "one"} <= events.leaves


@pytest.mark.parametrize("kind", [TTREE, RNTUPLE])
def test_a_leaf_that_is_no_list_is_an_error(tmp_path, kind):
    path = write(tmp_path / "a.root", kind)
    with pytest.raises(DataError, match=r"a\.root: leaf one holds .*int64.*, expected a list of numbers"):
        read(path, "one", (0, 6))


def test_events_that_the_leaf_does_not_have_are_an_error(tmp_path):
    with pytest.raises(DataError, match=r"A\.x ends before event 9"):
        read(write(tmp_path / "a.root", TTREE), "A.x", (0, 9))


def test_offsets_that_make_no_sense_are_an_error(tmp_path, monkeypatch):
    path = write(tmp_path / "a.root", TTREE)
    basket = uproot.models.TBasket.Model_TBasket
    wrong = np.array([0, 8, 8, 4, 24, 24, 28], dtype=np.int32)
    monkeypatch.setattr(basket, "byte_offsets", property(lambda _: wrong))
    with pytest.raises(DataError, match="offsets of basket 0 make no sense"):
        read(path, "A.x", (0, 6))


def test_a_path_with_a_colon_is_a_path(tmp_path):
    path = write(tmp_path / "a:b.root", TTREE)
    assert read(path, "A.x", (0, 1)) == [([1.5, 2.5], [2])]


def test_nothing_is_kept_of_events_that_were_read(tmp_path):
    path = write(tmp_path / "a.root", RNTUPLE)
    with open_source(path) as source:
        events = EventFile(source)
        events.select(["A.x"])
        assert events.read("A.x", 0, 6)[0].size == 7
        assert len(source.root.file.array_cache) == 0
