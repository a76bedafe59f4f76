"""``tests/data/published_small.*``: a file in the published format, with inputs and outputs to go with it.

Weights and inputs are formulas (``formula_weights``, ``formula_events``), the outputs those of the NumPy
network in float64: nothing random, nothing that our Keras layers computed.
``python -m tests.support.published_fixture`` writes both files again; a test compares them with what it
would write.
"""

from pathlib import Path
from typing import Any

import numpy as np

from mlpf.config.model_schema import GNNConfig
from mlpf.models import build_model
from mlpf.models.interface import OUTPUT_NAMES
from tests.support.numpy_gnn import NumpyGNN, formula_events, write_published

FOLDER = Path(__file__).resolve().parent.parent / "data"
WEIGHTS, EVENTS = "published_small.hdf5", "published_small.npz"
HEADS = ("id", "charge", "pt", "eta", "phi", "energy")
# Section ``parameters``: the published options, small.
PARAMETERS: dict[str, Any] = {
    "node_encoding_hidden_dim": 4,
    "num_graph_layers_id": 1,
    "num_graph_layers_reg": 1,
    "combined_graph_layer": {
        "bin_size": 8,
        "max_num_bins": 8,
        "distance_dim": 3,
        "ffn_dist_num_layers": 1,
        "ffn_dist_hidden_dim": 4,
        "kernel": {"dist_mult": 2.0},
        "num_node_messages": 1,
        "node_message": {"output_dim": 4},
    },
    "output_decoding": {f"{head}_hidden_dim": 4 for head in HEADS},
}
SETTINGS = {
    "bin_size": 8,
    "num_graph_layers_id": 1,
    "num_graph_layers_reg": 1,
    "num_node_messages": 1,
    "dist_mult": 2.0,
}


def write(folder: Path) -> None:
    """Write both files."""
    folder.mkdir(parents=True, exist_ok=True)
    model = build_model(GNNConfig.model_validate(PARAMETERS))
    weights = write_published(folder / WEIGHTS, model, libver="latest")
    X = formula_events(num_elements=20)
    outputs = [NumpyGNN(weights, SETTINGS)(event) for event in X]
    stored = {f"out_{name}": np.stack([event[name] for event in outputs]) for name in OUTPUT_NAMES}
    np.savez_compressed(folder / EVENTS, X=X, **stored)


if __name__ == "__main__":
    write(FOLDER)
