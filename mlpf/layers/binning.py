"""Learnable binning: split the elements of an event into bins of equal size that hold similar elements.

Locality-sensitive hashing as in Reformer (Kitaev et al., 2020), used for MLPF by Pata et al.
(Commun. Phys. 7, 124, 2024). Bins are learnable because the embedding that is hashed is.
"""

from typing import Any

import keras
from keras import ops

BIN_ORDERS = ("event", "projection")


@keras.saving.register_keras_serializable(package="mlpf")
class LearnableBinning(keras.layers.Layer):
    """Order the elements of each event so that contiguous slices of S elements are the bins.

    The bucket of an element is argmax([z R ; -z R]) with a frozen random codebook R; elements are sorted
    by bucket, padded elements last. Nothing here carries a gradient. Elements of one bucket keep the order
    of the event, as published. A slice then cuts a bucket by element type, since tracks come first: with
    ``bin_order="projection"`` they are sorted by their signed projection instead, so that a cut separates
    what is far apart; with one direction (K < 4) the whole event is cut into slabs along it. K is then the
    number of bins that the real elements fill, so that padding never changes the bins.

    Args:
        bin_size: elements per bin S.
        max_num_bins: most bins per event; the codebook has half as many columns.
        distance_dim: width d of the embedding.
        bin_order: order inside a bucket, one of ``BIN_ORDERS``.
        **kwargs: keyword arguments of ``keras.layers.Layer``.

    Raises:
        ValueError: unknown order.
    """

    def __init__(
        self, bin_size: int, max_num_bins: int, distance_dim: int, bin_order: str = "event", **kwargs: Any
    ):
        kwargs["dtype"] = "float32"  # a rounded projection would reorder the elements
        super().__init__(**kwargs)
        self.bin_size = bin_size
        self.max_num_bins = max_num_bins
        self.distance_dim = distance_dim
        if bin_order not in BIN_ORDERS:
            raise ValueError(f"bin_order={bin_order!r}, expected one of {', '.join(BIN_ORDERS)}")
        self.bin_order = bin_order

    def build(self, z_shape, mask_shape=None):  # noqa: ARG002 (Keras passes the shape of each argument)
        """Create the codebook [d, max_num_bins / 2]."""
        self.codebook = self.add_weight(
            shape=(self.distance_dim, self.max_num_bins // 2),
            initializer=keras.initializers.RandomNormal(stddev=0.05),
            trainable=False,
            name="codebook",
        )

    def call(self, z, mask):
        """Return the order of the elements.

        Args:
            z: [B, N, d] embedding; N is at most S (one bin of N) or a multiple of S.
            mask: [B, N] boolean, True = real element.

        Returns:
            order: [B, N] int32, positions in the event in the order of the bins.

        Raises:
            ValueError: N is known and does not fill bins, or makes more than ``max_num_bins`` of them.
                Where N is not known before the graph runs, too many bins fail there (on a CPU) as an
                index out of range.
        """
        num_elements = ops.shape(z)[1]
        self._check_size(num_elements)
        num_bins = num_elements // bin_length(num_elements, self.bin_size)
        half = max(1, num_bins // 2) if isinstance(num_bins, int) else ops.maximum(1, num_bins // 2)
        # Taken by number: a slice would stop at the last column without a word.
        directions = ops.take(self.codebook, ops.arange(half, dtype="int32"), axis=1)
        projected = ops.matmul(ops.stop_gradient(z), directions)
        both = ops.concatenate([projected, -projected], axis=-1)
        if self.bin_order == "projection":
            both = ops.where(self._directions_in_use(mask, half), both, -1e30)
        # top_k and not argmax: the latter exports to ONNX with an operator that onnxruntime lacks.
        strength, bucket = ops.top_k(both, 1)
        bucket = ops.where(mask, ops.cast(bucket[..., 0], "int32"), self.max_num_bins)
        # Unique keys make the sort stable on every backend and in ONNX.
        place = ops.arange(num_elements, dtype="int32")
        if self.bin_order == "event":
            return ops.cast(ops.argsort(bucket * num_elements + place, axis=-1), "int32")
        strength = strength[..., 0]
        along = ops.cast(ops.argsort(ops.where(bucket < half, -strength, strength), axis=-1), "int32")
        rows = row_numbers(along)
        bucket = ops.reshape(gather_rows(ops.reshape(bucket, (-1,)), rows), ops.shape(along))
        within = row_numbers(ops.cast(ops.argsort(bucket * num_elements + place, axis=-1), "int32"))
        return ops.reshape(gather_rows(ops.reshape(along, (-1,)), within), ops.shape(along))

    def _directions_in_use(self, mask, half):
        """Return [B, 1, 2 half] boolean: directions (and their opposites) for the bins of real elements."""
        num_real = ops.sum(ops.cast(mask, "int32"), axis=-1, keepdims=True)
        num_bins = (num_real + self.bin_size - 1) // self.bin_size
        direction = ops.expand_dims(ops.arange(half, dtype="int32"), axis=0)
        used = ops.logical_or(direction < num_bins // 2, direction == 0)
        return ops.expand_dims(ops.concatenate([used, used], axis=-1), axis=1)

    def _check_size(self, num_elements: Any) -> None:
        if not isinstance(num_elements, int):
            return
        if num_elements > self.bin_size and num_elements % self.bin_size:
            raise ValueError(
                f"{num_elements} elements are not a multiple of bin_size={self.bin_size}; pad the events"
            )
        if num_elements // self.bin_size > self.max_num_bins:
            raise ValueError(
                f"{num_elements} elements make {num_elements // self.bin_size} bins of {self.bin_size}, more "
                f"than max_num_bins={self.max_num_bins}; raise max_num_bins or bin_size"
            )

    def compute_output_shape(self, z_shape, mask_shape=None):  # noqa: ARG002
        """Return [B, N]."""
        return tuple(z_shape)[:2]

    def compute_output_spec(self, z, mask=None, **kwargs):  # noqa: ARG002
        """Return the specification of the order: [B, N] int32."""
        return keras.KerasTensor(tuple(z.shape)[:2], dtype="int32")

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments."""
        return {
            **super().get_config(),
            "bin_size": self.bin_size,
            "max_num_bins": self.max_num_bins,
            "distance_dim": self.distance_dim,
            "bin_order": self.bin_order,
        }


def bin_length(num_elements, bin_size: int):
    """Return the length S of the bins: ``bin_size``, or N where all elements fit into one bin.

    An int where N is one, otherwise a scalar tensor. One short bin gives what a full one with padding gives.
    """
    if isinstance(num_elements, int):
        return max(1, min(num_elements, bin_size))
    return ops.maximum(1, ops.minimum(num_elements, bin_size))


def inverse_order(order):
    """Return the inverse permutation of each event, [B, N] int32."""
    return ops.cast(ops.argsort(order, axis=-1), "int32")


def row_numbers(order):
    """Return where the elements ``order`` [B, N] of each event are among all rows, [B N] int32."""
    shape = ops.shape(order)
    first = ops.expand_dims(ops.arange(shape[0], dtype="int32") * shape[1], axis=1)
    return ops.reshape(order + first, (-1,))


def gather_rows(rows, numbers):
    """Return the rows [B N, ...] with these numbers [B N].

    One flat gather: several times faster than ``take_along_axis`` in both directions.
    """
    return ops.take(rows, numbers, axis=0)
