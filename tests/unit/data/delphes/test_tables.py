import numpy as np

from mlpf.data.delphes.tables import RowFinder, occurrence


def test_the_first_row_with_a_key_is_found():
    finder = RowFinder(np.array([7, 3, 7, 5]))
    assert finder.rows(np.array([7, 5, 4, 9, 3, 0])).tolist() == [0, 3, -1, -1, 1, -1]


def test_nothing_is_found_among_no_keys():
    assert RowFinder(np.zeros(0, dtype=int)).rows(np.array([1, 2])).tolist() == [-1, -1]


def test_no_key_finds_no_row():
    assert RowFinder(np.array([1, 2])).rows(np.zeros(0, dtype=int)).tolist() == []


def test_occurrence_counts_equal_values_further_up():
    assert occurrence(np.array([4, 2, 4, 4, 2, 9])).tolist() == [0, 0, 1, 2, 1, 0]
    assert occurrence(np.zeros(0, dtype=int)).tolist() == []


def test_occurrence_agrees_with_counting(rng):
    values = rng.integers(20, size=300)
    expected = [int((values[:i] == v).sum()) for i, v in enumerate(values)]
    assert occurrence(values).tolist() == expected
