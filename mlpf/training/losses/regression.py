"""Losses of single numbers: Keras losses by name, and the logarithm of ratios."""

import math
from typing import Any

import keras
from keras import ops

from mlpf.config.loss_schema import RegressionLossConfig

# Below this share of the true value, the logarithm is continued by its tangent.
TANGENT_BELOW = 0.01
# Smallest true value, GeV; smaller ones are raised to it.
SMALLEST_TRUE = 1e-3


def build_regression(config: RegressionLossConfig) -> keras.losses.Loss:
    """Return the Keras loss of a section, without reduction: one float32 value per row [..., 1]."""
    loss_class = getattr(keras.losses, config.type)
    return loss_class(reduction="none", dtype="float32", **config.arguments)


def log_ratio(predicted: Any, true: Any) -> Any:
    """Return ln(predicted / true), finite and with a gradient for any prediction.

    It equals ln(predicted / element) - ln(true / element), so the measured value of the element cancels.
    Below ``TANGENT_BELOW`` x true it continues as the tangent, which is finite for predictions <= 0.

    Args:
        predicted: any shape, GeV.
        true: same shape, GeV, not negative.

    Returns:
        Same shape, float32.
    """
    predicted = ops.cast(predicted, "float32")
    true = ops.maximum(ops.cast(true, "float32"), SMALLEST_TRUE)
    least = TANGENT_BELOW * true
    above = predicted > least
    # The unused branch of `where` must be finite too, or its gradient becomes NaN.
    logarithm = ops.log(ops.where(above, predicted, 1.0)) - ops.log(true)
    return ops.where(above, logarithm, math.log(TANGENT_BELOW) + predicted / least - 1.0)
