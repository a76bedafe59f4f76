"""Replaced calls of single layers while a model is traced for ONNX or compared with it.

The original calls are restored when the context ends.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from mlpf.layers.binning import LearnableBinning

Order = npt.NDArray[np.integer]


@contextmanager
def recorded_orders(model: keras.Model) -> Iterator[list[Any]]:
    """Yield a list that gets the order [B, N] of each graph layer, in the sequence of their calls.

    It stays empty for a model without bins.
    """
    orders: list[Any] = []

    def record(layer: keras.layers.Layer, call: Callable[..., Any]) -> Callable[..., Any]:  # noqa: ARG001 - what replaces a call gets both
        def recording(z, mask):
            orders.append(call(z, mask))
            return orders[-1]

        return recording

    with _replaced_calls(model, LearnableBinning, record):
        yield orders


@contextmanager
def given_orders(model: keras.Model, orders: Sequence[Order]) -> Iterator[list[Any]]:
    """Sort elements in given orders instead of by projections; yield the orders that the layers would choose.

    Args:
        model: a model with eager calls.
        orders: [B, N] of each graph layer, from ``recorded_orders``.
    """
    own: list[Any] = []

    def give(layer: keras.layers.Layer, call: Callable[..., Any]) -> Callable[..., Any]:  # noqa: ARG001 - what replaces a call gets both
        def giving(z, mask):
            own.append(call(z, mask))
            return ops.convert_to_tensor(orders[len(own) - 1], dtype="int32")

        return giving

    with _replaced_calls(model, LearnableBinning, give):
        yield own


@contextmanager
def plain_norms(model: keras.Model) -> Iterator[None]:
    """Normalise in the steps that onnxruntime fuses into one operator, which those of Keras are not."""

    def plain(layer: keras.layers.LayerNormalization, call: Callable[..., Any]) -> Callable[..., Any]:  # noqa: ARG001 - what replaces a call gets both
        def normalize(x):
            x = ops.cast(x, "float32")
            centred = x - ops.mean(x, axis=-1, keepdims=True)
            deviation = ops.sqrt(ops.mean(centred * centred, axis=-1, keepdims=True) + layer.epsilon)
            y = centred / deviation * ops.cast(layer.gamma, "float32") + ops.cast(layer.beta, "float32")
            return ops.cast(y, layer.compute_dtype)

        return normalize

    with _replaced_calls(model, keras.layers.LayerNormalization, plain):
        yield


@contextmanager
def _replaced_calls(
    model: keras.Model,
    kind: type[keras.layers.Layer],
    make: Callable[[Any, Callable[..., Any]], Callable[..., Any]],
) -> Iterator[None]:
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, kind)]
    for layer in layers:
        layer.call = make(layer, layer.call)
    try:
        yield
    finally:
        for layer in layers:
            del layer.call
