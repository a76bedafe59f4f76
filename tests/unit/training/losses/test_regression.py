import inspect
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from mlpf.config.loss_schema import REGRESSION_LOSSES, RegressionLossConfig
from mlpf.training.losses.regression import build_regression, log_ratio


@pytest.mark.parametrize("name", REGRESSION_LOSSES)
def test_the_table_has_the_arguments_of_keras(name):
    arguments = inspect.signature(getattr(keras.losses, name).__init__).parameters
    ours = set(arguments) - {"self", "reduction", "name", "dtype"}
    assert set(REGRESSION_LOSSES[name]) == ours


# For a true value of 2 and a prediction of 5, by hand.
VALUES = {
    "Huber": 2.5,
    "MeanSquaredError": 9.0,
    "MeanAbsoluteError": 3.0,
    "LogCosh": math.log(math.cosh(3.0)),
    "MeanSquaredLogarithmicError": math.log(2.0) ** 2,
    "MeanAbsolutePercentageError": 150.0,
}


@pytest.mark.parametrize("name", REGRESSION_LOSSES)
def test_one_value_per_row(name):
    loss = build_regression(RegressionLossConfig(type=name))
    found = np.asarray(loss(np.full((2, 3, 1), 2.0), np.full((2, 3, 1), 5.0)))
    assert found.shape == (2, 3)
    np.testing.assert_allclose(found, VALUES[name], rtol=1e-6)


@pytest.mark.parametrize("given", [{"delta": 2.0}, {"kwargs": {"delta": 2.0}}])
def test_arguments_reach_keras(given):
    loss = build_regression(RegressionLossConfig.model_validate({"type": "Huber", **given}))
    assert float(loss(np.zeros((1, 1)), np.full((1, 1), 3.0))[0]) == 2.0 * (
        3.0 - 1.0
    )  # delta (|x| - delta/2)


def test_log_ratio_and_its_tangent():
    true = np.array([2.0, 2.0, 2.0, 2.0, 0.0], np.float32)
    predicted = np.array([2.0 * math.e, 0.02 * (1 + 1e-6), 0.0, -0.02, 1e-3], np.float32)
    # Below 1 % of the true value: ln 0.01 + predicted / (0.01 true) - 1. A true value of 0 counts as 1 MeV.
    expected = [1.0, math.log(0.01), math.log(0.01) - 1, math.log(0.01) - 2, 0.0]
    np.testing.assert_allclose(np.asarray(log_ratio(predicted, true)), expected, rtol=0, atol=2e-6)


def test_log_ratio_always_has_a_finite_slope_up():
    predicted = tf.constant([-1e6, -1.0, 0.0, 1e-30, 1.0, 1e30])
    with tf.GradientTape() as tape:
        tape.watch(predicted)
        values = log_ratio(predicted, tf.ones_like(predicted))
    slopes = tape.gradient(values, predicted).numpy()
    assert np.isfinite(values.numpy()).all()
    np.testing.assert_allclose(slopes, [100.0, 100.0, 100.0, 100.0, 1.0, 1e-30], rtol=1e-5)
