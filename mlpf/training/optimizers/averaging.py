"""Moving averages of the weights, kept by Keras.

Polyak, Juditsky, SIAM J. Control Optim. 30, 838 (1992), with exponential weights: after each update
a <- d a + (1 - d) w. Keras keeps them (``use_ema``) and sets a = w at the first update, so they need no
correction for a start at 0; the first weights keep the share d^t after t more updates.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

from mlpf.training.optimizers.accumulation import innermost


def averages(optimizer: keras.optimizers.Optimizer) -> list[Any] | None:
    """Return the averaged weights, one variable per trainable variable in the order of the model.

    None if the optimizer keeps no averages, or has made no update yet: Keras starts them at 0.
    """
    optimizer = innermost(optimizer)
    if not optimizer.use_ema or not int(keras.ops.convert_to_numpy(optimizer.iterations)):
        return None
    return list(optimizer._model_variables_moving_average)


@contextmanager
def averaged_weights(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Use the averaged weights in the model during the block, then restore the weights exactly.

    Without averages the model is unchanged. Do not use it inside of steps.

    Args:
        model: its trainable variables are those that ``optimizer`` was built with.
        optimizer: its optimizer, also inside of loss scaling or accumulation.
    """
    averaged = averages(optimizer)
    if averaged is None:
        yield
        return
    variables = model.trainable_variables
    kept = [keras.ops.convert_to_numpy(variable) for variable in variables]
    try:
        for variable, average in zip(variables, averaged, strict=True):
            variable.assign(keras.ops.convert_to_numpy(average))
        yield
    finally:
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)
