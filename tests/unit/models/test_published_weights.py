import numpy as np
import pytest

from mlpf.errors import CheckpointError
from mlpf.models.outputs import OUTPUT_NAMES
from mlpf.models.published_weights import load_published_weights, published_names, read_published_weights
from tests.support.models import TINY_GRAPH, tiny_model
from tests.support.numpy_gnn import NumpyGNN, write_published

# Every choice of the published configuration, and what it is called for the NumPy network.
HEADS = {f"{head}_hidden_dim": 8 for head in ("id", "charge", "pt", "eta", "phi", "energy")}
VARIANTS = {
    "published": ({}, {}),
    "concat": (
        {"node_update_mode": "concat", "num_graph_layers_id": 2},
        {"node_update_mode": "concat", "num_graph_layers_id": 2},
    ),
    "concat with skip connection, no node encoding": (
        {"node_update_mode": "concat", "skip_connection": True, "do_node_encoding": False},
        {"node_update_mode": "concat", "skip_connection": True},
    ),
    "degrees, two messages, wider kernel": (
        {
            "combined_graph_layer": {
                **TINY_GRAPH,
                "num_node_messages": 2,
                "node_message": {"output_dim": 12, "normalize_degrees": True},
                "kernel": {"dist_mult": 0.7, "clip_value_low": 0.3},
            }
        },
        {"num_node_messages": 2, "normalize_degrees": True, "dist_mult": 0.7, "clip_value_low": 0.3},
    ),
    "no norms, deeper networks": (
        {
            "combined_graph_layer": {**TINY_GRAPH, "layernorm": False, "ffn_dist_num_layers": 2},
            "output_decoding": {**HEADS, "layernorm": False, "id_num_layers": 3, "pt_num_layers": 2},
        },
        {},
    ),
    "pt as correction, heads without the classes": (
        {
            "output_decoding": {
                **HEADS,
                "pt_as_correction": True,
                "regression_use_classification": False,
                "id_num_layers": 2,
                "id_dim_decrease": False,
            }
        },
        {"pt_as_correction": True, "regression_use_classification": False},
    ),
}
SETTINGS = {"bin_size": 16, "num_graph_layers_id": 1, "num_graph_layers_reg": 1, "num_node_messages": 1}


def events(num_events=2, num_elements=50):
    """Elements of order one from a formula: neither momenta that dwarf the rest nor random numbers."""
    index = np.arange(num_events * num_elements * 17).reshape(num_events, num_elements, 17)
    X = np.sin(0.37 * index + 0.1 * (index % 17)).astype(np.float32)
    X[..., 0] = 1 + (index[..., 0] // 17 % 3 == 0)
    X[1, num_elements - 8 :] = 0
    return X


@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_agree_with_the_formulas_in_float64(variant, tmp_path):
    changes, settings = VARIANTS[variant]
    model = tiny_model(**changes)
    weights = write_published(tmp_path / "a.hdf5", model)
    assert load_published_weights(tmp_path / "a.hdf5", model) == sum(w.size for w in weights.values())
    X = events()
    outputs = model(X)
    expected = [NumpyGNN(weights, {**SETTINGS, **settings})(event) for event in X]
    for name in OUTPUT_NAMES:
        reference = np.stack([e[name] for e in expected])
        assert np.abs(reference).max() > 0.1  # it says something
        np.testing.assert_allclose(np.asarray(outputs[name]), reference, atol=1e-4, rtol=0)


def test_missing_unexpected_and_other_weights_are_listed(tmp_path):
    model = tiny_model()

    def change(weights):
        weights["ffn_cls_dense_7/kernel"] = weights.pop("ffn_cls_dense_0/kernel")
        weights["ffn_pt_dense_0/bias"] = np.zeros(3, np.float32)

    write_published(tmp_path / "a.hdf5", model, change)
    before = [np.asarray(w) for w in model.weights]
    with pytest.raises(CheckpointError) as caught:
        load_published_weights(tmp_path / "a.hdf5", model)
    message = str(caught.value)
    assert "1 missing: ffn_cls_dense_0/kernel" in message
    assert "1 unexpected: ffn_cls_dense_7/kernel" in message
    assert "1 of another shape: ffn_pt_dense_0/bias (3,) for (8,)" in message
    assert all(np.array_equal(a, np.asarray(w)) for a, w in zip(before, model.weights, strict=True))


def test_a_network_with_more_than_the_published_one_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"input_normalization.*the published network has no such"):
        published_names(tiny_model(use_normalizer=True))


def test_broken_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        read_published_weights(tmp_path / "gone.hdf5")
    (tmp_path / "text.hdf5").write_text("no weights")
    with pytest.raises(CheckpointError, match="not a readable HDF5 file"):
        read_published_weights(tmp_path / "text.hdf5")
    model = tiny_model()
    write_published(tmp_path / "nan.hdf5", model, lambda w: w["ffn_cls_dense_0/bias"].fill(np.nan))
    with pytest.raises(CheckpointError, match="NaN or infinity in ffn_cls_dense_0/bias"):
        load_published_weights(tmp_path / "nan.hdf5", model)
