"""Pair kernels: the weight of each pair of elements in a bin."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mlpf.layers.l1_distance import l1_distances

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
