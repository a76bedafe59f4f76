"""Small models for tests."""

from typing import Any

import keras

from mlpf.config.data_schema import DatasetConfig
from mlpf.config.model_schema import GNNConfig, ModelConfig, TransformerConfig
from mlpf.models import build_model

TINY_GRAPH = {
    "bin_size": 16,
    "max_num_bins": 64,
    "distance_dim": 4,
    "ffn_dist_num_layers": 1,
    "ffn_dist_hidden_dim": 8,
    "num_node_messages": 1,
    "node_message": {"output_dim": 12},
}
# Trainable kernel and learnable messages in place of the Gaussian kernel and the graph convolution.
LEARNED_PAIRS = {
    **TINY_GRAPH,
    "kernel": {"type": "NodePairTrainableKernel"},
    "node_message": {"type": "NodeMessageLearnable", "output_dim": 12},
}
HEADS = ("id", "charge", "pt", "eta", "phi", "energy")
# Section ``parameters`` of a network of one graph layer per stack.
TINY_NETWORK: dict[str, Any] = {
    "node_encoding_hidden_dim": 8,
    "num_graph_layers_id": 1,
    "num_graph_layers_reg": 1,
    "combined_graph_layer": TINY_GRAPH,
    "output_decoding": {f"{head}_hidden_dim": 8 for head in HEADS},
}


TINY_TRANSFORMER: dict[str, Any] = {
    "model": "transformer",
    "hidden_dim": 8,
    "num_layers_encoder": 1,
    "num_layers_decoder_id": 1,
    "num_layers_decoder_reg": 1,
    "block": {"num_heads": 2, "num_features": 12, "ffn_dim": 10},
    "output_decoding": TINY_NETWORK["output_decoding"],
}


def tiny_config(**changes: Any) -> GNNConfig:
    """``TINY_NETWORK``; ``changes`` replace top-level keys."""
    return GNNConfig.model_validate({**TINY_NETWORK, **changes})


def tiny_transformer_config(**changes: Any) -> TransformerConfig:
    """A Performer of one block before and in each stream; ``changes`` replace top-level keys."""
    return TransformerConfig.model_validate({**TINY_TRANSFORMER, **changes})


def tiny_transformer(seed: int = 1, schema: str = "clic", **changes: Any) -> keras.Model:
    """Build ``tiny_transformer_config`` with seeded weights for the events of a schema."""
    return _build(seed, schema, tiny_transformer_config(**changes))


def tiny_model(seed: int = 1, schema: str = "clic", **changes: Any) -> keras.Model:
    """Build ``tiny_config`` with seeded weights for the events of a schema."""
    return _build(seed, schema, tiny_config(**changes))


def _build(seed: int, schema: str, config: ModelConfig) -> keras.Model:
    keras.utils.set_random_seed(seed)
    dataset = DatasetConfig(schema=schema)
    return build_model(
        config,
        dataset.num_input_features,
        dataset.num_input_classes,
        dataset.num_output_classes,
        dataset.helix_columns,
    )
