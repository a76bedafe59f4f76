"""Linear attention by positive orthogonal random features, FAVOR+ (Choromanski et al., ICLR 2021)."""

import math
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from mlpf.layers.flatten import from_rows, to_rows

KERNELS = ("softmax", "elu", "relu")
# Keeps the features of the relu kernel positive, as the paper does.
RELU_FLOOR = 1e-3
# Smallest denominator: an event without a real key gives 0, not NaN.
TINY = 1e-12
# FAR is subtracted from the exponent of a padded key. NEARER is the smallest maximum of exponents. They
# differ, so that an event without real keys gets weights of zero and not of one.
FAR, NEARER = 1e30, -1e20


def orthogonal_projection(num_features: int, dim: int, seed: int) -> npt.NDArray[np.float32]:
    """Draw random directions, orthogonal within blocks of ``dim``, with norms of Gaussian vectors.

    Args:
        num_features: directions M.
        dim: dimension d of each.
        seed: the same seed gives the same directions.

    Returns:
        [M, d] float32.
    """
    rng = np.random.default_rng(seed)
    blocks = math.ceil(num_features / dim)
    q, r = np.linalg.qr(rng.standard_normal((blocks, dim, dim)))
    # Without the signs of r's diagonal the directions would not be uniform.
    q *= np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
    directions = q.transpose(0, 2, 1).reshape(blocks * dim, dim)[:num_features]
    norms = np.linalg.norm(rng.standard_normal((num_features, dim)), axis=1, keepdims=True)
    return (norms * directions).astype(np.float32)


@keras.saving.register_keras_serializable(package="mlpf")
class FavorAttention(keras.layers.Layer):
    """Multi-head attention whose cost and memory grow linearly with the number of elements.

    out_i = sum_j k(q_i, k_j) v_j / sum_j k(q_i, k_j) with k(q, k) = phi(q) . phi(k), phi of M features:

    - ``softmax``: phi(x) = exp(w . x - |x|^2 / 2) / sqrt(M), unbiased for exp(q . k), x scaled by d^(-1/4);
    - ``elu``: phi(x) = (elu(w . x) + 1) / sqrt(M); ``relu``: phi(x) = (relu(w . x) + 0.001) / sqrt(M).

    1 / sqrt(M) and |q|^2 / 2 are the same for all keys of a query and cancel in the ratio: they are never
    computed. Feature by feature, the largest exponent of the real keys moves from phi(k) to phi(q); then the
    largest of each query is subtracted. Both cancel too, and no denominator is below 1.
    Features, sums and denominators are float32 under every policy.

    Args:
        num_heads: heads H; the width D must be a multiple.
        num_features: random features M.
        kernel: one of ``KERNELS``.
        seed: of the random directions, which are frozen weights [M, D / H] saved with the model.
        redraw_interval: draw new directions every this many training steps; 0 = never.
        **kwargs: keyword arguments of ``keras.layers.Layer``.

    Raises:
        ValueError: unknown kernel, or D is not a multiple of H.

    Example:
        >>> import numpy as np
        >>> x, mask = np.ones((2, 5, 8), "float32"), np.ones((2, 5), bool)
        >>> FavorAttention(num_heads=2, num_features=16)(x, x, mask).shape
        TensorShape([2, 5, 8])
    """

    def __init__(
        self,
        num_heads: int,
        num_features: int,
        kernel: str = "softmax",
        seed: int = 0,
        redraw_interval: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if kernel not in KERNELS:
            raise ValueError(f"kernel={kernel!r}, expected one of {', '.join(KERNELS)}")
        self.num_heads = num_heads
        self.num_features = num_features
        self.kernel = kernel
        self.seed = seed
        self.redraw_interval = redraw_interval
        self.seed_generator = keras.random.SeedGenerator(seed) if redraw_interval else None

    def build(self, query_shape, keys_shape=None, mask_shape=None):  # noqa: ARG002 - Keras passes all arguments or their shapes
        """Create the projections; shapes are [B, Q, D], [B, N, D], [B, N]."""
        width = query_shape[-1]
        if width % self.num_heads:
            raise ValueError(f"width {width} is not a multiple of num_heads={self.num_heads}")
        self.head_dim = width // self.num_heads
        # Three matrix products, because splitting the result of one would copy it.
        self.query, self.key, self.value, self.out = (
            self._dense(width, name, query_shape) for name in ("query", "key", "value", "out")
        )
        directions = orthogonal_projection(self.num_features, self.head_dim, self.seed)
        self.projection = self.add_weight(
            shape=directions.shape,
            initializer=lambda shape, dtype: ops.convert_to_tensor(directions, dtype),  # noqa: ARG005 - an initializer is asked for a shape
            trainable=False,
            dtype="float32",
            autocast=False,
            aggregation="only_first_replica",
            name="projection",
        )
        if self.redraw_interval:
            self.step = self.add_weight(
                shape=(),
                initializer="zeros",
                dtype="int32",
                trainable=False,
                aggregation="only_first_replica",
                name="step",
            )

    def _dense(self, units: int, name: str, input_shape) -> keras.layers.Dense:
        dense = keras.layers.Dense(units, use_bias=False, dtype=self.dtype_policy, name=name)
        dense.build(input_shape)
        return dense

    def call(self, query, keys, mask, training=False):
        """Attend.

        Args:
            query: [B, Q, D].
            keys: [B, N, D], both keys and values come from it.
            mask: [B, N] bool, False = the key does not exist.
            training: count the step towards the next redraw.

        Returns:
            [B, Q, D] in the compute dtype.
        """
        # A frozen layer keeps the directions that its weights were trained with.
        if training and self.redraw_interval and self.trainable:
            self._count_step()
        query_rows, key_rows = to_rows(query), to_rows(keys)
        q = self._heads(self.query(query_rows), like=query)
        k = self._heads(self.key(key_rows), like=keys)
        v = self._heads(self.value(key_rows), like=keys, axes=(0, 2, 3, 1))  # [B, H, d, N]
        phi_q, phi_k = self._features(q, k, mask)
        # Append a one to each v: the two products then also give the denominator, the sum of weights.
        v = ops.cast(v, "float32")
        v = ops.concatenate([v, ops.ones_like(v[:, :, :1])], axis=2)  # [B, H, d + 1, N]
        summed = ops.swapaxes(ops.matmul(v, phi_k), -1, -2)  # [B, H, M, d + 1]
        out, total = ops.split(
            ops.matmul(phi_q, summed), [self.head_dim], axis=-1
        )  # [B, H, Q, d], [B, H, Q, 1]
        out = out * (1.0 / ops.maximum(total, TINY))
        out = ops.reshape(ops.transpose(out, (0, 2, 1, 3)), (-1, query.shape[-1]))
        return from_rows(self.out(ops.cast(out, self.compute_dtype)), like=query)

    def _heads(self, rows, like, axes=(0, 2, 1, 3)):
        """Turn rows [B N, D] of ``like`` [B, N, any] into [B, H, N, d], or other ``axes`` of [B, N, H, d]."""
        shape = (-1, ops.shape(like)[1], self.num_heads, self.head_dim)
        return ops.transpose(ops.reshape(rows, shape), axes)

    def _project(self, x):
        """Return w . x, [B, H, N, M] float32, of x scaled by d^(-1/4)."""
        return ops.matmul(ops.cast(x, "float32"), ops.transpose(self.projection) * self.head_dim**-0.25)

    def _features(self, q, k, mask):
        """Return phi(q) [B, H, Q, M], phi(k) [B, H, N, M] up to what cancels, float32; padded keys give 0."""
        q, projected = self._project(q), self._project(k)
        real = mask[:, None, :, None]
        if self.kernel != "softmax":
            return self._plain_features(q), self._plain_features(projected) * ops.cast(real, "float32")
        k = ops.cast(k, "float32")
        half_square = (0.5 * self.head_dim**-0.5) * ops.sum(k * k, axis=-1, keepdims=True)
        # A padded key gets no weight, and must not be the largest exponent.
        exponent = projected - ops.where(real, half_square, FAR)
        largest = ops.stop_gradient(ops.max(exponent, axis=2, keepdims=True, initial=NEARER))
        q = q + largest
        q = q - ops.stop_gradient(ops.max(q, axis=-1, keepdims=True, initial=-FAR))
        return ops.exp(q), ops.exp(exponent - largest)

    def _plain_features(self, projected):
        if self.kernel == "elu":
            return ops.elu(projected) + 1.0
        return ops.relu(projected) + RELU_FLOOR

    def _count_step(self) -> None:
        """Advance the step; replace the projection when its time is up."""
        step = self.step + 1
        self.step.assign(step)
        dim, blocks = self.head_dim, math.ceil(self.num_features / self.head_dim)
        # Draw at every step: gradient checkpointing cannot pass on a state that changes in one branch only.
        # The numbers are few.
        gauss = keras.random.normal((blocks, dim, dim), seed=self.seed_generator)
        lengths = keras.random.normal((self.num_features, dim), seed=self.seed_generator)
        due = ops.equal(step % self.redraw_interval, 0)
        kept = self.projection.value
        self.projection.assign(ops.cond(due, lambda: self._directions(gauss, lengths), lambda: kept))

    def _directions(self, gauss, lengths):
        """Turn Gaussian numbers into directions like ``orthogonal_projection``, inside the graph."""
        q, r = ops.qr(gauss)
        q *= ops.sign(ops.diagonal(r, axis1=1, axis2=2))[:, None, :]
        directions = ops.reshape(ops.transpose(q, (0, 2, 1)), (-1, self.head_dim))[: self.num_features]
        return directions * ops.sqrt(ops.sum(lengths * lengths, axis=1, keepdims=True))

    def compute_output_shape(self, query_shape, keys_shape=None, mask_shape=None):  # noqa: ARG002 - Keras passes all arguments or their shapes
        """Return [B, Q, D]."""
        return tuple(query_shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "num_features": self.num_features,
            "kernel": self.kernel,
            "seed": self.seed,
            "redraw_interval": self.redraw_interval,
        }
