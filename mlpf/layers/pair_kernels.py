"""Pair kernels: the weight of each pair of elements in a bin, from a distance or learned."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mlpf.layers.feedforward import FFN

# Coordinates at a time: the largest tensor is this many times the result, forward and backward.
CHUNK = 8


@ops.custom_gradient
def l1_distances(z):
    """Return D_ij = sum_c |z_ic - z_jc|, [G, S, S], for z [G, S, d] with d known.

    The gradient is written out, dL/dz_ic = sum_j (G_ij + G_ji) sign(z_ic - z_jc), so that training computes
    the signs again, a few coordinates at a time, and does not keep them. It is 0 where coordinates are equal.
    """
    distance = sum(ops.sum(ops.abs(difference), axis=1) for difference in _differences(z))

    def gradient(*args, upstream=None):
        """Return dL/dz [G, S, d] for dL/dD [G, S, S]; backends pass it by place or by name."""
        upstream = args[0] if upstream is None else upstream
        both = ops.expand_dims(upstream + ops.swapaxes(upstream, -1, -2), axis=1)
        parts = [ops.sum(ops.sign(difference) * both, axis=-1) for difference in _differences(z)]
        return ops.swapaxes(ops.concatenate(parts, axis=1), -1, -2)

    return distance, gradient


def _differences(z):
    """Yield z_ic - z_jc, [G, c, S, S], for a few coordinates c at a time."""
    z = ops.swapaxes(z, -1, -2)
    for start in range(0, z.shape[1], CHUNK):
        some = z[:, start : start + CHUNK]
        yield ops.expand_dims(some, -1) - ops.expand_dims(some, -2)


# Distances below 1e-3 are set to it: the square root has no finite slope at zero.
MIN_SQUARED_DISTANCE = 1e-6
# Exponent of padding; exp of minus it is zero.
FAR = 1e30
DIST_NORMS = ("l2", "l1")


@keras.saving.register_keras_serializable(package="mlpf")
class NodePairGaussianKernel(keras.layers.Layer):
    """A_ij = max(exp(-dist_mult |z_i - z_j|), clip_value_low), zero where j is padding.

    The distance is not squared in spite of the name, which is that of the published model.

    Args:
        dist_mult: multiplies the distance in the exponent.
        clip_value_low: smallest value of the kernel for a pair of real elements.
        exact_diagonal: take the distance of an element to itself as zero. Computed from squares it is
            rounding noise, which the square root makes large: 1e-3 in the outputs of a trained network,
            different on every machine. False = as published. The l1 distance is exact there anyway.
        dist_norm: ``l2``, or ``l1`` = sum_c |z_ic - z_jc|; the published l1 is the absolute value of the
            sum of the differences, blind to most of them, and not offered.
        **kwargs: keyword arguments of ``keras.layers.Layer``.

    Raises:
        ValueError: unknown ``dist_norm``.

    Example:
        >>> import numpy as np
        >>> z, mask = np.array([[[0.0], [10.0], [0.0]]], "float32"), np.array([[True, True, False]])
        >>> kernel = NodePairGaussianKernel(exact_diagonal=True)(z, mask)
        >>> [round(float(value), 2) for value in kernel[0, 0]]
        [1.0, 0.37, 0.0]
    """

    def __init__(
        self,
        dist_mult: float = 0.1,
        clip_value_low: float = 0.0,
        exact_diagonal: bool = False,
        dist_norm: str = "l2",
        **kwargs: Any,
    ):
        kwargs["dtype"] = "float32"  # differences of large squares
        super().__init__(**kwargs)
        if dist_norm not in DIST_NORMS:
            raise ValueError(f"dist_norm={dist_norm!r}, expected one of {', '.join(DIST_NORMS)}")
        self.dist_norm = dist_norm
        self.dist_mult = dist_mult
        self.clip_value_low = clip_value_low
        self.exact_diagonal = exact_diagonal

    def build(self, z_shape, mask_shape=None, exponent_shape=None):
        """Nothing to build: the kernel has no weights."""

    def call(self, z, mask, exponent=None):
        """Return the kernel.

        Args:
            z: [G, S, d] embedding of the elements of G bins.
            mask: [G, S] boolean, True = real element.
            exponent: [G, H, S, S], >= 0: H kernels A_ij exp(-exponent_hij) instead of one, for the price of
                one exponential each; see ``PositionKernel``.

        Returns:
            [G, S, S] or [G, H, S, S] float32 in [0, 1]; rows of padding are those of any element.
        """
        away = ops.where(mask, 0.0, FAR)
        if self.dist_norm == "l1":
            distance = ops.maximum(l1_distances(z), math.sqrt(MIN_SQUARED_DISTANCE))
        else:
            # Without a lower clip, FAR is added to the squared distance: no operation on [G, S, S] is needed.
            early, away = (0.0, away) if self.clip_value_low > 0.0 else (away, None)
            distance = ops.sqrt(ops.maximum(self._squared_distances(z, early), MIN_SQUARED_DISTANCE))
        power = -self.dist_mult * distance
        if self.clip_value_low > 0.0:
            power = ops.maximum(power, math.log(self.clip_value_low))
        if away is not None:
            power = power - ops.expand_dims(away, axis=-2)
        if exponent is not None:
            power = ops.expand_dims(power, axis=-3) - exponent
        return ops.exp(power)

    def _squared_distances(self, z, away):
        cross = ops.matmul(-2.0 * z, ops.swapaxes(z, -1, -2))
        # The diagonal of the product itself: only these squares give a distance of exactly 0 on the diagonal.
        square = -0.5 * _diagonal(cross) if self.exact_diagonal else ops.sum(z * z, axis=-1)
        return cross + ops.expand_dims(square, axis=-1) + ops.expand_dims(square + away, axis=-2)

    def compute_output_shape(self, z_shape, mask_shape=None, exponent_shape=None):  # noqa: ARG002 - Keras passes all arguments or their shapes
        """Return [G, S, S] or [G, H, S, S]."""
        one = (*tuple(z_shape)[:-1], tuple(z_shape)[-2])
        return one if exponent_shape is None else tuple(exponent_shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "dist_mult": self.dist_mult,
            "clip_value_low": self.clip_value_low,
            "exact_diagonal": self.exact_diagonal,
            "dist_norm": self.dist_norm,
        }


def _diagonal(x):
    """Return the diagonals [G, S] of matrices [G, S, S]; exports to ONNX as a slice."""
    size = ops.shape(x)[-1]
    return ops.reshape(ops.reshape(x, (-1, size * size))[:, :: size + 1], (-1, size))


@keras.saving.register_keras_serializable(package="mlpf")
class PositionKernel(keras.layers.Layer):
    """|p_i - p_j| / scale_h: the exponents of H kernels by the distance in space, at trained scales.

    exp of minus it weighs pairs. Showers are tens of mm wide and leave satellites hundreds of mm away: one
    scale cannot serve both.

    Args:
        scales: lengths in mm at the start of training, one per head H.
        **kwargs: keyword arguments of ``keras.layers.Layer``.

    Raises:
        ValueError: no scale, or one that is not positive.

    Example:
        >>> import numpy as np
        >>> position = np.array([[[0.0, 0.0, 0.0], [30.0, 40.0, 0.0]]], "float32")
        >>> np.asarray(PositionKernel([10.0, 100.0])(position))[0, :, 0, 1].round(3).tolist()
        [5.0, 0.5]
    """

    def __init__(self, scales: Sequence[float], **kwargs: Any):
        kwargs["dtype"] = "float32"  # differences of large squares
        super().__init__(**kwargs)
        if not scales or min(scales) <= 0:
            raise ValueError(f"scales={list(scales)}, expected positive lengths in mm")
        self.scales = tuple(float(scale) for scale in scales)

    def build(self, position_shape=None):  # noqa: ARG002 - Keras passes all arguments or their shapes
        """Create the logarithms of the scales, [H, 1, 1]."""
        self.log_scale = self.add_weight(
            shape=(len(self.scales), 1, 1),
            initializer=keras.initializers.Constant([[[math.log(scale)]] for scale in self.scales]),
            name="log_scale",
        )

    def call(self, position):
        """Return the exponents [G, H, S, S], >= 0, for positions [G, S, 3] in mm."""
        # Differences, not squares as for embeddings: squares of 1500 mm resolve only 1 mm in float32. A loop
        # over the coordinates, because a last axis of length three is slow on every device.
        squared = 0.0
        for coordinate in ops.unstack(position, axis=-1):
            difference = ops.expand_dims(coordinate, axis=-1) - ops.expand_dims(coordinate, axis=-2)
            squared = squared + difference * difference
        distance = ops.expand_dims(ops.sqrt(ops.maximum(squared, MIN_SQUARED_DISTANCE)), axis=-3)
        return distance * ops.exp(-self.log_scale)

    def compute_output_shape(self, position_shape):
        """Return [G, H, S, S]."""
        *bins, s, _ = tuple(position_shape)
        return (*bins, len(self.scales), s, s)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scales": self.scales}


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
