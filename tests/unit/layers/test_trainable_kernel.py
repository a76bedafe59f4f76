import numpy as np
import pytest
import tensorflow as tf

from mlpf.layers.trainable_kernel import NodePairTrainableKernel
from tests.support.layer_contract import HALF, LayerCase, check_layer, set_values
from tests.support.numpy_gnn import elu

WIDTHS = {"node_dim": 3, "node_hidden_dim": 7, "pair_hidden_dim": 6, "num_channels": 2}


def inputs(rng):
    z = rng.normal(size=(6, 4, 5)).astype(np.float32)
    return z, rng.random((6, 4)) < 0.7


def test_contract(rng):
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


def test_hand_worked():
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
