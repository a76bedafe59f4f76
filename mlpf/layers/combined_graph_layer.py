"""Graph layer: learnable binning followed by message passing inside each bin."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from mlpf.layers.binning import Bins, LearnableBinning, gather_rows
from mlpf.layers.feedforward import FFN
from mlpf.layers.flatten import from_rows, to_rows
from mlpf.layers.message_passing import FLOAT16_MAX, GHConvDense, NodeMessageLearnable
from mlpf.layers.pair_kernels import NodePairGaussianKernel, NodePairTrainableKernel, PositionKernel

KERNELS = {
    "NodePairGaussianKernel": NodePairGaussianKernel,
    "NodePairTrainableKernel": NodePairTrainableKernel,
}
NUM_COORDINATES = 3
# Divides positions before hashing, so that they weigh against learned features of order one.
BINNING_UNIT_MM = 100.0
NODE_MESSAGES = {"GHConvDense": GHConvDense, "NodeMessageLearnable": NodeMessageLearnable}


@keras.saving.register_keras_serializable(package="mlpf")
class CombinedGraphLayer(keras.layers.Layer):
    """Embed, bin, weigh pairs, pass messages, put back in order.

    Args:
        bin_size: elements per bin S.
        max_num_bins: most bins per event.
        distance_dim: width of the distance embedding.
        layernorm: normalise the node features first.
        dropout: dropout rate after each message layer.
        dist_activation: activation of the distance embedding.
        ffn_dist_num_layers: hidden layers of the distance network.
        ffn_dist_hidden_dim: width of the distance network.
        kernel: ``type`` out of ``KERNELS`` and its constructor arguments.
        num_node_messages: message layers.
        node_message: ``type`` out of ``NODE_MESSAGES`` and its constructor arguments.
        activation: activation of the distance network.
        position_scales: lengths in mm; with them the pair kernel is multiplied by a ``PositionKernel`` at
            each scale, each for one slice of the node features. Empty = as published.
        bin_order: order inside a bucket; see ``LearnableBinning``.
        **kwargs: keyword arguments of ``keras.layers.Layer``.

    Example:
        >>> import numpy as np
        >>> from mlpf.config.model_schema import GNNConfig
        >>> arguments = GNNConfig().combined_graph_layer.model_dump() | {"bin_size": 16}
        >>> layer = CombinedGraphLayer(**arguments)
        >>> nodes, mask = np.ones((2, 20, 8), "float32"), np.ones((2, 20), bool)
        >>> layer(nodes, mask).shape
        TensorShape([2, 20, 256])
    """

    def __init__(
        self,
        bin_size: int,
        max_num_bins: int,
        distance_dim: int,
        layernorm: bool,
        dropout: float,
        dist_activation: str,
        ffn_dist_num_layers: int,
        ffn_dist_hidden_dim: int,
        kernel: Mapping[str, Any],
        num_node_messages: int,
        node_message: Mapping[str, Any],
        activation: str,
        position_scales: Sequence[float] = (),
        bin_order: str = "event",
        **kwargs: Any,
    ):
        # The distance network ends in float32: its input may be cast, its output must not.
        super().__init__(autocast=False, **kwargs)
        self._config = {
            "bin_size": bin_size,
            "max_num_bins": max_num_bins,
            "distance_dim": distance_dim,
            "layernorm": layernorm,
            "dropout": dropout,
            "dist_activation": dist_activation,
            "ffn_dist_num_layers": ffn_dist_num_layers,
            "ffn_dist_hidden_dim": ffn_dist_hidden_dim,
            "kernel": dict(kernel),
            "num_node_messages": num_node_messages,
            "node_message": dict(node_message),
            "activation": activation,
            "position_scales": list(position_scales),
            "bin_order": bin_order,
        }
        policy = self.dtype_policy
        self.bin_size = bin_size
        self.layernorm = None
        if layernorm:
            self.layernorm = keras.layers.LayerNormalization(epsilon=1e-6, dtype="float32", name="layernorm")
        self.ffn_dist = FFN(
            distance_dim,
            ffn_dist_hidden_dim,
            ffn_dist_num_layers,
            activation=activation,
            dtype=policy,
            name="ffn_dist",
        )
        self._dist_activate = keras.activations.get(dist_activation)
        # With positions, bins must be regions in space: elements in different bins exchange no messages.
        embedding_dim = distance_dim + (NUM_COORDINATES if position_scales else 0)
        self.binning = LearnableBinning(bin_size, max_num_bins, embedding_dim, bin_order, name="binning")
        self.position_kernel = None
        if position_scales:
            self.position_kernel = PositionKernel(position_scales, name="position_kernel")
        self.pair_kernel = KERNELS[kernel["type"]](**_without_type(kernel), dtype=policy, name="kernel")
        self._add_messages(num_node_messages, node_message, dropout)

    def _add_messages(self, num_node_messages: int, node_message: Mapping[str, Any], dropout: float) -> None:
        policy = self.dtype_policy
        message = NODE_MESSAGES[node_message["type"]]
        arguments = _without_type(node_message)
        self.messages = [
            message(**arguments, dtype=policy, name=f"message_{i}") for i in range(num_node_messages)
        ]
        self.dropouts = [
            keras.layers.Dropout(dropout, dtype="float32", name=f"dropout_{i}")
            for i in range(num_node_messages if dropout > 0 else 0)
        ]

    def build(self, x_shape, mask_shape=None, position_shape=None):  # noqa: ARG002 - Keras passes all arguments or their shapes
        """Create the weights; ``x_shape`` is [B, N, D_in]."""
        shape = tuple(x_shape)
        if self.layernorm is not None:
            self.layernorm.build(shape)
        self.ffn_dist.build(shape)
        embedding = (*shape[:-1], self.binning.distance_dim)
        if self.position_kernel is not None:
            self.position_kernel.build()
        self.binning.build(embedding)
        pairs = (None, None, self.ffn_dist.d_out)
        self.pair_kernel.build(pairs)
        kernel_shape = self.pair_kernel.compute_output_shape(pairs)
        for message in self.messages:
            message.build(shape, kernel_shape)
            shape = (*shape[:-1], message.output_dim)

    def call(self, x, mask, position=None, training=False):
        """Return the new node features.

        Args:
            x: [B, N, D_in] node features.
            mask: [B, N] boolean, True = real element.
            position: [B, N, 3] float32 positions in mm; needed with ``position_scales``, else unused.
            training: use dropout.

        Returns:
            [B, N, D] float32; what stands at padded elements has no meaning.
        """
        rows = to_rows(x)
        if self.layernorm is not None:
            rows = self.layernorm(rows)
        rows = ops.cast(rows, self.compute_dtype)
        z = self._dist_activate(self.ffn_dist(rows))
        hashed = z
        if self.position_kernel is not None:
            position = to_rows(ops.cast(position, "float32"))
            hashed = ops.concatenate([z, position / BINNING_UNIT_MM], axis=-1)
        bins = Bins(self.binning(from_rows(hashed, like=x), mask), self.bin_size)
        real = ops.reshape(mask, (-1,))
        return bins.undo([self._pass(m, rows, z, real, position, training) for m in bins.members])

    def _pass(self, members, rows, z, real, position, training):
        """Return the new features [G, S, D] of the elements of G bins, whose rows are ``members`` [G, S]."""
        real = gather_rows(real, members)
        near = [] if self.position_kernel is None else [self.position_kernel(gather_rows(position, members))]
        kernel = ops.cast(self.pair_kernel(gather_rows(z, members), real, *near), self.compute_dtype)
        out = gather_rows(rows, members)
        for i, message in enumerate(self.messages):
            if i > 0 and self.compute_dtype == "float16":
                # The next message layer and the dropout take this as float16.
                out = ops.clip(out, -FLOAT16_MAX, FLOAT16_MAX)
            out = message(out, kernel, real)
            if self.dropouts:
                out = self.dropouts[i](out, training=training)
        return out

    def compute_output_shape(self, x_shape, mask_shape=None, position_shape=None):  # noqa: ARG002 - Keras passes all arguments or their shapes
        """Return [B, N, D]."""
        return (*tuple(x_shape)[:-1], self.messages[-1].output_dim)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self._config}


def _without_type(section: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key != "type"}
