import math

import numpy as np
import pytest

from mlpf.training.optimizers.lr_range import RangeTest


def test_the_mean_is_corrected_for_its_start():
    """Weights 0.5 and 1 over 1.5 after two, 0.25, 0.5, 1 over 1.75 after three losses."""
    test = RangeTest(smoothing=0.5)
    for loss in (8.0, 2.0, 1.0):
        assert test.add(0.1, loss)

    assert test.smoothed == pytest.approx([8.0, (4 + 2) / 1.5, (2 + 1 + 1) / 1.75], abs=1e-12)


def test_it_stops_where_the_smoothed_loss_has_grown():
    test = RangeTest(stop_factor=2.0, smoothing=0.0)

    assert [test.add(rate, loss) for rate, loss in ((0.1, 3.0), (0.2, 1.0), (0.3, 2.0), (0.4, 2.1))] == [
        True,
        True,
        True,
        False,
    ]
    assert test.stopped == "the smoothed loss exceeds 2 times its smallest at 0.4"


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_it_stops_at_a_loss_that_is_not_finite_and_leaves_it_out(loss):
    test = RangeTest()

    assert test.add(0.1, 1.0)
    assert not test.add(0.2, loss)
    assert test.as_dict()["losses"] == [1.0]
    assert test.stopped == "the loss is not finite at 0.2"


def test_suggestions_of_a_valley():
    """loss = 2 + tanh(-x) over x = ln(rate / 1e-3) falls steepest at 1e-3, and rises again from 1."""
    test = RangeTest(stop_factor=10.0, smoothing=0.0)
    rates = np.geomspace(1e-6, 10, 141)
    for rate in rates:
        x = math.log(rate / 1e-3)
        test.add(float(rate), 2 - math.tanh(x) + max(0.0, math.log(rate)))

    found = test.suggestions()
    assert found["steepest"] == pytest.approx(1e-3, rel=1e-6)
    assert found["minimum"] == pytest.approx(1.0, rel=1e-6)
    assert found["minimum_over_10"] == pytest.approx(0.1, rel=1e-6)


@pytest.mark.parametrize("losses", [(), (1.0,), (1.0, 2.0, 3.0)])
def test_no_suggestion_where_the_loss_never_falls(losses):
    test = RangeTest()
    for i, loss in enumerate(losses):
        test.add(10.0**i, loss)

    assert set(test.suggestions().values()) == {None}
