import numpy as np
import pytest

from mlpf.data.prepared import _held_out, data_errors
from mlpf.errors import CheckpointError, DataError


def test_the_share_held_out_is_as_asked_for_and_independent_of_seed_and_neighbours():
    first, second = _held_out(100_000, 0.1, 0), _held_out(100_000, 0.1, 1)
    # Standard deviations of binomial counts: 0.00095 and 0.0003 of the events.
    assert first.mean() == pytest.approx(0.1, abs=0.005)
    assert (first & second).mean() == pytest.approx(0.01, abs=0.0015)
    assert (first[1:] & first[:-1]).mean() == pytest.approx(0.01, abs=0.0015)


def test_whether_an_event_is_held_out_does_not_depend_on_those_behind_it():
    np.testing.assert_array_equal(_held_out(1000, 0.3, 5)[:100], _held_out(100, 0.3, 5))
    assert not (_held_out(1000, 0.1, 2) & ~_held_out(1000, 0.2, 2)).any()
    assert not _held_out(1000, 0.0, 0).any()


def test_a_wrapped_data_error_is_unwrapped_and_others_pass():
    with pytest.raises(DataError, match=r"^a/b: damaged; build it again$"), data_errors():
        raise RuntimeError("{{node}} Error in function: DataError: a/b: damaged; build it again\nTraceback\n")
    with pytest.raises(ZeroDivisionError), data_errors():
        raise ZeroDivisionError("x")
    with pytest.raises(CheckpointError, match="DataError: inside"), data_errors():
        raise CheckpointError("weights: DataError: inside")
