"""Learnable binning: split the elements of an event into bins of S that hold similar elements.

Locality-sensitive hashing as in Reformer (Kitaev et al., 2020), used for MLPF by Pata et al.
(Commun. Phys. 7, 124, 2024). Bins are learnable because the embedding that is hashed is.
"""

from typing import Any

import keras
from keras import ops

from mlpf.layers.flatten import to_rows

BIN_ORDERS = ("event", "projection")


@keras.saving.register_keras_serializable(package="mlpf")
class LearnableBinning(keras.layers.Layer):
    """Order the elements of each event so that contiguous slices of S elements are the bins; see ``Bins``.

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

    Example:
        >>> import numpy as np
        >>> z = np.random.default_rng(0).normal(size=(1, 6, 4)).astype("float32")
        >>> mask = np.array([[True, True, True, True, False, False]])
        >>> order = LearnableBinning(bin_size=4, max_num_bins=4, distance_dim=4)(z, mask)
        >>> order.shape, sorted(np.asarray(order[0, 4:]).tolist())  # padding is in the last bin
        (TensorShape([1, 6]), [4, 5])
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

    def build(self, z_shape, mask_shape=None):  # noqa: ARG002 - Keras passes all arguments or their shapes
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
            z: [B, N, d] embedding; the last bin is short where N is no multiple of S.
            mask: [B, N] boolean, True = real element.

        Returns:
            order: [B, N] int32, positions in the event in the order of the bins.

        Raises:
            ValueError: N is known and makes more than ``max_num_bins`` bins. Where N is not known before
                the graph runs, they fail there (on a CPU) as an index out of range.
        """
        num_elements = ops.shape(z)[1]
        self._check_size(num_elements)
        num_bins = (num_elements + self.bin_size - 1) // self.bin_size
        half = max(1, num_bins // 2) if isinstance(num_bins, int) else ops.maximum(1, num_bins // 2)
        # ops.take, because a slice beyond the last column gives fewer columns and no error.
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
        bucket = gather_rows(ops.reshape(bucket, (-1,)), row_numbers(along))
        within = ops.cast(ops.argsort(bucket * num_elements + place, axis=-1), "int32")
        return gather_rows(ops.reshape(along, (-1,)), row_numbers(within))

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
        num_bins = -(-num_elements // self.bin_size)
        if num_bins > self.max_num_bins:
            raise ValueError(
                f"{num_elements} elements make {num_bins} bins of {self.bin_size}, more "
                f"than max_num_bins={self.max_num_bins}; raise max_num_bins or bin_size"
            )

    def compute_output_shape(self, z_shape, mask_shape=None):  # noqa: ARG002 - Keras passes all arguments or their shapes
        """Return [B, N]."""
        return tuple(z_shape)[:2]

    def compute_output_spec(self, z, mask=None, **kwargs):  # noqa: ARG002 - Keras passes all arguments or their shapes
        """Return the specification of the order: [B, N] int32."""
        return keras.KerasTensor(tuple(z.shape)[:2], dtype="int32")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "bin_size": self.bin_size,
            "max_num_bins": self.max_num_bins,
            "distance_dim": self.distance_dim,
            "bin_order": self.bin_order,
        }


class Bins:
    """The bins of a batch of events: full ones of S elements, and in each event a last one of what is left.

    The elements are not padded to whole bins: a short bin gives the same result as a padded one.

    Args:
        order: [B, N] int32 elements in the order of the bins, from ``LearnableBinning``.
        bin_size: elements per bin S.

    Attributes:
        members: per length S' of the bins [G, S'] int32, the rows of the elements of G bins. The axes are
            known where N is; then there is no entry without bins.

    Example:
        >>> import numpy as np
        >>> bins = Bins(np.array([[2, 0, 1]], "int32"), bin_size=2)
        >>> [np.asarray(members).tolist() for members in bins.members]
        [[[2, 0]], [[1]]]
    """

    def __init__(self, order, bin_size: int):
        self._order = order
        self._full, self._last = _full_and_last(ops.shape(order)[1], bin_size)
        numbers = row_numbers(order)
        self.members = []
        if not isinstance(self._full, int) or self._full:
            self.members.append(ops.reshape(numbers[:, : self._full], (-1, bin_size)))
        if not isinstance(self._last, int) or self._last or not self.members:
            last = max(1, self._last) if isinstance(self._last, int) else ops.maximum(1, self._last)
            self.members.append(ops.reshape(numbers[:, self._full :], (-1, last)))

    def undo(self, values):
        """Put what the bins hold back into the order of the events.

        Args:
            values: [G, S', D] for each of ``members``.

        Returns:
            [B, N, D].
        """
        place = inverse_order(self._order)
        if len(values) == 1:
            return gather_rows(to_rows(values[0]), row_numbers(place))
        num_events = ops.shape(place)[0]
        event = ops.expand_dims(ops.arange(num_events, dtype="int32"), axis=1)
        behind = num_events * self._full + event * self._last + (place - self._full)
        numbers = ops.where(place < self._full, event * self._full + place, behind)
        return gather_rows(ops.concatenate([to_rows(part) for part in values], axis=0), numbers)


def _full_and_last(num_elements, bin_size: int):
    """Return how many of N elements are in full bins, and how many in the last, short one."""
    if isinstance(num_elements, int):
        return num_elements // bin_size * bin_size, num_elements % bin_size
    # N is not known yet: there are always two parts. The last one gets at least one element, because ONNX
    # cannot reshape to an axis of length 0.
    full = ops.maximum(num_elements - 1, 0) // bin_size * bin_size
    return full, num_elements - full


def inverse_order(order):
    """Return the inverse permutation of each event, [B, N] int32."""
    return ops.cast(ops.argsort(order, axis=-1), "int32")


def row_numbers(order):
    """Return where the elements ``order`` [B, N] of each event are among all rows, [B, N] int32."""
    shape = ops.shape(order)
    return order + ops.expand_dims(ops.arange(shape[0], dtype="int32") * shape[1], axis=1)


def gather_rows(rows, numbers):
    """Return the rows out of [B N, ...] with these numbers [...].

    A gather along the first axis: several times faster than ``take_along_axis`` in both directions.
    """
    return ops.take(rows, numbers, axis=0)
