import keras
import numpy as np
import pytest
import tensorflow as tf

from mlpf.layers.message_passing import GHConvDense, NodeMessageLearnable
from tests.support.layer_contract import LayerCase, check_layer, set_values
from tests.support.number_formats import skip_if_it_aborts


@pytest.mark.parametrize("normalize_degrees", [False, True])
def test_contract(rng, normalize_degrees):
    x = rng.normal(size=(6, 4, 5)).astype(np.float32)
    kernel = (rng.random((6, 4, 4)) * (rng.random((6, 1, 4)) < 0.7)).astype(np.float32)
    # three 5 x 6 matrices and a bias of 6
    check_layer(
        LayerCase(
            lambda: GHConvDense(6, normalize_degrees=normalize_degrees),
            (x, kernel),
            (6, 4, 6),
            num_trainable=96,
        )
    )


def _layer(**kwargs):
    layer = GHConvDense(1, activation="linear", **kwargs)
    layer.build((None, None, 1))
    # w_t = 0, b_t = 0: the gate is 1/2; W_h = 2; theta = 3
    set_values(layer, [[0.0]], [0.0], [[2.0]], [[3.0]])
    return layer


# The third element is seen by nobody.
X = np.array([[[1.0], [2.0], [9.0]]])
KERNEL = np.array([[[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.5, 0.5, 0.0]]])


def test_hand_worked():
    # hom = A (3 x) = [3 + 0.5*6, 0.5*3 + 6] = [6, 7.5]; het = [2, 4]; out = mean of both
    out = np.asarray(_layer()(X, KERNEL)).ravel()
    assert out[:2] == pytest.approx([4.0, 5.75], abs=1e-6)


def test_hand_worked_with_normalised_degrees():
    # degrees 1.5 each: s A s = A / 1.5, so hom = [4, 5]
    out = np.asarray(_layer(normalize_degrees=True)(X, KERNEL)).ravel()
    assert out[:2] == pytest.approx([3.0, 4.5], abs=1e-5)


def test_each_head_sums_its_own_slice_hand_worked():
    layer = GHConvDense(2, activation="linear")
    layer.build((None, None, 1))
    # the gate is 1/2, het = 0, theta maps x to the slices (x, 10 x)
    set_values(layer, [[0.0, 0.0]], [0.0, 0.0], [[0.0, 0.0]], [[1.0, 10.0]])
    near = [[1.0, 0.0], [0.0, 1.0]]
    far = [[1.0, 0.5], [0.5, 1.0]]
    x = np.array([[[1.0], [2.0]]])
    out = np.asarray(layer(x, np.array([[near, far]])))[0]
    # head 0: [1, 2] / 2; head 1: [10 + 10, 5 + 20] / 2
    assert out == pytest.approx(np.array([[0.5, 10.0], [1.0, 12.5]]), abs=1e-6)


def test_contract_with_heads(rng):
    x = rng.normal(size=(6, 4, 5)).astype(np.float32)
    kernel = (rng.random((6, 2, 4, 4)) * (rng.random((6, 1, 1, 4)) < 0.7)).astype(np.float32)
    case = LayerCase(
        lambda: GHConvDense(6, normalize_degrees=True),
        (x, kernel),
        (6, 4, 6),
        num_trainable=96,
        open_axes=1,
    )
    check_layer(case)


@pytest.mark.parametrize("value", [10.0, 60.0, 1000.0])
def test_sums_beyond_the_range_of_float16_are_right(value):
    """256 neighbours of this value sum to more than 65504; the gate 1 / (1 + e^2) = 0.119 brings it back."""
    layer = GHConvDense(1, dtype="mixed_float16", activation="linear")
    layer.build((1, 256, 1))
    set_values(layer, [[0.0]], [-2.0], [[0.0]], [[value]])
    ones = np.ones((1, 256, 1), np.float32)
    out = np.asarray(layer(ones, np.ones((1, 256, 256), np.float32)))
    expected = 256 * value / (1 + np.exp(2.0))
    np.testing.assert_allclose(out[..., 0], expected, rtol=2e-3)  # 11 bits


@pytest.mark.parametrize("normalize_degrees", [False, True])
def test_inputs_at_the_end_of_float16_give_finite_outputs(rng, normalize_degrees):
    layer = GHConvDense(64, dtype="mixed_float16", normalize_degrees=normalize_degrees)
    x = (65504.0 * rng.choice([-1.0, 1.0], (1, 256, 64))).astype(np.float32)
    kernel = rng.random((1, 256, 256)).astype(np.float32)
    assert np.isfinite(np.asarray(layer(x, kernel, np.ones((1, 256), bool)))).all()


def test_padding_with_large_features_does_not_spoil_degrees_in_float16():
    layer = GHConvDense(1, dtype="mixed_float16", normalize_degrees=True)
    layer.build((1, 3, 1))
    set_values(layer, [[0.0]], [0.0], [[2.0]], [[3.0]])
    kernel = np.array([[[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [1e-6, 1e-6, 0.0]]], np.float32)
    mask = np.array([[True, True, False]])
    found = [
        np.asarray(layer(np.array([[[1.0], [2.0], [far]]], np.float32), kernel, mask)) for far in (1.0, 6e4)
    ]
    np.testing.assert_array_equal(found[0][:, :2], found[1][:, :2])
    assert np.isfinite(found[1][:, :2]).all()


def inputs(rng):
    x = rng.normal(size=(6, 4, 5)).astype(np.float32)
    mask = rng.random((6, 4)) < 0.7
    return x, rng.normal(size=(6, 2, 4, 4)).astype(np.float32), mask


def test_contract_of_learned_messages(rng):
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


def test_learned_messages_by_hand():
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
