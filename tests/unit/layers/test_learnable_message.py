import keras
import numpy as np
import pytest
import tensorflow as tf

from mlpf.layers.learnable_message import NodeMessageLearnable
from tests.support.layer_contract import LayerCase, check_layer, set_values
from tests.support.number_formats import skip_if_it_aborts


def inputs(rng):
    x = rng.normal(size=(6, 4, 5)).astype(np.float32)
    mask = rng.random((6, 4)) < 0.7
    return x, rng.normal(size=(6, 2, 4, 4)).astype(np.float32), mask


def test_contract(rng):
    # 5 of the node and 2 x 2 of messages: 9*7+7 + 7*6+6
    check_layer(
        LayerCase(
            lambda: NodeMessageLearnable(6, hidden_dim=7),
            inputs(rng),
            (6, 4, 6),
            num_trainable=70 + 48,
            open_axes=1,
        )
    )


def test_hand_worked():
    layer = NodeMessageLearnable(1, hidden_dim=1, activation="linear")
    layer.build((None, None, 1), (None, 1, None, None))
    # out = -(x + 10 incoming + 100 outgoing)
    set_values(layer.ffn, [[1.0], [10.0], [100.0]], [0.0], [[-1.0]], [0.0])
    kernel = [[-1.0, -3.0, 7.0], [-2.0, -4.0, 7.0], [7.0, 7.0, 7.0]]
    x, mask = np.array([[[1.0], [2.0], [9.0]]]), np.array([[True, True, False]])
    out = np.asarray(layer(x, np.array([[kernel]]), mask)).ravel()
    # 0: incoming max(-1, -2), outgoing max(-1, -3): -(1 - 10 - 100)
    # 1: incoming max(-3, -4), outgoing max(-2, -4): -(2 - 30 - 200)
    assert out == pytest.approx([109.0, 228.0, 0.0], abs=1e-4)


def test_the_two_directions_and_the_channels_are_told_apart(rng):
    x, kernel, mask = inputs(rng)
    layer = NodeMessageLearnable(6, hidden_dim=7)
    out = np.asarray(layer(x, kernel, mask))
    assert np.abs(out - layer(x, kernel.swapaxes(-1, -2), mask)).max() > 1e-3
    assert np.abs(out - layer(x, kernel[:, ::-1], mask)).max() > 1e-3


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_padded_neighbours_never_win(rng, policy):
    """All real messages are negative; those of padding are 0 as a kernel gives them, huge, or NaN."""
    skip_if_it_aborts(policy)
    x, kernel, mask = inputs(rng)
    kernel = -1.0 - np.abs(kernel)
    pairs = (mask[..., None] & mask[..., None, :])[:, None]
    layer = NodeMessageLearnable(6, hidden_dim=7, dtype=policy)
    found = []
    for padding in (0.0, 3e4, np.nan):
        filled = np.where(mask[..., None], x, padding).astype(np.float32)
        found.append(np.asarray(layer(filled, np.where(pairs, kernel, padding).astype(np.float32), mask)))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    assert np.isfinite(found[0].astype(np.float32)).all()


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_a_bin_without_elements_gives_zeros_and_finite_gradients(rng, policy):
    skip_if_it_aborts(policy)
    x, kernel, mask = inputs(rng)
    mask[0] = False
    x, kernel = tf.constant(x), tf.constant(kernel)
    layer = NodeMessageLearnable(6, hidden_dim=7, dtype=policy)
    with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        out = layer(x, kernel, mask)
        loss = tf.reduce_sum(tf.cast(out, tf.float32) ** 2)
    assert (np.asarray(out)[0] == 0).all()
    wanted = [x, kernel, *(w.value for w in layer.trainable_weights)]
    for gradient in tape.gradient(loss, wanted):
        assert np.isfinite(np.asarray(gradient).astype(np.float32)).all()


def test_a_kernel_without_channels_is_refused():
    with pytest.raises(ValueError, match=r"expected \[G, C, S, S\] with channels C"):
        NodeMessageLearnable(6).build((None, None, 5), (None, None, None))


def test_more_layers_add_weights():
    layer = NodeMessageLearnable(6, hidden_dim=7, num_layers=3)
    layer.build((None, None, 5), (None, 2, None, None))
    assert len(layer.weights) == 8
    assert isinstance(layer.ffn.hidden[2], keras.layers.Dense)


@pytest.mark.parametrize("shape", [(0, 4), (2, 0)])
def test_no_bin_and_no_element_give_nothing(shape):
    g, n = shape
    layer = NodeMessageLearnable(6)
    layer.build((None, None, 5), (None, 2, None, None))
    out = layer(np.zeros((g, n, 5), np.float32), np.zeros((g, 2, n, n), np.float32), np.zeros((g, n), bool))
    assert out.shape == (g, n, 6)
