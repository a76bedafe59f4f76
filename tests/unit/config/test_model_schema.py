"""Every key of the model section changes the network: its weights or, for the same weights, its outputs."""

import keras
import numpy as np
import pytest

from mlpf.config.documents import section_of
from mlpf.config.explain import explain
from mlpf.config.model_schema import VARIANTS, GNNConfig, TransformerConfig
from mlpf.layers.input_normalization import fit_normalization
from mlpf.models import build_model
from mlpf.models.interface import concatenate_outputs
from tests.support.events import clic_like_events
from tests.support.models import HEADS, tiny_config, tiny_transformer_config

GRAPH, DECODING = "combined_graph_layer.", "output_decoding."
CHANGES = {
    "input_encoding": "clic_helix",
    "use_normalizer": True,
    "activation": "tanh",
    "node_encoding_hidden_dim": 9,
    "node_update_mode": "concat",
    "num_graph_layers_id": 2,
    "num_graph_layers_reg": 2,
    f"{GRAPH}bin_size": 8,
    f"{GRAPH}max_num_bins": 10,
    f"{GRAPH}distance_dim": 5,
    f"{GRAPH}layernorm": False,
    f"{GRAPH}dropout": 0.5,
    f"{GRAPH}dist_activation": "tanh",
    f"{GRAPH}ffn_dist_num_layers": 2,
    f"{GRAPH}ffn_dist_hidden_dim": 9,
    f"{GRAPH}kernel.dist_mult": 1.0,
    f"{GRAPH}kernel.clip_value_low": 0.9,
    f"{GRAPH}kernel.dist_norm": "l1",
    f"{GRAPH}num_node_messages": 2,
    f"{GRAPH}node_message.output_dim": 16,
    f"{GRAPH}node_message.activation": "tanh",
    f"{GRAPH}node_message.normalize_degrees": True,
    f"{GRAPH}activation": "tanh",
    f"{GRAPH}bin_order": "projection",
    f"{GRAPH}position_scales": [20.0, 200.0],
    f"{DECODING}activation": "tanh",
    f"{DECODING}regression_use_classification": False,
    f"{DECODING}dropout": 0.5,
    f"{DECODING}layernorm": False,
    f"{DECODING}pt_as_correction": True,
    f"{DECODING}energy_as_correction": "linear",
    **{f"{DECODING}{head}_hidden_dim": 9 for head in HEADS},
    **{f"{DECODING}{head}_num_layers": 2 for head in HEADS},
}
# These need another choice beside them to have an effect; the value is (what beside, the change).
TOGETHER = {
    "do_node_encoding": ({"node_update_mode": "concat"}, False),
    "skip_connection": ({"node_update_mode": "concat"}, True),
    **{f"{DECODING}{head}_dim_decrease": ({f"{DECODING}{head}_num_layers": 2}, False) for head in HEADS},
}
# Changes rounding alone: see tests/unit/layers/test_pair_kernels.py.
ROUNDING = {f"{GRAPH}kernel.exact_diagonal"}
# Which variant of a section: these go together.
TRAINABLE = {
    f"{GRAPH}kernel": {"type": "NodePairTrainableKernel"},
    f"{GRAPH}node_message": {"type": "NodeMessageLearnable", "output_dim": 12},
}
VARIANT_NAMES = {"model", f"{GRAPH}kernel.type", f"{GRAPH}node_message.type"}
# Keys of these variants.
TRAINABLE_CHANGES = {
    f"{GRAPH}kernel.node_dim": 5,
    f"{GRAPH}kernel.node_hidden_dim": 9,
    f"{GRAPH}kernel.pair_hidden_dim": 9,
    f"{GRAPH}kernel.num_channels": 3,
    f"{GRAPH}kernel.activation": "tanh",
    f"{GRAPH}node_message.output_dim": 16,
    f"{GRAPH}node_message.hidden_dim": 9,
    f"{GRAPH}node_message.num_layers": 2,
    f"{GRAPH}node_message.activation": "tanh",
}
# Changes memory alone: see tests/integration/test_gradient_checkpointing.py.
MEMORY = {"gradient_checkpointing"}


# The same for the transformer. Its heads are those of the graph network, tested above.
TRANSFORMER_CHANGES = {
    "input_encoding": "clic_helix",
    "use_normalizer": False,
    "hidden_dim": 12,
    "num_layers_encoder": 2,
    "num_layers_decoder_id": 2,
    "num_layers_decoder_reg": 2,
    "streams": "queries",
    "seed": 7,
    "block.num_heads": 4,
    "block.num_features": 14,
    "block.ffn_dim": 11,
    "block.kernel": "elu",
    "block.activation": "tanh",
    "block.dropout": 0.5,
    # Every step: the first training pass already has other directions.
    "block.redraw_interval": 1,
}
# Changes batches, not the network: tests/unit/workflows/test_train.py.
BATCHES = {"bucket_size"}


def config(changes, tiny=tiny_config):
    data = tiny().model_dump()
    for dotted, value in changes.items():
        node = data
        *parents, last = dotted.split(".")
        for key in parents:
            node = node[key]
        node[last] = value
    return type(tiny()).model_validate(data)


def fingerprint(changes, tiny=tiny_config):
    """Shapes of the weights, and outputs in training mode (dropout) for seeded weights."""
    keras.utils.set_random_seed(1)
    model = build_model(config(changes, tiny))
    if model.input_normalization is not None:
        model.input_normalization.set_statistics(fit_normalization([clic_like_events(4, 40, seed=9)]))
    outputs = np.asarray(concatenate_outputs(model(clic_like_events(1, 40), training=True)))
    return [tuple(w.shape) for w in model.weights], outputs


def differ(first, second):
    return first[0] != second[0] or float(np.abs(first[1] - second[1]).max()) > 1e-6


def leaves(model, prefix=""):
    """Dotted keys of a section that are not sections themselves."""
    for name, info in model.model_fields.items():
        section = section_of(info.annotation)
        if section is None:
            yield prefix + name
            continue
        for variant in VARIANTS[name].values() if name in VARIANTS else [section]:
            yield from leaves(variant, f"{prefix}{name}.")


def test_every_key_is_listed_here():
    known = {*CHANGES, *TOGETHER, *ROUNDING, *MEMORY, *VARIANT_NAMES, *TRAINABLE_CHANGES}
    assert set(leaves(GNNConfig)) == known
    heads = {key for key in leaves(TransformerConfig) if key.startswith(DECODING)}
    assert heads == {key for key in leaves(GNNConfig) if key.startswith(DECODING)}
    assert set(leaves(TransformerConfig)) == {*TRANSFORMER_CHANGES, *BATCHES, *MEMORY, *heads, "model"}


def test_every_key_is_explained():
    explained = {k.key.removeprefix("parameters.") for k in explain("parameters")}
    assert {*leaves(GNNConfig), *leaves(TransformerConfig)} <= explained


@pytest.mark.parametrize("key", TRANSFORMER_CHANGES)
def test_key_changes_the_transformer(key):
    first = fingerprint({}, tiny_transformer_config)
    assert differ(first, fingerprint({key: TRANSFORMER_CHANGES[key]}, tiny_transformer_config))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match=r"block\.num_heads=3 does not divide hidden_dim=8"):
        config({"block.num_heads": 3}, tiny_transformer_config)


@pytest.mark.parametrize("key", CHANGES)
def test_key_changes_the_network(key):
    assert differ(fingerprint({}), fingerprint({key: CHANGES[key]}))


@pytest.mark.parametrize(("key", "other"), [("pt_as_correction", True), ("energy_as_correction", "linear")])
def test_exponential_corrections_are_a_third_form(key, other):
    exponential = fingerprint({f"{DECODING}{key}": "exponential"})
    assert differ(fingerprint({}), exponential)
    assert differ(fingerprint({f"{DECODING}{key}": other}), exponential)


@pytest.mark.parametrize("key", TOGETHER)
def test_key_changes_the_network_beside_another(key):
    beside, value = TOGETHER[key]
    assert differ(fingerprint(beside), fingerprint({**beside, key: value}))


def test_the_trainable_kernel_with_its_messages_is_another_network():
    assert differ(fingerprint({}), fingerprint(TRAINABLE))


@pytest.mark.parametrize("key", TRAINABLE_CHANGES)
def test_key_of_a_variant_changes_the_network(key):
    assert differ(fingerprint(TRAINABLE), fingerprint({**TRAINABLE, key: TRAINABLE_CHANGES[key]}))


@pytest.mark.parametrize("key", TRAINABLE)
def test_a_kernel_needs_its_own_messages(key):
    needed = {
        f"{GRAPH}kernel": r"NodePairTrainableKernel needs node_message\.type=NodeMessageLearnable, not GH",
        f"{GRAPH}node_message": r"NodePairGaussianKernel needs node_message\.type=GHConvDense, not NodeMess",
    }
    with pytest.raises(ValueError, match=rf"kernel\.type={needed[key]}"):
        config({key: TRAINABLE[key]})


def test_the_trainable_kernel_has_no_distances_to_multiply():
    with pytest.raises(ValueError, match=r"position_scales .* set kernel\.type=NodePairGaussianKernel"):
        config({**TRAINABLE, f"{GRAPH}position_scales": [20.0]})


def test_scales_must_divide_the_width():
    with pytest.raises(ValueError, match="5 scales, which do not divide"):
        config({f"{GRAPH}position_scales": [1.0, 2.0, 3.0, 4.0, 5.0]})


def test_additive_updates_without_node_encoding_are_refused():
    with pytest.raises(ValueError, match="do_node_encoding: true"):
        config({"do_node_encoding": False})


def test_skip_connection_without_effect_is_refused():
    with pytest.raises(ValueError, match="skip_connection"):
        config({"skip_connection": True})
