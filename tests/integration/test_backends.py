"""The same weights give the same outputs under every Keras backend that is installed."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from mlpf.layers.input_normalization import fit_normalization
from mlpf.models.interface import OUTPUT_NAMES
from tests.support.events import clic_like_events
from tests.support.models import (
    LEARNED_PAIRS,
    TINY_GRAPH,
    tiny_config,
    tiny_model,
    tiny_transformer,
    tiny_transformer_config,
)

# What a backend must get right: sorting and gathering of bins, both encodings, kernels, normalisation,
# attention.
CHANGES = {
    "published": {},
    "l1 distance, degrees": {
        "combined_graph_layer": {
            **TINY_GRAPH,
            "kernel": {"dist_norm": "l1"},
            "node_message": {"output_dim": 12, "normalize_degrees": True},
        }
    },
    "learned pairs": {"combined_graph_layer": LEARNED_PAIRS},
    "transformer": {"model": "transformer"},
    "transformer with queries": {"model": "transformer", "streams": "queries"},
    "all options": {
        "input_encoding": "clic_helix",
        "use_normalizer": True,
        "combined_graph_layer": {
            **TINY_GRAPH,
            "bin_order": "projection",
            "position_scales": [20.0, 200.0],
            "kernel": {"exact_diagonal": True},
        },
        "output_decoding": {"pt_as_correction": True, "energy_as_correction": "linear"},
    },
}
SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from pydantic import TypeAdapter
from mlpf.config.model_schema import AnyModelConfig
from mlpf.models import build_model
import keras

read = TypeAdapter(AnyModelConfig).validate_json
for folder in map(Path, sys.argv[1:]):
    model = build_model(read((folder / "config.json").read_text()))
    weights = np.load(folder / "weights.npz")
    model.set_weights([weights[f"w{i}"] for i in range(len(weights.files))])
    call = model
    if keras.backend.backend() == "jax":
        import jax
        call = jax.jit(lambda x: model(x))  # compiling each operation on its own takes several times longer
    outputs = call(np.load(folder / "events.npy"))
    np.savez(folder / "outputs.npz", **{n: keras.ops.convert_to_numpy(v) for n, v in outputs.items()})
print(keras.backend.backend())
"""
# float32 sums in another order; outputs in GeV have no upper bound
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


def _write_case(folder, changes, events):
    """Write configuration, weights and input of one model; return its outputs under TensorFlow."""
    folder.mkdir()
    transformer = "model" in changes
    model = (tiny_transformer if transformer else tiny_model)(**changes)
    config = (tiny_transformer_config if transformer else tiny_config)(**changes)
    if model.input_normalization is not None:
        model.input_normalization.set_statistics(fit_normalization([clic_like_events(8, 60, seed=9)]))
    (folder / "config.json").write_text(config.model_dump_json(), encoding="utf-8")
    np.savez(folder / "weights.npz", **{f"w{i}": np.asarray(w) for i, w in enumerate(model.weights)})
    np.save(folder / "events.npy", events)
    return model(events)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_outputs_agree_with_tensorflow(backend, tmp_path, repo_root):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    events = clic_like_events(2, 40)
    expected = {tmp_path / name: _write_case(tmp_path / name, c, events) for name, c in CHANGES.items()}
    # Compiling without optimising: each model runs once.
    settings = {
        "KERAS_BACKEND": backend,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }
    command = [sys.executable, "-c", SCRIPT, *expected]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=repo_root, env={**os.environ, **settings}
    )
    assert done.stdout.split()[-1:] == [backend], done.stderr
    for folder, outputs in expected.items():
        with np.load(folder / "outputs.npz") as found:
            assert set(found.files) == set(OUTPUT_NAMES)
            for name, values in outputs.items():
                np.testing.assert_allclose(found[name], np.asarray(values), **TOLERANCE)
