import numpy as np
import pytest
import tensorflow as tf

from mlpf.layers.l1_distance import CHUNK, l1_distances


def test_hand_worked():
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
