"""Find NaN and infinite numbers in the weights of a model and in the outputs of its layers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

Counts = dict[str, dict[str, int]]


def bad_weights(model: keras.Model) -> Counts:
    """Return path -> ``not_finite`` and ``size`` of the weights with values that are NaN or infinite."""
    counts = {weight.path: _count(weight) for weight in model.weights}
    return {path: count for path, count in counts.items() if count["not_finite"]}


def bad_outputs(model: keras.Model, X: Any) -> tuple[Counts, Counts]:
    """Run a model on a batch and find outputs of layers that are NaN or infinite.

    Args:
        model: X [B, N, F] -> dict of outputs.
        X: [B, N, F] float32.

    Returns:
        Path of the layer -> ``not_finite`` and ``size`` of its output, in the order of execution: the first
        layer is the origin. The second dict has the same for the outputs of the model, by name.
    """
    layers: Counts = {}
    with _watched(model, layers):
        outputs = {name: _count(values) for name, values in model(X, training=False).items()}
    return layers, {name: count for name, count in outputs.items() if count["not_finite"]}


@contextmanager
def _watched(model: keras.Model, found: Counts) -> Iterator[None]:
    """Add the layers of ``model`` with outputs that are not finite to ``found``."""
    layers = list(model._flatten_layers(include_self=False))

    def watch(layer: keras.Layer) -> None:
        call = layer.call

        def watched(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            counts = [_count(values) for values in keras.tree.flatten(outputs) if _is_float(values)]
            total = {key: sum(count[key] for count in counts) for key in ("not_finite", "size")}
            if total["not_finite"]:
                found.setdefault(layer.path, total)
            return outputs

        # Bypass __setattr__ of Keras, which refuses to change a built layer.
        layer.__dict__["call"] = watched

    for layer in layers:
        watch(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["call"]


def _is_float(values: Any) -> bool:
    return keras.backend.is_float_dtype(keras.backend.standardize_dtype(values.dtype))


def _count(values: Any) -> dict[str, int]:
    array = keras.ops.convert_to_numpy(keras.ops.cast(values, "float32"))
    return {"not_finite": int(array.size - np.isfinite(array).sum()), "size": int(array.size)}
