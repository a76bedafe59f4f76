"""What stays in float32 under every policy, and that measured quantities of any size fit."""

import numpy as np
import pytest
import tensorflow as tf

from mlpf.physics.schemas import SCHEMAS
from tests.support.events import clic_like_events
from tests.support.layer_contract import under_policy
from tests.support.models import TINY_GRAPH, TINY_TRANSFORMER, tiny_model, tiny_transformer
from tests.support.number_formats import skip_if_it_aborts

POLICIES = {"mixed_bfloat16": tf.bfloat16, "mixed_float16": tf.float16}
POSITIONS = {**TINY_GRAPH, "position_scales": [20.0, 200.0], "bin_order": "projection"}
MAKE = {
    "graph": tiny_model,
    "positions": lambda: tiny_model(combined_graph_layer=POSITIONS, input_encoding="clic_helix"),
    "no node encoding": lambda: tiny_model(do_node_encoding=False, node_update_mode="concat"),
    # gelu divides by a constant in 16 bits, which is harmless; without it no division may be.
    "transformer": lambda: tiny_transformer(
        use_normalizer=False, block={**TINY_TRANSFORMER["block"], "activation": "relu"}
    ),
}
# Distances, softmax, normalisation, sums over elements, hashing, sorting: not in 16 bits.
FLOAT32_ONLY = {
    "Exp",
    "Sqrt",
    "Rsqrt",
    "Sum",
    "Mean",
    "Max",
    "RealDiv",
    "DivNoNan",
    "TopKV2",
    "Log",
    "Softmax",
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", MAKE)
def test_only_products_and_activations_are_in_16_bits(name, policy):
    skip_if_it_aborts(policy)
    model = under_policy(policy, MAKE[name])
    signature = [tf.TensorSpec((2, 32, 17), tf.float32)]
    graph = tf.function(lambda x: model(x), input_signature=signature).get_concrete_function().graph
    operations = [op for op in graph.get_operations() if any(t.dtype == POLICIES[policy] for t in op.inputs)]
    found = {op.type for op in operations}
    assert {"MatMul", "BatchMatMulV2", "Einsum"} & found, found  # there is something in 16 bits
    assert not FLOAT32_ONLY & found


def extreme_events():
    """Elements of 1e5 GeV at 1e4 mm among ordinary ones; one bin, so that rounding cannot change bins."""
    x = clic_like_events(2, 16)
    track, cluster = SCHEMAS["clic"].kinds
    is_track = x[:, :, 0] == 1
    large = {"pt": 7e4, "p": 1e5, "energy": 1e5, "position.x": 7e3, "position.y": -7e3, "position.z": 1e4}
    for kind, chosen in ((track, is_track), (cluster, ~is_track & (x[:, :, 0] != 0))):
        for column, value in large.items():
            if column in kind.features.names:
                values = x[:, :, kind.features.index(column)]
                values[chosen & (np.arange(16) % 3 == 0)] = value
    return x


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", MAKE)
def test_large_inputs_do_not_overflow(name, policy):
    skip_if_it_aborts(policy)
    x = extreme_events()
    full = MAKE[name]()
    mixed = under_policy(policy, MAKE[name])
    mixed.set_weights(full.get_weights())
    expected, found = full(x), mixed(x)
    for output, values in expected.items():
        values, close = np.asarray(values), np.asarray(found[output])
        assert np.isfinite(close).all()
        # An overflow would show as 0, in place of NaN. bfloat16 has 8 bits.
        scale = np.maximum(np.abs(values), np.median(np.abs(values)) + 0.1)
        assert (np.abs(close - values) / scale).max() < 0.1, output
