import numpy as np
import pytest

from mlpf.errors import CheckpointError
from mlpf.models.interface import OUTPUT_NAMES
from mlpf.models.published_weights import load_published_weights, published_names, read_published_weights
from tests.support.models import LEARNED_PAIRS, TINY_GRAPH, tiny_model, tiny_transformer
from tests.support.numpy_gnn import NumpyGNN, formula_events, write_published

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
                "kernel": {"dist_mult": 6.0, "clip_value_low": 0.6},
            }
        },
        {"num_node_messages": 2, "normalize_degrees": True, "dist_mult": 6.0, "clip_value_low": 0.6},
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


@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_agree_with_the_formulas_in_float64(variant, tmp_path):
    changes, settings = VARIANTS[variant]
    model = tiny_model(**changes)
    weights = write_published(tmp_path / "a.hdf5", model)
    assert load_published_weights(tmp_path / "a.hdf5", model) == sum(w.size for w in weights.values())
    X = formula_events()
    outputs = model(X)
    expected = [NumpyGNN(weights, {**SETTINGS, **settings})(event) for event in X]
    for name in OUTPUT_NAMES:
        reference = np.stack([e[name] for e in expected])
        assert np.abs(reference).max() > 0.1  # it says something
        np.testing.assert_allclose(np.asarray(outputs[name]), reference, atol=1e-4, rtol=0)


# Every choice of the variants that has a name for the NumPy network, and another value of it.
OTHERS = {
    "degrees, two messages, wider kernel": {
        "normalize_degrees": False,
        "num_node_messages": 1,
        "dist_mult": 0.1,
        "clip_value_low": 0.0,
    },
    "pt as correction, heads without the classes": {"pt_as_correction": False},
}


@pytest.mark.parametrize(
    ("variant", "choice"), [(v, choice) for v, other in OTHERS.items() for choice in other]
)
def test_the_comparison_notices_another_choice(variant, choice, tmp_path):
    """The formulas of another choice differ by more than ten times the tolerance."""
    changes, settings = VARIANTS[variant]
    weights = write_published(tmp_path / "a.hdf5", tiny_model(**changes))
    event, other = formula_events()[0], {choice: OTHERS[variant][choice]}
    one, two = (NumpyGNN(weights, {**SETTINGS, **settings, **more})(event) for more in ({}, other))
    assert max(np.abs(one[name] - two[name]).max() for name in OUTPUT_NAMES) > 1e-3


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


def test_a_network_with_more_than_the_published_one_is_refused():
    with pytest.raises(CheckpointError, match=r"input_normalization.*the published network has no such"):
        published_names(tiny_model(use_normalizer=True))


def test_learned_messages_have_no_published_weights():
    with pytest.raises(
        CheckpointError, match=r"with NodeMessageLearnable are known; set .*GHConvDense"
    ) as caught:
        published_names(tiny_model(combined_graph_layer=LEARNED_PAIRS))
    assert "\n" not in str(caught.value)


def test_another_network_has_no_published_weights():
    with pytest.raises(CheckpointError, match=r"not of PFNetTransformer; set parameters\.model to gnn_dense"):
        published_names(tiny_transformer())


def test_broken_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        read_published_weights(tmp_path / "gone.hdf5")
    (tmp_path / "text.hdf5").write_text("no weights", encoding="utf-8")
    with pytest.raises(CheckpointError, match="not a readable HDF5 file"):
        read_published_weights(tmp_path / "text.hdf5")
    model = tiny_model()
    write_published(tmp_path / "nan.hdf5", model, lambda w: w["ffn_cls_dense_0/bias"].fill(np.nan))
    with pytest.raises(CheckpointError, match="NaN or infinity in ffn_cls_dense_0/bias"):
        load_published_weights(tmp_path / "nan.hdf5", model)
