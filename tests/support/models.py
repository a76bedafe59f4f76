"""Small models for tests."""

from typing import Any

import keras

from mlpf.config.model_schema import GNNConfig
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


def tiny_config(**changes: Any) -> GNNConfig:
    """A network of one graph layer per stack; ``changes`` replace top-level keys."""
    heads = {f"{head}_hidden_dim": 8 for head in ("id", "charge", "pt", "eta", "phi", "energy")}
    settings = {
        "node_encoding_hidden_dim": 8,
        "num_graph_layers_id": 1,
        "num_graph_layers_reg": 1,
        "combined_graph_layer": TINY_GRAPH,
        "output_decoding": heads,
    }
    return GNNConfig.model_validate({**settings, **changes})


def tiny_model(seed: int = 1, **changes: Any) -> keras.Model:
    """Build ``tiny_config`` with seeded weights."""
    keras.utils.set_random_seed(seed)
    return build_model(tiny_config(**changes))
