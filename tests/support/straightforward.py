"""The graph network written the obvious way, with the same weights: what the fast one is measured against.

Every mask is applied, pairs are weighed one kernel after the other, positions are subtracted as vectors,
elements are gathered into bins event by event and scattered back, and every event fills whole bins. Outputs
and gradients are those of ``PFNetDense``; a test compares them.
"""

from typing import Any

import keras
from keras import ops

from mlpf.layers.combined_graph_layer import BINNING_UNIT_MM, CombinedGraphLayer
from mlpf.layers.message_passing import DEGREE_EPSILON, GHConvDense
from mlpf.layers.pair_kernels import MIN_SQUARED_DISTANCE
from mlpf.models.gnn_dense import PFNetDense


@keras.saving.register_keras_serializable(package="mlpf-bench")
class StraightforwardGraphLayer(CombinedGraphLayer):
    """``CombinedGraphLayer`` without any of its shortcuts."""

    def call(self, x, mask, position=None, training=False):
        """Return the new node features [B, N, D]."""
        if self.layernorm is not None:
            x = self.layernorm(x)
        z = x
        for dense in (*self.ffn_dist.hidden, self.ffn_dist.out):
            z = dense(z)
        z = self._dist_activate(z)
        hashed = z
        if self.position_kernel is not None:
            hashed = ops.concatenate([z, position / BINNING_UNIT_MM], axis=-1)
        order = self.binning(hashed, mask)
        real = ops.cast(mask, "float32")[..., None]
        z, x, real = (self._to_bins(t, order) for t in (z, x, real))
        kernel = self._pair_weights(z, real)
        if self.position_kernel is not None:
            position_weights = self._position_weights(self._to_bins(position, order))
            kernel = kernel[:, :, None] * position_weights
        for i, message in enumerate(self.messages):
            x = self._pass(message, x, kernel, real)
            if self.dropouts:
                x = self.dropouts[i](x, training=training)
        return self._scatter(x, order)

    def _to_bins(self, x, order):
        shape = ops.shape(x)
        binned = ops.take_along_axis(x, order[..., None], axis=1)
        return ops.reshape(binned, (shape[0], -1, self.bin_size, x.shape[-1]))

    def _pair_weights(self, z, real):
        kernel = self.pair_kernel
        z = z * real
        square = ops.sum(z * z, axis=-1, keepdims=True)
        cross = ops.matmul(z, ops.swapaxes(z, -1, -2))
        squared = square - 2.0 * cross + ops.swapaxes(square, -1, -2)
        if kernel.exact_diagonal:
            squared = squared * (1.0 - ops.eye(self.bin_size))
        distance = ops.sqrt(ops.maximum(squared, MIN_SQUARED_DISTANCE))
        weights = ops.clip(ops.exp(-kernel.dist_mult * distance), kernel.clip_value_low, 1.0)
        return weights * real * ops.swapaxes(real, -1, -2)

    def _position_weights(self, position):
        difference = ops.expand_dims(position, axis=-2) - ops.expand_dims(position, axis=-3)
        squared = ops.sum(difference * difference, axis=-1)
        distance = ops.expand_dims(ops.sqrt(ops.maximum(squared, MIN_SQUARED_DISTANCE)), axis=2)
        return ops.exp(-distance * ops.exp(-self.position_kernel.log_scale))

    def _pass(self, message: GHConvDense, x, kernel, real):
        x = x * real
        neighbours = ops.matmul(x, message.theta) * real
        if len(kernel.shape) == 5:
            neighbours = self._split(neighbours, kernel.shape[2])
        scale = 1.0
        if message.normalize_degrees:
            degree = ops.sum(ops.abs(kernel), axis=-1, keepdims=True) + DEGREE_EPSILON
            scale = ops.rsqrt(degree)
        hom = scale * ops.matmul(kernel, scale * neighbours)
        if len(kernel.shape) == 5:
            hom = ops.transpose(hom, (0, 1, 3, 2, 4))
            hom = ops.reshape(hom, (*ops.shape(x)[:3], message.output_dim))
        het = ops.matmul(x, message.w_h)
        gate = ops.sigmoid(ops.matmul(x, message.w_t) + message.b_t)
        return keras.activations.get(message.activation)(gate * hom + (1.0 - gate) * het) * real

    def _split(self, x, num_heads: int):
        shape = ops.shape(x)
        x = ops.reshape(x, (*shape[:3], num_heads, x.shape[-1] // num_heads))
        return ops.transpose(x, (0, 1, 3, 2, 4))

    def _scatter(self, x, order):
        batch, num_elements = ops.shape(order)
        rows = ops.repeat(ops.arange(batch, dtype="int32"), num_elements)
        places = ops.stack([rows, ops.reshape(order, (-1,))], axis=-1)
        width = x.shape[-1]
        return ops.scatter(places, ops.reshape(x, (-1, width)), (batch, num_elements, width))


@keras.saving.register_keras_serializable(package="mlpf-bench")
class StraightforwardNetwork(PFNetDense):
    """``PFNetDense`` of ``StraightforwardGraphLayer``; every event fills whole bins."""

    graph_layer = StraightforwardGraphLayer

    def call(self, X: Any, training: bool = False) -> Any:
        """Return the outputs [B, N, .]."""
        num_elements = ops.shape(X)[1]
        missing = (self.bin_size - num_elements % self.bin_size) % self.bin_size
        outputs = super().call(ops.pad(X, ((0, 0), (0, missing), (0, 0))), training=training)
        return {name: value[:, :num_elements] for name, value in outputs.items()}
