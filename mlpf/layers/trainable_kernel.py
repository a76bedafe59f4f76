"""Pair kernel learned by a small network of both elements of a pair."""

from typing import Any

import keras
from keras import ops

from mlpf.layers.feedforward import FFN


@keras.saving.register_keras_serializable(package="mlpf")
class NodePairTrainableKernel(keras.layers.Layer):
    """A_ij = FFN(num_channels)([n_i, n_j]) with n = act(FFN(node_dim)(z)), zero for padded elements.

    The option of that name of the published code (v1.6). The pairs [n_i, n_j] are never built: the first
    dense layer is linear in them, W [n_i ; n_j] + b = (W_a n_i + b) + W_b n_j, a sum of two products per
    element. Channels come before elements, so that sums, products and maxima run along contiguous rows.
    The largest tensor is that of the hidden layer, pair_hidden_dim S^2 numbers per bin.

    Args:
        node_dim: width of n.
        node_hidden_dim: hidden width of the network of an element.
        pair_hidden_dim: hidden width P of the network of a pair.
        num_channels: channels C of the kernel.
        activation: activation of n and of both hidden layers.
        **kwargs: keyword arguments of ``keras.layers.Layer``.

    Example:
        >>> import numpy as np
        >>> z, mask = np.ones((3, 4, 8), "float32"), np.ones((3, 4), bool)
        >>> NodePairTrainableKernel(num_channels=2)(z, mask).shape
        TensorShape([3, 2, 4, 4])
    """

    def __init__(
        self,
        node_dim: int = 4,
        node_hidden_dim: int = 128,
        pair_hidden_dim: int = 32,
        num_channels: int = 4,
        activation: str = "elu",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.node_dim = node_dim
        self.node_hidden_dim = node_hidden_dim
        self.pair_hidden_dim = pair_hidden_dim
        self.num_channels = num_channels
        self.activation = activation
        self._activate = keras.activations.get(activation)
        self.ffn_node = FFN(
            node_dim,
            node_hidden_dim,
            num_layers=1,
            activation=activation,
            dtype=self.dtype_policy,
            name="ffn_node",
        )

    def build(self, z_shape, mask_shape=None):  # noqa: ARG002 - Keras passes all arguments or their shapes
        """Create the weights; the first of a pair has the upper half of ``pair_in``, the second the lower."""
        self.ffn_node.build(tuple(z_shape))
        p, c = self.pair_hidden_dim, self.num_channels
        self.pair_in = self.add_weight(
            shape=(2 * self.node_dim, p), initializer="glorot_uniform", name="pair_in"
        )
        self.pair_in_bias = self.add_weight(shape=(p,), initializer="zeros", name="pair_in_bias")
        self.pair_out = self.add_weight(shape=(p, c), initializer="glorot_uniform", name="pair_out")
        self.pair_out_bias = self.add_weight(shape=(c,), initializer="zeros", name="pair_out_bias")

    def call(self, z, mask):
        """Return the kernel.

        Args:
            z: [G, S, d] embedding of the elements of G bins.
            mask: [G, S] boolean, True = real element.

        Returns:
            [G, C, S, S] in the compute dtype, of either sign; i before j.
        """
        n = ops.cast(self._activate(self.ffn_node(z)), self.compute_dtype)
        first = ops.matmul(n, self.pair_in[: self.node_dim]) + self.pair_in_bias
        second = ops.matmul(n, self.pair_in[self.node_dim :])
        first, second = (ops.swapaxes(x, -1, -2) for x in (first, second))  # [G, P, S]
        hidden = self._activate(ops.expand_dims(first, -1) + ops.expand_dims(second, -2))
        size = ops.shape(z)[1]
        hidden = ops.reshape(hidden, (-1, self.pair_hidden_dim, size * size))
        pair = ops.matmul(ops.transpose(self.pair_out), hidden) + ops.expand_dims(self.pair_out_bias, -1)
        pair = ops.reshape(pair, (-1, self.num_channels, size, size))
        real = ops.cast(ops.expand_dims(mask, 1), pair.dtype)  # [G, 1, S]
        return pair * ops.expand_dims(real, -1) * ops.expand_dims(real, -2)

    def compute_output_shape(self, z_shape, mask_shape=None):  # noqa: ARG002 - Keras passes all arguments or their shapes
        """Return [G, C, S, S]."""
        g, s, _ = tuple(z_shape)
        return (g, self.num_channels, s, s)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "node_dim": self.node_dim,
            "node_hidden_dim": self.node_hidden_dim,
            "pair_hidden_dim": self.pair_hidden_dim,
            "num_channels": self.num_channels,
            "activation": self.activation,
        }
