"""Pair kernels: the weight of each pair of elements in a bin."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mlpf.layers.l1_distance import l1_distances

# Distances below 1e-3 are set to it: the square root has no finite slope at zero.
MIN_SQUARED_DISTANCE = 1e-6
DIST_NORMS = ("l2", "l1")


@keras.saving.register_keras_serializable(package="mlpf")
class NodePairGaussianKernel(keras.layers.Layer):
    """A_ij = max(exp(-dist_mult |z_i - z_j|), clip_value_low), zero for padded elements.

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

    def build(self, z_shape, mask_shape=None):
        """Nothing to build: the kernel has no weights."""

    def call(self, z, mask):
        """Return the kernel.

        Args:
            z: [B, K, S, d] embedding.
            mask: [B, K, S] boolean, True = real element.

        Returns:
            [B, K, S, S] float32 in [0, 1].
        """
        real = ops.cast(ops.expand_dims(mask, axis=-1), z.dtype)
        z = z * real
        if self.dist_norm == "l1":
            distance = ops.maximum(l1_distances(z), math.sqrt(MIN_SQUARED_DISTANCE))
        else:
            distance = self._l2_distances(z)
        kernel = ops.maximum(ops.exp(-self.dist_mult * distance), self.clip_value_low)
        return kernel * real * ops.swapaxes(real, -1, -2)

    def _l2_distances(self, z):
        square = ops.sum(z * z, axis=-1, keepdims=True)
        cross = ops.matmul(z, ops.swapaxes(z, -1, -2))
        squared = square - 2.0 * cross + ops.swapaxes(square, -1, -2)
        if self.exact_diagonal:
            squared = squared * (1.0 - ops.eye(z.shape[-2], dtype=z.dtype))
        return ops.sqrt(ops.maximum(squared, MIN_SQUARED_DISTANCE))

    def compute_output_shape(self, z_shape, mask_shape=None):  # noqa: ARG002
        """Return [B, K, S, S]."""
        return (*tuple(z_shape)[:-1], tuple(z_shape)[-2])

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments."""
        return {
            **super().get_config(),
            "dist_mult": self.dist_mult,
            "clip_value_low": self.clip_value_low,
            "exact_diagonal": self.exact_diagonal,
            "dist_norm": self.dist_norm,
        }


@keras.saving.register_keras_serializable(package="mlpf")
class PositionKernel(keras.layers.Layer):
    """P_hij = exp(-|p_i - p_j| / scale_h): pairs by their distance in space, at several trained scales.

    Showers are tens of mm wide and leave satellites hundreds of mm away: one scale cannot serve both.

    Args:
        scales: lengths in mm at the start of training, one per head H.
        **kwargs: keyword arguments of ``keras.layers.Layer``.

    Raises:
        ValueError: no scale, or one that is not positive.
    """

    def __init__(self, scales: Sequence[float], **kwargs: Any):
        kwargs["dtype"] = "float32"  # differences of large squares
        super().__init__(**kwargs)
        if not scales or min(scales) <= 0:
            raise ValueError(f"scales={list(scales)}, expected positive lengths in mm")
        self.scales = tuple(float(scale) for scale in scales)

    def build(self, position_shape=None):  # noqa: ARG002
        """Create the logarithms of the scales, [H, 1, 1]."""
        self.log_scale = self.add_weight(
            shape=(len(self.scales), 1, 1),
            initializer=keras.initializers.Constant([[[math.log(scale)]] for scale in self.scales]),
            name="log_scale",
        )

    def call(self, position):
        """Return the kernel [B, K, H, S, S] in (0, 1] for positions [B, K, S, 3] in mm."""
        # By differences, not squares as for embeddings: those of 1500 mm leave only 1 mm in float32.
        difference = ops.expand_dims(position, axis=-2) - ops.expand_dims(position, axis=-3)
        squared = ops.sum(difference * difference, axis=-1)
        distance = ops.expand_dims(ops.sqrt(ops.maximum(squared, MIN_SQUARED_DISTANCE)), axis=2)
        return ops.exp(-distance * ops.exp(-self.log_scale))

    def compute_output_shape(self, position_shape):
        """Return [B, K, H, S, S]."""
        b, k, s, _ = tuple(position_shape)
        return (b, k, len(self.scales), s, s)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments."""
        return {**super().get_config(), "scales": self.scales}
