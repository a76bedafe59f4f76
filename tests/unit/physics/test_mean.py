import math

import pytest

from mlpf.physics.mean import mean


def test_mean_and_error_by_hand():
    # Deviations -2, 0, 2: variance 8 / 2, standard deviation 2, error 2 / sqrt(3).
    found = mean([1.0, 3.0, 5.0])
    assert (found.mean, found.n) == (3.0, 3)
    assert found.error == pytest.approx(2 / math.sqrt(3), rel=1e-15)
    assert found.std == pytest.approx(2.0, rel=1e-15)


def test_one_value_has_no_error():
    assert (mean([2.0]).mean, mean([2.0]).n) == (2.0, 1)
    assert math.isnan(mean([2.0]).error)
    assert math.isnan(mean([2.0]).std)


def test_no_values_have_no_mean():
    assert math.isnan(mean([]).mean)
    assert mean([]).n == 0
