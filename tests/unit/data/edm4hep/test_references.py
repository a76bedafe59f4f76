from collections import Counter

import numpy as np

from mlpf.data.edm4hep.references import HitRows, expand_references, link, rows_of
from mlpf.data.flat_tables import Table

# Two events of two and one rows; three and two references.
OFFSETS = np.array([0, 2, 3])
REFERENCES = Table({"index": np.array([10, 11, 12, 20, 21])}, np.array([0, 3, 5]))


def expanded(begin, end):
    table = Table({"r_begin": np.array(begin), "r_end": np.array(end)}, OFFSETS)
    rows, columns, bad = expand_references(table, "r", REFERENCES)
    return rows.tolist(), columns["index"].tolist(), bad.tolist()


def test_ranges_count_from_the_beginning_of_their_event():
    assert expanded([0, 1, 0], [1, 3, 2]) == ([0, 1, 1, 2, 2], [10, 11, 12, 20, 21], [False, False])


def test_empty_ranges_refer_to_nothing():
    assert expanded([0, 3, 2], [0, 3, 2]) == ([], [], [False, False])


def test_wrong_ranges_are_empty_and_mark_their_event_only():
    assert expanded([1, 0, 0], [0, 1, 2]) == ([1, 2, 2], [10, 20, 21], [True, False])  # swapped
    assert expanded([0, 0, 0], [1, 1, 3]) == ([0, 1], [10, 10], [False, True])  # beyond the event
    assert expanded([-1, 0, 0], [1, 1, 1]) == ([1, 2], [10, 20], [True, False])
    assert expanded([2**62, 0, 0], [-(2**62), 1, 1]) == ([1, 2], [10, 20], [True, False])


def test_indices_become_rows_and_failures_are_counted():
    counters = Counter()
    table = Table({}, OFFSETS)
    rows = rows_of(np.array([0, 0, 1, 1, 0]), np.array([1, 2, 0, -2, 2**40]), table, counters)
    assert rows.tolist() == [1, -1, 2, -1, -1]
    assert +counters == {"null references": 1, "references out of range": 2}


def test_an_index_into_another_collection_is_no_row():
    table, counters = Table({}, OFFSETS), Counter()
    event, index = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 99, 0, -2])
    collection = np.array([7, -2, 8, 8, 8])  # a signed id is the same as its unsigned form
    rows = rows_of(event, index, table, counters, collection=collection, ids={7, 2**32 - 2})
    assert rows.tolist() == [0, 1, -1, -1, -1]
    assert +counters == {
        "null references": 1,
        "references to unknown collections": 2,
    }
    # What cannot be checked is believed.
    for unchecked in ({"ids": {7}}, {"collection": collection}):
        assert rows_of(event, index, table, counters, **unchecked).tolist() == [0, 1, -1, 2, -1]


def test_hits_are_found_by_collection_and_index():
    # Event 0 has two hits of collection 7 and one of 9, event 1 none and two.
    hits = HitRows(Table({}, np.array([0, 3, 5])), np.array([[0, 0], [2, 0], [3, 2]]), {7: 0, 9: 1})
    event, collection = np.array([0, 0, 0, 1, 1, 1, 0, 1]), np.array([7, 9, 9, 9, 7, 8, 9, 9])
    index = np.array([1, 0, 1, 1, 0, 0, -2, 2**40])
    counters = Counter()
    assert hits.find(event, collection, index, counters).tolist() == [1, 2, -1, 4, -1, -1, -1, -1]
    assert counters == {
        "null references": 1,
        "references to unknown collections": 1,
        "references out of range": 3,
    }


def test_links_need_both_ends():
    relation = link(np.array([0, -1, 2]), np.array([5, 6, -1]), np.array([0.5, 1.0, 1.0], dtype=np.float32))
    assert (relation.source.tolist(), relation.target.tolist(), relation.weight.tolist()) == ([0], [5], [0.5])
    assert relation.weight.dtype == np.float64
