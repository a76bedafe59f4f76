"""What every layer must do, in one place: each layer test gives a case and calls ``check_layer``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mlpf.machine import devices

# Stands for the 16-bit format of the policy.
HALF = "half"


@dataclass(frozen=True)
class LayerCase:
    """A layer, an input for it and what is expected of both."""

    make: Callable[[], keras.layers.Layer]
    inputs: tuple[np.ndarray, ...]
    output_shape: Any
    num_trainable: int
    num_frozen: int = 0
    dtype: str = "float32"
    mixed_dtype: str = "float32"
    gradients: bool = True
    # Leading axes that a graph does not know: batch and element axes, as in training and export.
    open_axes: int = 2
    # float32 sums in another order; relative to outputs of order 1
    tolerance: float = 1e-5


def flatten(outputs: Any) -> list[Any]:
    return list(outputs.values()) if isinstance(outputs, dict) else [outputs]


def set_values(layer: Any, *values: Any) -> None:
    """Set the weights of a layer from nested lists, in the order of ``layer.weights``."""
    layer.set_weights([np.array(value, dtype=np.float32) for value in values])


def num_weights(weights: list[Any]) -> int:
    return int(sum(np.prod(w.shape) for w in weights if "seed_generator" not in w.path))


def check_layer(case: LayerCase) -> None:
    """Run every check of the contract."""
    layer = case.make()
    outputs = layer(*case.inputs)
    _check_outputs(case, layer, outputs)
    _check_round_trip(case, layer, outputs)
    _check_graph(case, layer, outputs)
    if case.gradients:
        _check_train_step(case, layer)
    _check_mixed(case)


def _check_outputs(case: LayerCase, layer: Any, outputs: Any) -> None:
    shapes = {k: tuple(v.shape) for k, v in outputs.items()} if isinstance(outputs, dict) else outputs.shape
    assert shapes == case.output_shape
    assert all(keras.backend.standardize_dtype(v.dtype) == case.dtype for v in flatten(outputs))
    assert num_weights(layer.trainable_weights) == case.num_trainable
    assert num_weights(layer.non_trainable_weights) == case.num_frozen
    assert all(np.isfinite(np.asarray(v)).all() for v in flatten(outputs))


def _check_round_trip(case: LayerCase, layer: Any, outputs: Any) -> None:
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    copy(*case.inputs)
    assert [w.shape for w in copy.weights] == [w.shape for w in layer.weights]
    copy.set_weights(layer.get_weights())
    for a, b in zip(flatten(outputs), flatten(copy(*case.inputs)), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def _check_graph(case: LayerCase, layer: Any, outputs: Any) -> None:
    n = case.open_axes
    signature = [tf.TensorSpec((*(None,) * n, *x.shape[n:]), x.dtype) for x in case.inputs]
    traced = tf.function(lambda *inputs: layer(*inputs), input_signature=signature)
    for a, b in zip(flatten(outputs), flatten(traced(*case.inputs)), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=case.tolerance, atol=case.tolerance)


def _check_train_step(case: LayerCase, layer: Any) -> None:
    with tf.GradientTape() as tape:
        outputs = layer(*case.inputs, **_training(layer))
        loss = sum(tf.reduce_sum(tf.cast(v, tf.float32) ** 2) for v in flatten(outputs))
    gradients = tape.gradient(loss, [w.value for w in layer.trainable_weights])
    for weight, gradient in zip(layer.trainable_weights, gradients, strict=True):
        assert gradient is not None, weight.path
        dense = np.asarray(tf.convert_to_tensor(gradient))
        assert np.isfinite(dense).all(), weight.path
        assert np.abs(dense).max() > 0, weight.path
    if not layer.trainable_weights:
        return
    before = [np.array(w) for w in layer.trainable_weights]
    optimizer = keras.optimizers.SGD(1e-3)
    optimizer.apply_gradients(zip(gradients, layer.trainable_weights, strict=True))
    changed = [
        not np.array_equal(a, np.array(w)) for a, w in zip(before, layer.trainable_weights, strict=True)
    ]
    assert any(changed)


def _training(layer: Any) -> dict[str, bool]:
    return {"training": True} if layer._call_has_training_arg else {}


def _check_mixed(case: LayerCase) -> None:
    for policy, half in (("mixed_bfloat16", "bfloat16"), ("mixed_float16", "float16")):
        if devices.why_bfloat16_aborts(policy):
            continue
        outputs = flatten(under_policy(policy, case.make)(*case.inputs))
        expected = half if case.mixed_dtype == HALF else case.mixed_dtype
        assert {keras.backend.standardize_dtype(v.dtype) for v in outputs} == {expected}
        assert all(np.isfinite(np.asarray(v).astype(np.float32)).all() for v in outputs)


def under_policy(policy: str, make: Callable[[], Any]) -> Any:
    """Make a layer or model under a dtype policy; the policy of the process stays."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return make()
    finally:
        keras.config.set_dtype_policy(before)


def check_padding_invariance(
    layer: Any,
    inputs: tuple[np.ndarray, ...],
    padded: tuple[np.ndarray, ...],
    num_elements: int,
    tolerance: float,
) -> None:
    """Outputs of the first ``num_elements`` elements do not depend on padded elements after them."""
    for a, b in zip(flatten(layer(*inputs)), flatten(layer(*padded)), strict=True):
        a, b = np.asarray(a)[:, :num_elements], np.asarray(b)[:, :num_elements]
        np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance)
