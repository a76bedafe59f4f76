import numpy as np
import pytest

from mlpf.evaluation.statistics import bootstrap_spread, bootstrap_weights, fraction, spread


def test_spread_of_a_hand_worked_sample():
    # quartiles of 1..5 are 2, 3 and 4
    result = spread(np.array([5.0, 1.0, 4.0, 2.0, 3.0]))
    assert (result.median, result.iqr_over_median, result.count) == (3.0, 2 / 3, 5)


def test_spread_of_nothing_is_undefined():
    result = spread(np.empty(0))
    assert np.isnan(result.median)
    assert np.isnan(result.iqr_over_median)
    assert result.count == 0


def test_resamples_agree_with_quantiles_of_repeated_values():
    rng = np.random.default_rng(1)
    values, event = rng.normal(5, 1, 40), rng.integers(0, 10, 40)
    weights = bootstrap_weights(10, num_resamples=60, seed=2)
    median, width = bootstrap_spread(values, event, weights)
    for i in range(60):
        low, middle, high = np.quantile(np.repeat(values, weights[i][event]), (0.25, 0.5, 0.75))
        assert median[i] == pytest.approx(middle, abs=1e-12)  # float64 interpolation
        assert width[i] == pytest.approx((high - low) / middle, abs=1e-12)


def test_resamples_draw_as_many_events_as_there_are_and_repeat_with_the_seed():
    weights = bootstrap_weights(30, num_resamples=5, seed=3)
    assert weights.sum(axis=1).tolist() == [30] * 5
    assert np.array_equal(weights, bootstrap_weights(30, num_resamples=5, seed=3))
    assert not np.array_equal(weights, bootstrap_weights(30, num_resamples=5, seed=4))


def test_bootstrap_finds_the_uncertainty_of_a_median():
    values = np.random.default_rng(4).normal(10, 1, 2000)
    median, _ = bootstrap_spread(values, np.arange(2000), bootstrap_weights(2000, 200, 5))
    # sqrt(pi / 2) / sqrt(n) = 0.028 for a normal distribution; 200 resamples know it to about 10 %
    assert np.std(median) == pytest.approx(0.028, abs=0.008)


@pytest.mark.parametrize("num_events", [0, 3])
def test_bootstrap_of_nothing_is_undefined(num_events):
    nothing = np.empty(0)
    median, width = bootstrap_spread(nothing, np.empty(0, np.int64), bootstrap_weights(num_events, 4))
    assert np.isnan(median).all()
    assert np.isnan(width).all()


def test_fraction_of_a_hand_worked_sample():
    result = fraction(1, 4)
    assert result.value == 0.25
    # Wilson: the square root of 0.1875 / 4 plus 1 / 64 is 0.25, over 1.25 gives 0.2
    assert result.uncertainty == pytest.approx(0.2, abs=1e-12)


def test_fraction_is_uncertain_at_its_ends_and_undefined_without_entries():
    assert fraction(0, 10).uncertainty > 0
    assert fraction(10, 10).uncertainty == fraction(0, 10).uncertainty
    assert np.isnan(fraction(0, 0).value)
