"""PFNetDense: the graph network with learnable binning (Pata et al., Commun. Phys. 7, 124, 2024)."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from mlpf.layers.combined_graph_layer import CombinedGraphLayer
from mlpf.layers.feedforward import FFN
from mlpf.layers.helix_encoding import face_points
from mlpf.models.base import PFNet


@keras.saving.register_keras_serializable(package="mlpf")
class PFNetDense(PFNet):
    """Two stacks of graph layers, one for classification and one for regression.

    Both stacks start from the encoded elements. ``additive``: h <- h + layer(h), the heads see the last h.
    ``concat``: h <- layer(h), the heads see all h.

    Args:
        activation: activation of the node encoding.
        do_node_encoding: encode elements before the graph layers.
        node_encoding_hidden_dim: width of the node encoding.
        node_update_mode: ``additive`` or ``concat``.
        skip_connection: ``concat`` only: feed the encoded input to the heads too.
        num_graph_layers_id: graph layers of the classification stack.
        num_graph_layers_reg: graph layers of the regression stack.
        combined_graph_layer: arguments of ``CombinedGraphLayer``.
        **kwargs: arguments of ``PFNet``.

    Example:
        >>> import numpy as np
        >>> from mlpf.config.model_schema import GNNConfig
        >>> from mlpf.models import build_model
        >>> network = build_model(GNNConfig(num_graph_layers_id=1, num_graph_layers_reg=1))
        >>> network(np.ones((2, 20, 17), "float32"))["cls"].shape
        TensorShape([2, 20, 6])
    """

    graph_layer = CombinedGraphLayer

    def __init__(
        self,
        *,
        activation: str,
        do_node_encoding: bool,
        node_encoding_hidden_dim: int,
        node_update_mode: str,
        skip_connection: bool,
        num_graph_layers_id: int,
        num_graph_layers_reg: int,
        combined_graph_layer: Mapping[str, Any],
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self._arguments |= {
            "activation": activation,
            "do_node_encoding": do_node_encoding,
            "node_encoding_hidden_dim": node_encoding_hidden_dim,
            "node_update_mode": node_update_mode,
            "skip_connection": skip_connection,
            "num_graph_layers_id": num_graph_layers_id,
            "num_graph_layers_reg": num_graph_layers_reg,
            "combined_graph_layer": dict(combined_graph_layer),
        }
        self.bin_size = int(combined_graph_layer["bin_size"])
        self.max_num_elements = self.bin_size * int(combined_graph_layer["max_num_bins"])
        self.additive = node_update_mode == "additive"
        self.skip_connection = skip_connection
        self.needs_position = bool(combined_graph_layer.get("position_scales"))
        if self.needs_position and self._arguments["face"] is None:
            raise ValueError("position_scales need the face of the calorimeter")
        self._activate = keras.activations.get(activation)
        self.node_encoding = None
        if do_node_encoding:
            self.node_encoding = FFN(
                combined_graph_layer["node_message"]["output_dim"],
                node_encoding_hidden_dim,
                num_layers=1,
                activation=activation,
                dtype="float32",  # raw columns do not fit into float16
                name="node_encoding",
            )
        self.cg_id = self._make_stack("cg_id", num_graph_layers_id, combined_graph_layer)
        self.cg_reg = self._make_stack("cg_reg", num_graph_layers_reg, combined_graph_layer)
        self._make_decoding()

    def _make_stack(self, name: str, num_layers: int, arguments: Mapping[str, Any]) -> list[Any]:
        return [
            self.graph_layer(**arguments, dtype=self.dtype_policy, name=f"{name}_{i}")
            for i in range(num_layers)
        ]

    def _build_towers(self, encoded: tuple[Any, ...]) -> tuple[int, int]:
        nodes = encoded
        if self.node_encoding is not None:
            self.node_encoding.build(encoded)
            nodes = self.node_encoding.compute_output_shape(encoded)
        return (
            self._build_stack(self.cg_id, nodes, encoded[-1]),
            self._build_stack(self.cg_reg, nodes, encoded[-1]),
        )

    def _build_stack(self, stack: list[Any], nodes: tuple[Any, ...], encoded: int) -> int:
        """Build the layers of a stack and return the width of its features."""
        total = encoded if self.skip_connection else 0
        for layer in stack:
            layer.build(nodes)
            nodes = layer.compute_output_shape(nodes)
            total += nodes[-1]
        return nodes[-1] if self.additive else total

    def _run_towers(self, raw, encoded, mask, training):
        h = encoded
        if self.node_encoding is not None:
            h = self._activate(self.node_encoding(encoded, training=training))
        position = None
        if self.needs_position:
            of = self.encoding
            position = face_points(raw, of.radius, of.half_length, of.helix_columns)
        h_id = self._run_stack(self.cg_id, h, encoded, mask, position, training)
        h_reg = self._run_stack(self.cg_reg, h, encoded, mask, position, training)
        return h_id, h_reg

    def _run_stack(self, stack: list[Any], h, encoded, mask, position, training):
        outputs = [encoded] if self.skip_connection else []
        for layer in stack:
            update = self._run_layer(layer, h, mask, position, training=training)
            # The residual stream stays in float32 under mixed precision.
            h = h + ops.cast(update, h.dtype) if self.additive else update
            outputs.append(ops.cast(h, "float32"))
        if self.additive:
            return h
        return ops.concatenate(outputs, axis=-1) * ops.cast(ops.expand_dims(mask, axis=-1), "float32")
