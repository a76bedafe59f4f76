import numpy as np
import pytest
import tensorflow as tf

from mlpf.layers.pair_kernels import (
    CHUNK,
    NodePairGaussianKernel,
    NodePairTrainableKernel,
    PositionKernel,
    l1_distances,
)
from tests.support.layer_contract import HALF, LayerCase, check_layer, set_values
from tests.support.numpy_gnn import elu


def test_distances_by_hand():
    # |1 - 4| + |5 - 3| = 5, where the sum of the differences, -3 + 2, is -1
    z = np.array([[[1.0, 5.0], [4.0, 3.0]]], np.float32)
    np.testing.assert_array_equal(np.asarray(l1_distances(z))[0], [[0.0, 5.0], [5.0, 0.0]])


@pytest.mark.parametrize("dim", [1, CHUNK, 2 * CHUNK + 3])
def test_values_and_gradients_agree_with_all_differences_at_once(rng, dim):
    z = tf.constant(rng.normal(size=(6, 5, dim)))
    weight = tf.constant(rng.normal(size=(6, 5, 5)))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(z)
        found = l1_distances(z)
        expected = tf.reduce_sum(tf.abs(z[:, :, None] - z[:, None]), axis=-1)
        losses = [tf.reduce_sum(weight * distance) for distance in (found, expected)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(*(tape.gradient(loss, z) for loss in losses), atol=1e-12)


def test_memory_no_tensor_of_all_pairs_and_coordinates():
    """Forward and backward, the largest tensor holds a few coordinates of all pairs."""
    size, dim = 23, 5 * CHUNK

    @tf.function
    def gradient(z):
        with tf.GradientTape() as tape:
            tape.watch(z)
            loss = tf.reduce_sum(l1_distances(z) ** 2)
        return tape.gradient(loss, z)

    graph = gradient.get_concrete_function(tf.TensorSpec((1, size, dim))).graph
    numbers = [int(np.prod(t.shape)) for op in graph.get_operations() for t in op.outputs if t.shape.rank]
    assert max(numbers) == CHUNK * size**2


@pytest.mark.parametrize("dist_norm", ["l2", "l1"])
def test_contract(rng, dist_norm):
    z = rng.normal(size=(6, 4, 5)).astype(np.float32)
    mask = rng.random((6, 4)) < 0.7
    check_layer(
        LayerCase(lambda: NodePairGaussianKernel(dist_norm=dist_norm), (z, mask), (6, 4, 4), num_trainable=0)
    )


def test_contract_with_exponents(rng):
    z = rng.normal(size=(6, 4, 5)).astype(np.float32)
    mask = rng.random((6, 4)) < 0.7
    exponent = rng.random((6, 2, 4, 4)).astype(np.float32)
    check_layer(LayerCase(NodePairGaussianKernel, (z, mask, exponent), (6, 2, 4, 4), num_trainable=0))


def test_hand_worked():
    # distances: 0-1 is 5 (3, 4); element 2 is padding
    z = np.array([[[0.0, 0.0], [3.0, 4.0], [1.0, 1.0]]])
    kernel = np.asarray(NodePairGaussianKernel(0.1, 0.0)(z, np.array([[True, True, False]])))[0]
    # exp(-0.1 * 5) = 0.606531; on the diagonal the distance is 1e-3: exp(-1e-4) = 0.9999
    assert kernel[:2] == pytest.approx(np.array([[0.9999, 0.606531, 0], [0.606531, 0.9999, 0]]), abs=1e-6)


def test_exponents_multiply_the_kernel_hand_worked():
    z, mask = np.array([[[0.0], [5.0], [1.0]]]), np.array([[True, True, False]])
    exponent = np.array([[np.full((3, 3), 0.5), np.full((3, 3), 2.0)]])
    for low in (0.0, 0.7):
        kernel = np.asarray(NodePairGaussianKernel(0.1, low)(z, mask, exponent))[0]
        # max(exp(-0.5), low) exp(-0.5) and exp(-2)
        expected = max(0.606531, low) * np.array([0.606531, 0.135335])
        assert kernel[:, 0, 1] == pytest.approx(expected, abs=1e-6)
        assert (kernel[..., 2] == 0).all()


def test_l1_hand_worked():
    # |0 - 3| + |0 + 4| = 7, exp(-0.7) = 0.496585; the sum of the differences, as published, would be 1
    z = np.array([[[0.0, 0.0], [3.0, -4.0], [1.0, 1.0]]])
    kernel = NodePairGaussianKernel(0.1, 0.0, dist_norm="l1")
    found = np.asarray(kernel(z, np.array([[True, True, False]])))[0]
    expected = [[0.9999, 0.496585, 0], [0.496585, 0.9999, 0]]
    assert found[:2] == pytest.approx(np.array(expected), abs=1e-6)


def test_an_unknown_norm_is_named():
    with pytest.raises(ValueError, match="dist_norm='l3', expected one of l2, l1"):
        NodePairGaussianKernel(dist_norm="l3")


@pytest.mark.parametrize("dist_norm", ["l2", "l1"])
def test_lower_bound_holds_for_real_pairs_only(dist_norm):
    z = np.array([[[0.0], [1000.0], [0.0]]])
    layer = NodePairGaussianKernel(0.1, 0.2, dist_norm=dist_norm)
    kernel = np.asarray(layer(z, np.array([[True, True, False]])))[0]
    assert kernel[0, 1] == pytest.approx(0.2)
    assert kernel[0, 2] == 0


def test_position_kernel_contract(rng):
    position = rng.normal(size=(6, 4, 3)).astype(np.float32)
    check_layer(LayerCase(lambda: PositionKernel([1.0, 2.0]), (position,), (6, 2, 4, 4), num_trainable=2))


def test_position_kernel_hand_worked():
    # two elements 50 mm apart (30, 40, 0): 50/25 and 50/100
    position = np.array([[[1500.0, 0.0, 0.0], [1530.0, 40.0, 0.0]]])
    exponent = np.asarray(PositionKernel([25.0, 100.0])(position))[0]
    # float32 knows 1500 mm to 1e-4 mm, 4e-6 of the exponent; distances start at 1e-3 mm
    assert exponent[:, 0, 1] == pytest.approx([2.0, 0.5], abs=1e-5)
    assert exponent[:, 0, 0] == pytest.approx([0.0, 0.0], abs=1e-4)


@pytest.mark.parametrize("scales", [[], [10.0, 0.0]])
def test_position_kernel_refuses_lengths_that_are_not_positive(scales):
    with pytest.raises(ValueError, match="expected positive lengths in mm"):
        PositionKernel(scales)


def test_exact_diagonal_is_free_of_rounding(rng):
    # float32 squares of 1000 keep 0.1: distances of an element to itself come out up to 0.3, not 0.001
    z = (1000 + rng.normal(size=(1, 64, 16))).astype(np.float32)
    mask = np.ones((1, 64), bool)
    diagonals = {
        exact: np.diagonal(np.asarray(NodePairGaussianKernel(0.1, exact_diagonal=exact)(z, mask))[0])
        for exact in (True, False)
    }
    assert diagonals[True] == pytest.approx(0.9999, abs=1e-6)
    assert diagonals[False].min() < 0.99
    # Differences of equal numbers are exact: the l1 distance needs no such care.
    for exact in (True, False):
        l1 = NodePairGaussianKernel(0.1, exact_diagonal=exact, dist_norm="l1")
        assert np.diagonal(np.asarray(l1(z, mask))[0]) == pytest.approx(0.9999, abs=1e-6)


WIDTHS = {"node_dim": 3, "node_hidden_dim": 7, "pair_hidden_dim": 6, "num_channels": 2}


def inputs(rng):
    z = rng.normal(size=(6, 4, 5)).astype(np.float32)
    return z, rng.random((6, 4)) < 0.7


def test_contract_of_trainable_kernel(rng):
    # elements 5*7+7 + 7*3+3; pairs 6*6+6 + 6*2+2
    check_layer(
        LayerCase(
            lambda: NodePairTrainableKernel(**WIDTHS),
            inputs(rng),
            (6, 2, 4, 4),
            num_trainable=66 + 56,
            mixed_dtype=HALF,
        )
    )


def test_widths_are_the_published_ones_by_default():
    layer = NodePairTrainableKernel()
    layer.build((None, None, 10))
    shapes = [tuple(w.shape) for w in layer.weights]
    assert shapes == [(8, 32), (32,), (32, 4), (4,), (10, 128), (128,), (128, 4), (4,)]


def test_trainable_kernel_by_hand():
    layer = NodePairTrainableKernel(1, 1, 2, 1, activation="relu")
    layer.build((None, None, 1))
    set_values(layer.ffn_node, [[1.0]], [0.0], [[1.0]], [0.0])
    layer.pair_in.assign([[1.0, 0.0], [-1.0, 1.0]])
    layer.pair_in_bias.assign([0.5, 0.0])
    layer.pair_out.assign([[2.0], [2.0]])
    layer.pair_out_bias.assign([-10.0])
    # n = relu(z) = 1, 2; A_ij = 2 relu(n_i - n_j + 1/2) + 2 n_j - 10: 1+2-10, 0+4-10; 3+2-10, 1+4-10
    out = np.asarray(layer(np.array([[[1.0], [2.0], [3.0]]]), np.array([[True, True, False]])))
    expected = [[-7.0, -6.0, 0.0], [-5.0, -5.0, 0.0], [0.0, 0.0, 0.0]]
    np.testing.assert_allclose(out[0, 0], expected, atol=1e-6)


def test_the_sum_of_two_products_is_the_dense_layer_of_the_pair(rng):
    """The same in float64 with the pairs written out."""
    z, mask = inputs(rng)
    layer = NodePairTrainableKernel(**WIDTHS)
    found = np.asarray(layer(z, mask))
    node = [np.asarray(w, np.float64) for w in layer.ffn_node.get_weights()]
    n = elu(elu(z @ node[0] + node[1]) @ node[2] + node[3])
    for g, i, j in np.ndindex(6, 4, 4):
        hidden = elu(np.concatenate([n[g, i], n[g, j]]) @ np.asarray(layer.pair_in, np.float64))
        expected = hidden @ np.asarray(layer.pair_out) * mask[g, i] * mask[g, j]
        np.testing.assert_allclose(found[g, :, i, j], expected, atol=1e-6)


def test_no_tensor_of_concatenated_pairs(rng):
    """Nothing but the hidden layer and the kernel has two axes of S elements."""
    size = 37
    z, mask = rng.normal(size=(2, size, 5)).astype(np.float32), np.ones((2, size), bool)
    layer = NodePairTrainableKernel(**WIDTHS)
    layer(z, mask)
    graph = tf.function(layer).get_concrete_function(z, mask).graph
    numbers = [int(np.prod(t.shape)) for op in graph.get_operations() for t in op.outputs if t.shape.rank]
    assert max(numbers) == 2 * WIDTHS["pair_hidden_dim"] * size**2


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_what_padded_elements_hold_does_not_matter(rng, policy):
    z, mask = inputs(rng)
    layer = NodePairTrainableKernel(**WIDTHS, dtype=policy)
    before = np.asarray(layer(z, mask))
    other = np.where(mask[..., None], z, 50.0).astype(np.float32)
    np.testing.assert_array_equal(before, np.asarray(layer(other, mask)))
