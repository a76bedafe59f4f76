"""Weights of the published network give its outputs in ours."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from mlpf.config.model_schema import GNNConfig
from mlpf.models import build_model
from mlpf.models.interface import OUTPUT_NAMES
from mlpf.models.published_weights import load_published_weights

# Keys of the published configuration that select what we always do.
ALWAYS = {"mask_reg_cls0"}


@pytest.fixture
def reference(repo_root):
    shared = Path(os.environ.get("MLPF_SHARED_DIR", repo_root.parent / "shared")) / "data"
    if not (shared / "reference_gnn_small.hdf5").exists():
        pytest.skip("no reference weights here")
    return shared


def _config(settings):
    graph = settings["combined_graph_layer"]
    graph["kernel"].pop("dist_norm")
    model = {key: value for key, value in settings["model"].items() if key in GNNConfig.model_fields}
    heads = {key: value for key, value in settings["output_decoding"].items() if key not in ALWAYS}
    return GNNConfig.model_validate({**model, "combined_graph_layer": graph, "output_decoding": heads})


def test_outputs_agree_with_the_published_network(reference):
    model = build_model(
        _config(json.loads((reference / "reference_gnn_small.json").read_text(encoding="utf-8")))
    )
    load_published_weights(reference / "reference_gnn_small.hdf5", model)
    with np.load(reference / "reference_gnn_small.npz", allow_pickle=False) as stored:
        events = stored["X"]
        outputs = model(events)
        real = events[..., 0] != 0
        for name in OUTPUT_NAMES:
            difference = np.abs(np.asarray(outputs[name]) - stored[f"out_{name}"])[real]
            # float32 sums in another order
            assert difference.max() < 1e-4, name
