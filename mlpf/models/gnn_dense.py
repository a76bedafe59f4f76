"""PFNetDense: the graph network with learnable binning (Pata et al., Commun. Phys. 7, 124, 2024)."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from mlpf.layers.combined_graph_layer import CombinedGraphLayer
from mlpf.layers.feedforward import FFN
from mlpf.layers.gradient_checkpointing import recompute
from mlpf.layers.helix_encoding import face_points
from mlpf.layers.input_encoding import InputEncoding
from mlpf.layers.input_normalization import InputNormalization
from mlpf.layers.output_decoding import OutputDecoding
from mlpf.models.inputs import element_mask, finite_or_zero


@keras.saving.register_keras_serializable(package="mlpf")
class PFNetDense(keras.Model):
    """Encode elements, two stacks of graph layers (classification, regression), decode.

    Both stacks start from the encoded elements. ``additive``: h <- h + layer(h), the heads see the last h.
    ``concat``: h <- layer(h), the heads see all h.

    Args:
        num_input_features: columns F of X.
        num_input_classes: element types, padding included.
        num_output_classes: particle classes C, none included.
        input_encoding: ``clic`` or ``clic_helix``.
        use_normalizer: standardise inputs (``input_normalization.set_statistics`` before training).
        activation: activation of the node encoding.
        do_node_encoding: encode elements before the graph layers.
        node_encoding_hidden_dim: width of the node encoding.
        node_update_mode: ``additive`` or ``concat``.
        skip_connection: ``concat`` only: feed the encoded input to the heads too.
        num_graph_layers_id: graph layers of the classification stack.
        num_graph_layers_reg: graph layers of the regression stack.
        combined_graph_layer: arguments of ``CombinedGraphLayer``.
        output_decoding: arguments of ``OutputDecoding``.
        gradient_checkpointing: compute the graph layers again in the backward pass instead of keeping their
            activations: less memory, more time, the same results.
        helix_columns: places of the columns from which positions are computed, None = those of CLIC clusters.
        **kwargs: keyword arguments of ``keras.Model``.
    """

    graph_layer = CombinedGraphLayer

    def __init__(
        self,
        *,
        num_input_features: int,
        num_input_classes: int,
        num_output_classes: int,
        input_encoding: str,
        use_normalizer: bool,
        activation: str,
        do_node_encoding: bool,
        node_encoding_hidden_dim: int,
        node_update_mode: str,
        skip_connection: bool,
        num_graph_layers_id: int,
        num_graph_layers_reg: int,
        combined_graph_layer: Mapping[str, Any],
        output_decoding: Mapping[str, Any],
        gradient_checkpointing: bool = False,
        helix_columns: Mapping[str, int] | None = None,
        **kwargs: Any,
    ):
        # No cast on entry: the encoding and the heads need X at full precision.
        super().__init__(autocast=False, **kwargs)
        self._config = {
            "num_input_features": num_input_features,
            "num_input_classes": num_input_classes,
            "num_output_classes": num_output_classes,
            "input_encoding": input_encoding,
            "use_normalizer": use_normalizer,
            "activation": activation,
            "do_node_encoding": do_node_encoding,
            "node_encoding_hidden_dim": node_encoding_hidden_dim,
            "node_update_mode": node_update_mode,
            "skip_connection": skip_connection,
            "num_graph_layers_id": num_graph_layers_id,
            "num_graph_layers_reg": num_graph_layers_reg,
            "combined_graph_layer": dict(combined_graph_layer),
            "output_decoding": dict(output_decoding),
            "gradient_checkpointing": gradient_checkpointing,
            "helix_columns": None if helix_columns is None else dict(helix_columns),
        }
        self.num_input_features = num_input_features
        self.num_output_classes = num_output_classes
        self.bin_size = int(combined_graph_layer["bin_size"])
        self.max_num_elements = self.bin_size * int(combined_graph_layer["max_num_bins"])
        self.additive = node_update_mode == "additive"
        self.skip_connection = skip_connection
        self.gradient_checkpointing = gradient_checkpointing
        self.encoding = InputEncoding(
            num_input_classes, input_encoding, helix_columns=helix_columns, name="input_encoding"
        )
        self._activate = keras.activations.get(activation)
        self._make_layers(**self._config)

    def _make_layers(self, **c: Any) -> None:
        """Create the layers that the configuration makes optional or repeats."""
        graph = c["combined_graph_layer"]
        self.input_normalization = None
        if c["use_normalizer"]:
            self.input_normalization = InputNormalization(c["num_input_classes"], name="input_normalization")
        self.node_encoding = None
        if c["do_node_encoding"]:
            self.node_encoding = FFN(
                graph["node_message"]["output_dim"],
                c["node_encoding_hidden_dim"],
                num_layers=1,
                activation=c["activation"],
                dtype="float32",  # raw columns do not fit into float16
                name="node_encoding",
            )
        self.needs_position = bool(graph.get("position_scales"))
        self.cg_id = self._stack("cg_id", c["num_graph_layers_id"], graph)
        self.cg_reg = self._stack("cg_reg", c["num_graph_layers_reg"], graph)
        self.decoding = OutputDecoding(
            c["num_output_classes"], **c["output_decoding"], dtype=self.dtype_policy, name="output_decoding"
        )

    def _stack(self, name: str, num_layers: int, arguments: Mapping[str, Any]) -> list[CombinedGraphLayer]:
        return [
            self.graph_layer(**arguments, dtype=self.dtype_policy, name=f"{name}_{i}")
            for i in range(num_layers)
        ]

    def build(self, input_shape):
        """Create all weights; ``input_shape`` is [B, N, F]."""
        shape = tuple(input_shape)
        if self.input_normalization is not None:
            self.input_normalization.build(shape)
        encoded = self.encoding.compute_output_shape(shape)
        nodes = encoded
        if self.node_encoding is not None:
            self.node_encoding.build(encoded)
            nodes = self.node_encoding.compute_output_shape(encoded)
        widths = [self._build_stack(stack, nodes, encoded[-1]) for stack in (self.cg_id, self.cg_reg)]
        self.decoding.build(shape, *((*shape[:-1], width) for width in widths))

    def _build_stack(self, stack: list[CombinedGraphLayer], nodes: tuple[Any, ...], encoded: int) -> int:
        """Build the layers of a stack and return the width of its features."""
        total = encoded if self.skip_connection else 0
        for layer in stack:
            layer.build(nodes)
            nodes = layer.compute_output_shape(nodes)
            total += nodes[-1]
        return nodes[-1] if self.additive else total

    def call(self, X, training=False):
        """Return the outputs.

        Args:
            X: [B, N, F] raw columns, column 0 = 0 marks padding; any N.
            training: use dropout.

        Returns:
            dict of ``OUTPUT_NAMES``, [B, N, .] float32, zero on padding.
        """
        raw = finite_or_zero(X)
        mask = element_mask(raw)
        x = raw if self.input_normalization is None else self.input_normalization(raw)
        encoded = self.encoding(x, raw)
        h = encoded
        if self.node_encoding is not None:
            h = self._activate(self.node_encoding(encoded, training=training))
        position = face_points(raw, columns=self.encoding.helix_columns) if self.needs_position else None
        h_id = self._run_stack(self.cg_id, h, encoded, mask, position, training)
        h_reg = self._run_stack(self.cg_reg, h, encoded, mask, position, training)
        return self.decoding(raw, h_id, h_reg, mask, training=training)

    def _run_stack(self, stack: list[CombinedGraphLayer], h, encoded, mask, position, training):
        outputs = [encoded] if self.skip_connection else []
        for layer in stack:
            if self.gradient_checkpointing:
                update = recompute(layer, h, mask, position, training=training)
            else:
                update = layer(h, mask, position, training=training)
            # The residual stream stays in float32 under mixed precision.
            h = h + ops.cast(update, h.dtype) if self.additive else update
            outputs.append(ops.cast(h, "float32"))
        if self.additive:
            return h
        return ops.concatenate(outputs, axis=-1) * ops.cast(ops.expand_dims(mask, axis=-1), "float32")

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments."""
        return {**super().get_config(), **self._config}
