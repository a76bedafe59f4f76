"""One block of a Performer: attention and a feed-forward network, each behind a norm and with a residual."""

from typing import Any

import keras
from keras import ops

from mlpf.layers.favor_attention import FavorAttention
from mlpf.layers.flatten import from_rows, to_rows


@keras.saving.register_keras_serializable(package="mlpf")
class PerformerBlock(keras.layers.Layer):
    """h <- h + drop(attention(norm(h), norm(keys))); h <- h + drop(W2 activation(W1 norm(h))).

    Pre-norm (Xiong et al., ICML 2020): the residual stream, float32 under every policy, is never normalised.
    The norm divides by the root mean square (Zhang and Sennrich, NeurIPS 2019): it passes over memory half as
    often as one that subtracts the mean, which is what many elements cost.

    Args:
        num_heads: heads H.
        num_features: random features M.
        ffn_dim: width of the feed-forward network.
        kernel: see ``FavorAttention``.
        activation: of the feed-forward network.
        dropout: rate on both updates.
        seed: of the random directions.
        redraw_interval: training steps between new directions, 0 = never.
        **kwargs: keyword arguments of ``keras.layers.Layer``.

    Example:
        >>> import numpy as np
        >>> h, mask = np.ones((2, 5, 8), "float32"), np.ones((2, 5), bool)
        >>> PerformerBlock(num_heads=2, num_features=16, ffn_dim=32)(h, None, mask).shape
        TensorShape([2, 5, 8])
    """

    def __init__(
        self,
        num_heads: int,
        num_features: int,
        ffn_dim: int,
        kernel: str = "softmax",
        activation: str = "gelu",
        dropout: float = 0.0,
        seed: int = 0,
        redraw_interval: int = 0,
        **kwargs: Any,
    ):
        # No cast on entry: the residual stream keeps its precision.
        super().__init__(autocast=False, **kwargs)
        self._config = {
            "num_heads": num_heads,
            "num_features": num_features,
            "ffn_dim": ffn_dim,
            "kernel": kernel,
            "activation": activation,
            "dropout": dropout,
            "seed": seed,
            "redraw_interval": redraw_interval,
        }
        policy = self.dtype_policy
        self.attention = FavorAttention(
            num_heads, num_features, kernel, seed, redraw_interval, dtype=policy, name="attention"
        )
        self.norms = [
            keras.layers.RMSNormalization(epsilon=1e-6, dtype="float32", name=name)
            for name in ("norm_attention", "norm_ffn")
        ]
        self.hidden = keras.layers.Dense(ffn_dim, activation=activation, dtype=policy, name="ffn_hidden")
        self.dropouts = [
            keras.layers.Dropout(dropout, dtype="float32", name=f"dropout_{i}")
            for i in range(2 if dropout > 0 else 0)
        ]

    def build(self, h_shape, keys_shape=None, mask_shape=None):  # noqa: ARG002 - Keras passes all arguments or their shapes
        """Create the weights; shapes are [B, Q, D], [B, N, D] and [B, N]."""
        shape = tuple(h_shape)
        for norm in self.norms:
            norm.build(shape)
        self.attention.build(shape)
        self.hidden.build(shape)
        self.out = keras.layers.Dense(shape[-1], dtype=self.dtype_policy, name="ffn_out")
        self.out.build((*shape[:-1], self.hidden.units))

    def call(self, h, keys, mask, training=False):
        """Update a stream.

        Args:
            h: [B, Q, D] residual stream.
            keys: [B, N, D] what it attends to; None = itself.
            mask: [B, N] bool, False = padding, to which nothing attends.
            training: use dropout, count steps towards a redraw.

        Returns:
            [B, Q, D] float32.
        """
        h = ops.cast(h, "float32")
        query = self._norm(0, h)
        keys = query if keys is None else self._norm(0, keys)
        h = h + self._update(0, self.attention(query, keys, mask, training=training), training)
        rows = self.out(self.hidden(self.norms[1](to_rows(h))))
        return h + self._update(1, from_rows(rows, like=h), training)

    def _norm(self, number: int, x):
        return from_rows(self.norms[number](to_rows(x)), like=x)

    def _update(self, number: int, x, training):
        x = ops.cast(x, "float32")
        return self.dropouts[number](x, training=training) if self.dropouts else x

    def compute_output_shape(self, h_shape, keys_shape=None, mask_shape=None):  # noqa: ARG002 - Keras passes all arguments or their shapes
        """Return [B, Q, D]."""
        return tuple(h_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self._config}
