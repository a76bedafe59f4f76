"""Gradient checkpointing: recompute a layer in the backward pass instead of keeping its activations.

Chen et al., arXiv:1604.06174. Memory falls to what one layer needs plus the inputs of all; the forward
pass of the layer is done twice.
"""

from typing import Any

import keras
from keras import ops


def recompute(layer: keras.layers.Layer, *args: Any, training: bool) -> Any:
    """Call a built layer; in training its activations are computed again when its gradient is.

    Written around ``keras.remat``, which alone would draw another dropout mask the second time and advance
    random states and counters twice. So the layer is called as a function of its weights and states: both
    passes see the states from before the call, which are advanced once.

    Args:
        layer: its weights and ``call`` must not be cast on access (``autocast=False``, or float32).
        *args: arguments of ``layer``; gradients reach those of a floating type. None is passed on.
        training: without it nothing is kept anyway, and the layer is called as usual.

    Returns:
        What the layer returns, one tensor.

    Random states and counters are advanced under TensorFlow only: JAX cannot take them out of ``run``.
    """
    if not training:
        return layer(*args, training=training)
    followed = [i for i, arg in enumerate(args) if arg is not None and _is_floating(arg)]
    # Copies: TensorFlow reads a variable where it is used, which is also in the second pass.
    states = [ops.copy(variable) for variable in layer.non_trainable_variables]
    advanced: dict[int, Any] = {}

    @keras.remat
    def run(*tensors: Any) -> Any:
        inputs, weights = tensors[: len(followed)], list(tensors[len(followed) :])
        replaced = dict(zip(followed, inputs, strict=True))
        arguments = [replaced.get(i, arg) for i, arg in enumerate(args)]
        output, after = layer.stateless_call(weights, states, *arguments, training=training)
        # Kept from the first pass, and not returned: as outputs of a recomputed function integers make
        # TensorFlow 2.18 free objects that are still in use.
        for i, (old, new) in enumerate(zip(states, after, strict=True)):
            if new is not old:
                advanced.setdefault(i, new)
        return output

    weights = [ops.copy(variable) for variable in layer.trainable_variables]
    output = run(*(args[i] for i in followed), *weights)
    for i, state in advanced.items():
        layer.non_trainable_variables[i].assign(state)
    return output


def _is_floating(tensor: Any) -> bool:
    return "float" in keras.backend.standardize_dtype(tensor.dtype)
