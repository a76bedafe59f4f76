"""Losses of single numbers: those of Keras by name, and the form in which momenta are compared."""

import math
from typing import Any

import keras
from keras import ops

from mlpf.config.loss_schema import RegressionLossConfig

# Below this share of the true value the logarithm of a prediction goes on as its tangent.
TANGENT_BELOW = 0.01
# A smaller true value counts as this one, in GeV.
SMALLEST_TRUE = 1e-3


def build_regression(config: RegressionLossConfig) -> keras.losses.Loss:
    """Return the Keras loss of a section; it keeps one float32 value per row [..., 1]."""
    loss_class = getattr(keras.losses, config.type)
    return loss_class(reduction="none", dtype="float32", **config.arguments)


def log_ratio(predicted: Any, true: Any) -> Any:
    """Return ln(predicted / true), finite and with a slope for any prediction.

    It equals ln(predicted / element) - ln(true / element): what is measured for the element drops out of a
    difference, so it is not needed, and may be 0. Below ``TANGENT_BELOW`` x true the tangent is taken, which
    pulls predictions of zero and below back.

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
    # The other branch of `where` must be finite too, or its slope of 0 becomes NaN.
    logarithm = ops.log(ops.where(above, predicted, 1.0)) - ops.log(true)
    return ops.where(above, logarithm, math.log(TANGENT_BELOW) + predicted / least - 1.0)
