"""The graph network against the same formulas in NumPy and float64: options beyond the published files.

Those of published files are compared in ``tests/unit/models/test_published_weights.py``, through such a file.
"""

import numpy as np
import pytest

from mlpf.layers.input_normalization import fit_normalization
from mlpf.models.interface import OUTPUT_NAMES
from tests.support.models import HEADS, TINY_GRAPH, tiny_model
from tests.support.numpy_gnn import NumpyGNN, assign_formula_weights, formula_events

SETTINGS = {"bin_size": 16, "num_graph_layers_id": 1, "num_graph_layers_reg": 1, "num_node_messages": 1}
KERNEL = {
    "type": "NodePairTrainableKernel",
    "node_dim": 3,
    "node_hidden_dim": 7,
    "pair_hidden_dim": 6,
    "num_channels": 2,
}
MESSAGE = {"type": "NodeMessageLearnable", "output_dim": 12, "hidden_dim": 9}
STATISTICS = fit_normalization([formula_events(4)])
WIDTHS = {f"{head}_hidden_dim": 8 for head in HEADS}


def graph(**changes):
    return {"combined_graph_layer": {**TINY_GRAPH, **changes}}


# Name -> (changes of the tiny configuration, what they are called for the NumPy network).
VARIANTS = {
    "l1 distance": (
        graph(kernel={"dist_norm": "l1", "dist_mult": 0.5}),
        {"dist_norm": "l1", "dist_mult": 0.5},
    ),
    "l1 distance, lower bound, exact diagonal": (
        graph(kernel={"dist_norm": "l1", "dist_mult": 2.0, "clip_value_low": 0.7, "exact_diagonal": True}),
        {"dist_norm": "l1", "dist_mult": 2.0, "clip_value_low": 0.7},
    ),
    "trainable kernel": (graph(kernel=KERNEL, node_message=MESSAGE), {}),
    "trainable kernel, two messages, several graph layers, other activations": (
        {
            **graph(
                kernel={**KERNEL, "activation": "tanh"},
                node_message={**MESSAGE, "activation": "silu"},
                num_node_messages=2,
            ),
            "num_graph_layers_id": 2,
        },
        {
            "num_node_messages": 2,
            "num_graph_layers_id": 2,
            "activations": {"kernel": "tanh", "message": "silu"},
        },
    ),
    "trainable kernel, concat, no node encoding": (
        {
            **graph(kernel=KERNEL, node_message=MESSAGE, layernorm=False),
            "node_update_mode": "concat",
            "skip_connection": True,
            "do_node_encoding": False,
        },
        {"node_update_mode": "concat", "skip_connection": True},
    ),
    "other activations": (
        {
            "activation": "tanh",
            **graph(
                activation="selu",
                kernel={"dist_mult": 2.0},
                dist_activation="linear",
                node_message={"output_dim": 12, "activation": "silu"},
            ),
            "output_decoding": {**WIDTHS, "activation": "relu"},
        },
        {
            "dist_mult": 2.0,
            "activations": {
                "node": "tanh",
                "graph": "selu",
                "dist": "linear",
                "message": "silu",
                "heads": "relu",
            },
        },
    ),
    "every head of its own size": (
        {
            "output_decoding": {
                **{f"{head}_hidden_dim": 5 + 2 * i for i, head in enumerate(HEADS)},
                **{f"{head}_num_layers": 1 + (i + 1) % 3 for i, head in enumerate(HEADS)},
                **{f"{head}_dim_decrease": i % 2 == 0 for i, head in enumerate(HEADS)},
            }
        },
        {},
    ),
    "exact diagonal": (graph(kernel={"exact_diagonal": True}), {}),
    "normaliser": ({"use_normalizer": True}, {"statistics": STATISTICS}),
    "linear energy": (
        {"output_decoding": {**WIDTHS, "energy_as_correction": "linear"}},
        {"energy_as_correction": "linear"},
    ),
    "more, wider graph layers": (
        {
            **graph(
                ffn_dist_hidden_dim=11, ffn_dist_num_layers=3, distance_dim=6, node_message={"output_dim": 10}
            ),
            "node_encoding_hidden_dim": 9,
            "num_graph_layers_reg": 2,
        },
        {"num_graph_layers_reg": 2},
    ),
}


def outputs(variant):
    """Outputs of our network and of the NumPy one, for the same weights and events."""
    changes, settings = VARIANTS[variant]
    model = tiny_model(**changes)
    weights = assign_formula_weights(model)
    if model.input_normalization is not None:
        model.input_normalization.set_statistics(settings["statistics"])
    X = formula_events()
    found = {name: np.asarray(value) for name, value in model(X).items()}
    reference = [NumpyGNN(weights, {**SETTINGS, **settings})(event) for event in X]
    return found, {name: np.stack([event[name] for event in reference]) for name in OUTPUT_NAMES}


@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_agree_with_the_formulas_in_float64(variant):
    found, expected = outputs(variant)
    for name in OUTPUT_NAMES:
        assert np.abs(expected[name]).max() > 0.1  # it says something
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4, rtol=0)


OTHER = VARIANTS["other activations"][1]["activations"]


@pytest.mark.parametrize(
    ("variant", "other"),
    [
        ("l1 distance", {"dist_norm": "l2"}),
        ("l1 distance", {"dist_mult": 0.1}),
        ("l1 distance, lower bound, exact diagonal", {"clip_value_low": 0.0}),
        ("normaliser", {"statistics": {**STATISTICS, "scale": 2 * STATISTICS["scale"]}}),
        *(("other activations", {"activations": {**OTHER, part: "elu"}}) for part in OTHER),
    ],
)
def test_the_comparison_notices_another_choice(variant, other):
    """The formulas of another choice differ by more than ten times the tolerance."""
    changes, settings = VARIANTS[variant]
    weights = assign_formula_weights(tiny_model(**changes))
    event = formula_events()[0]
    one, two = (NumpyGNN(weights, {**SETTINGS, **settings, **more})(event) for more in ({}, other))
    assert max(np.abs(one[name] - two[name]).max() for name in OUTPUT_NAMES) > 1e-3


def test_dropout_acts_in_training_only():
    """With dropout in graph layers and heads, outputs outside training are those of the formulas."""
    changes = {**graph(dropout=0.4), "output_decoding": {**WIDTHS, "dropout": 0.4}}
    model = tiny_model(**changes)
    weights = assign_formula_weights(model)
    X = formula_events()
    found, training = model(X), model(X, training=True)
    reference = [NumpyGNN(weights, SETTINGS)(event) for event in X]
    for name in OUTPUT_NAMES:
        expected = np.stack([event[name] for event in reference])
        np.testing.assert_allclose(np.asarray(found[name]), expected, atol=1e-4, rtol=0)
        assert np.abs(np.asarray(training[name]) - expected).max() > 1e-2


@pytest.mark.parametrize("where", ["graph", "heads"])
def test_dropout_acts_where_it_is_asked_for(where):
    """Dropout of the graph layers reaches all heads; that of the heads leaves h_id and h_reg alone."""
    changes = graph(dropout=0.4) if where == "graph" else graph()
    changes["output_decoding"] = {**WIDTHS, "dropout": 0.4 if where == "heads" else 0.0}
    model = tiny_model(**changes)
    assign_formula_weights(model)
    rates = {layer.rate for stack in (model.cg_id, model.cg_reg) for g in stack for layer in g.dropouts}
    assert rates == ({0.4} if where == "graph" else set())
    X = formula_events()
    assert np.abs(np.asarray(model(X)["cls"]) - np.asarray(model(X, training=True)["cls"])).max() > 1e-2
