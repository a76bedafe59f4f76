"""The fast network gives what the obvious form of it gives."""

import numpy as np
import pytest
import tensorflow as tf

from mlpf.models.interface import OUTPUT_NAMES
from tests.support.events import clic_like_events
from tests.support.models import TINY_GRAPH, tiny_model
from tests.support.straightforward import StraightforwardNetwork

VARIANTS = {
    "published": {},
    "two messages, degrees, floor": {
        "combined_graph_layer": {
            **TINY_GRAPH,
            "num_node_messages": 2,
            "node_message": {"output_dim": 12, "normalize_degrees": True},
            "kernel": {"clip_value_low": 0.05, "exact_diagonal": True},
        }
    },
    "positions": {
        "input_encoding": "clic_helix",
        "combined_graph_layer": {
            **TINY_GRAPH,
            "bin_order": "projection",
            "position_scales": [20.0, 200.0],
            "kernel": {"exact_diagonal": True, "clip_value_low": 0.05},
        },
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("num_elements", [7, 16, 60])
def test_outputs_and_gradients_agree_with_the_obvious_form(variant, num_elements):
    ours = tiny_model(**VARIANTS[variant])
    theirs = StraightforwardNetwork.from_config(ours.get_config())
    theirs.build((None, None, 17))
    theirs.set_weights(ours.get_weights())
    x = clic_like_events(2, num_elements)
    found = []
    for model in (ours, theirs):
        with tf.GradientTape() as tape:
            outputs = model(x)
            loss = sum(tf.reduce_mean(tf.math.asinh(outputs[name])) for name in OUTPUT_NAMES)
        weights = [w.value for w in model.trainable_weights]
        gradients = tape.gradient(loss, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        found.append((outputs, [np.asarray(tf.convert_to_tensor(g)) for g in gradients]))
    for name in OUTPUT_NAMES:
        # float32 sums in another order; momenta have no upper bound
        np.testing.assert_allclose(found[0][0][name], found[1][0][name], rtol=1e-4, atol=1e-4)
    for a, b in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * max(1.0, np.abs(b).max()))
