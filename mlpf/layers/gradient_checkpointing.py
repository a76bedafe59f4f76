"""Gradient checkpointing: recompute a layer in the backward pass instead of keeping its activations.

Chen et al., arXiv:1604.06174. Memory falls to what one layer needs plus the inputs of all; the forward
pass of the layer is done twice.
"""

from typing import Any

import keras
from keras import ops


def recompute(layer: keras.layers.Layer, *args: Any, training: bool) -> Any:
    """Call a built layer; in training its activations are computed again when its gradient is.

    ``keras.remat`` alone would draw another dropout mask in the second pass, and advance random states and
    counters twice. Therefore the layer is called as a function of its weights and states: both passes get the
    states from before the call, and the new states are assigned once.

    Args:
        layer: its weights and ``call`` must not be cast on access (``autocast=False``, or float32).
        *args: arguments of ``layer``; gradients reach those of a floating type. None is passed on.
        training: without it no activations are kept, and the layer is called as usual.

    Returns:
        What the layer returns, one tensor.
    """
    if not training:
        return layer(*args, training=training)
    followed = [i for i, arg in enumerate(args) if arg is not None and _is_floating(arg)]
    # Copies: TensorFlow reads a variable where it is used, which is also in the second pass.
    states = [ops.copy(variable) for variable in layer.non_trainable_variables]
    weights = [ops.copy(variable) for variable in layer.trainable_variables]

    def run(*tensors: Any) -> tuple[Any, dict[int, Any]]:
        """Return the output, and the states that changed by their number."""
        inputs, weights = tensors[: len(followed)], list(tensors[len(followed) :])
        replaced = dict(zip(followed, inputs, strict=True))
        arguments = [replaced.get(i, arg) for i, arg in enumerate(args)]
        output, after = layer.stateless_call(weights, states, *arguments, training=training)
        changed = {i: new for i, (old, new) in enumerate(zip(states, after, strict=True)) if new is not old}
        return output, changed

    recomputed = _recomputed_by_tensorflow if keras.backend.backend() == "tensorflow" else keras.remat
    output, changed = recomputed(run)(*(args[i] for i in followed), *weights)
    for i, state in changed.items():
        layer.non_trainable_variables[i].assign(state)
    return output


def _recomputed_by_tensorflow(run: Any) -> Any:
    """Return what ``keras.remat(run)`` should be: integers among its outputs make TensorFlow fail.

    TensorFlow 2.18 frees such outputs while they are still in use. The states of the first pass are therefore
    handed over past it. JAX does not allow this: there, all results must be outputs.
    """

    def recomputed(*tensors: Any) -> tuple[Any, dict[int, Any]]:
        passes: list[dict[int, Any]] = []

        @keras.remat
        def output_of(*tensors: Any) -> Any:
            output, changed = run(*tensors)
            passes.append(changed)
            return output

        output = output_of(*tensors)
        return output, passes[0]

    return recomputed


def _is_floating(tensor: Any) -> bool:
    return "float" in keras.backend.standardize_dtype(tensor.dtype)
