"""Forward passes of a Keras model on plain arrays: eager, as one graph, compiled with XLA.

Everything that runs a network outside its training asks here for a ``Forward``.
``mlpf/export/onnx_session.py`` makes one of the same form from an exported file.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

# X [B, N, F] float32 -> outputs [B, N, .] float32 by ``OUTPUT_NAMES``. It returns when all of them are there.
Forward = Callable[[npt.NDArray[np.float32]], Mapping[str, npt.NDArray[np.float32]]]


def eager_forward(model: Any) -> Forward:
    """Return the forward pass operation by operation: the Python code of the layers runs in every call.

    Args:
        model: a Keras model of X [B, N, F].
    """
    return _on_arrays(_call(model))


def graph_forward(model: Any) -> Forward:
    """Return the forward pass as one graph with open axes, traced once for all shapes.

    Not ``model.predict_on_batch``: it traces again at the second shape, and under a strategy of several GPUs
    each of them would get the whole batch.

    Args:
        model: a Keras model of X [B, N, F] that knows its ``num_input_features`` F.
    """
    import tensorflow as tf

    signature = [tf.TensorSpec((None, None, model.num_input_features), tf.float32)]
    return _on_arrays(tf.function(_call(model), input_signature=signature, autograph=False))


def xla_forward(model: Any) -> Forward:
    """Return the forward pass compiled with XLA, once per shape: XLA must know the axes.

    Args:
        model: a Keras model of X [B, N, F].
    """
    import tensorflow as tf

    return _on_arrays(tf.function(_call(model), autograph=False, jit_compile=True))


def _call(model: Any) -> Callable[[Any], Mapping[str, Any]]:
    # A partial object would do, but tf.function names the graph after a function.
    def predict(X: Any) -> Mapping[str, Any]:
        return model(X, training=False)

    return predict


def _on_arrays(call: Callable[[Any], Mapping[str, Any]]) -> Forward:
    """Return ``call`` for arrays instead of tensors; to read the outputs is to wait for them."""
    import tensorflow as tf

    return lambda X: {name: values.numpy() for name, values in call(tf.constant(X)).items()}
