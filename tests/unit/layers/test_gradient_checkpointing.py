import keras
import numpy as np
import pytest
import tensorflow as tf

from mlpf.layers.gradient_checkpointing import recompute
from mlpf.layers.performer_block import PerformerBlock

OPTIONS = {"plain": {}, "dropout": {"dropout": 0.3}, "redraw": {"redraw_interval": 2}}
B, N, D = 2, 10, 8


def block(options):
    keras.utils.set_random_seed(1)
    built = PerformerBlock(2, 8, 12, **options)
    built.build((None, None, D))
    return built


def steps(built, call, h, keys, mask, compiled):
    """Outputs and gradients of three training steps, which advance the random states."""

    def step(h, keys):
        with tf.GradientTape() as tape:
            tape.watch([h, keys])
            out = call(built, h, keys, mask)
            loss = tf.reduce_sum(out**2)
        return [out, *tape.gradient(loss, [h, keys, *(w.value for w in built.trainable_weights)])]

    step = tf.function(step, autograph=False) if compiled else step
    return [[np.array(t) for t in step(tf.constant(h), tf.constant(keys))] for _ in range(3)]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_outputs_gradients_and_states_are_those_of_the_layer(rng, name, compiled):
    h, keys = rng.normal(size=(2, B, N, D)).astype(np.float32)
    mask = tf.constant(np.arange(N) < np.array([[N], [N - 3]]))
    plain, again = block(OPTIONS[name]), block(OPTIONS[name])
    expected = steps(plain, lambda b, h, k, m: b(h, k, m, training=True), h, keys, mask, compiled)
    found = steps(again, lambda b, h, k, m: recompute(b, h, k, m, training=True), h, keys, mask, compiled)
    for one, other in zip(expected, found, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6 * max(1.0, np.abs(a).max()))
    for a, b in zip(plain.variables, again.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    if name != "plain":  # something random happened: the steps differ
        assert np.abs(expected[0][0] - expected[1][0]).max() > 1e-3


def test_none_stays_none_and_without_training_the_layer_is_called(rng):
    h = rng.normal(size=(B, N, D)).astype(np.float32)
    mask = np.ones((B, N), bool)
    built = block({"dropout": 0.5})
    expected = built(h, None, mask)
    np.testing.assert_array_equal(recompute(built, h, None, mask, training=False), expected)
    assert not np.allclose(recompute(built, h, None, mask, training=True), expected)
