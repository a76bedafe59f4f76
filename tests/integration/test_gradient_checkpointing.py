"""parameters.gradient_checkpointing: the same numbers from less memory."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.support.events import clic_like_events
from tests.support.layer_contract import under_policy
from tests.support.models import TINY_GRAPH, TINY_NETWORK, TINY_TRANSFORMER, tiny_model, tiny_transformer
from tests.support.number_formats import skip_if_it_aborts

BLOCK = {**TINY_TRANSFORMER["block"], "dropout": 0.2, "redraw_interval": 2}
MAKE = {
    "graph": lambda **c: tiny_model(combined_graph_layer={**TINY_GRAPH, "dropout": 0.2}, **c),
    "concat": lambda **c: tiny_model(node_update_mode="concat", num_graph_layers_id=2, **c),
    "positions": lambda **c: tiny_model(
        combined_graph_layer={**TINY_GRAPH, "position_scales": [20.0, 200.0]}, **c
    ),
    "stacks": lambda **c: tiny_transformer(block=BLOCK, use_normalizer=False, **c),
    "queries": lambda **c: tiny_transformer(block=BLOCK, use_normalizer=False, streams="queries", **c),
}


def training_step(model):
    """A graph from x to outputs and gradients, and the number of its operations before the gradients."""
    num_forward = []

    def step(x):
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            loss = sum(tf.reduce_mean(tf.abs(value)) for value in outputs.values())
        num_forward.append(len(x.graph.get_operations()))
        zero = tf.UnconnectedGradients.ZERO
        weights = [w.value for w in model.trainable_weights]
        gradients = tape.gradient(loss, weights, unconnected_gradients=zero)
        return list(outputs.values()), [tf.convert_to_tensor(g) for g in gradients]

    return tf.function(step, autograph=False), num_forward


@pytest.mark.parametrize("name", MAKE)
def test_outputs_gradients_and_states_do_not_change(name):
    x = tf.constant(clic_like_events(2, 40))
    models = [MAKE[name](gradient_checkpointing=on) for on in (False, True)]
    results = []
    for model in models:
        step = training_step(model)[0]
        step(x)  # the second one sees states that were advanced
        results.append([np.array(t) for group in step(x) for t in group])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6 * max(1.0, np.abs(a).max()))
    assert [w.path for w in models[0].weights] == [w.path for w in models[1].weights]
    for a, b in zip(models[0].variables, models[1].variables, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("name", ["graph", "stacks"])
def test_outputs_do_not_change_in_mixed_precision(name, policy):
    skip_if_it_aborts(policy)
    x = tf.constant(clic_like_events(2, 16))
    found = []
    for on in (False, True):
        model = under_policy(policy, lambda on=on: MAKE[name](gradient_checkpointing=on))
        found.append(training_step(model)[0](x))
    for one, other in zip(*found, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.dtype == tf.float32
            # One half-precision rounding of the largest: sums may run in another order.
            np.testing.assert_allclose(a, b, atol=1e-2 * max(1.0, float(tf.reduce_max(tf.abs(a)))), rtol=0)


def kept_bytes(model, x):
    """Size of what the backward pass reads of the forward pass: the memory that checkpointing is about."""
    step, num_forward = training_step(model)
    graph = step.get_concrete_function(tf.TensorSpec(x.shape, tf.float32)).graph
    operations = graph.get_operations()
    first = {op.name for op in operations[: num_forward[0]]}
    kept = {t.name: t for op in operations[num_forward[0] :] for t in op.inputs if t.op.name in first}
    sizes = [t.dtype.size * (t.shape.num_elements() or 0) for t in kept.values() if t.dtype != tf.resource]
    return sum(sizes)


def test_less_is_kept_for_the_backward_pass():
    x = clic_like_events(1, 256)
    layers = {"num_graph_layers_id": 3, "num_graph_layers_reg": 2}
    plain, checkpointed = (
        kept_bytes(tiny_model(gradient_checkpointing=on, **layers), x) for on in (False, True)
    )
    assert checkpointed < 0.4 * plain
    layers = {"num_layers_encoder": 3}
    plain, checkpointed = (
        kept_bytes(tiny_transformer(gradient_checkpointing=on, **layers), x) for on in (False, True)
    )
    assert checkpointed < 0.4 * plain


# Two training steps with and without checkpointing, from the same weights and seeds, in a process of JAX.
JAX_SCRIPT = """
import json, sys
import jax, keras, numpy as np
from pydantic import TypeAdapter
from mlpf.config.model_schema import AnyModelConfig
from mlpf.models import build_model
from tests.support.events import clic_like_events

x = clic_like_events(2, 20)

def steps(config):
    keras.utils.set_random_seed(1)
    model = build_model(TypeAdapter(AnyModelConfig).validate_python(config))

    def loss(trained, states, x):
        outputs, states = model.stateless_call(trained, states, x, training=True)
        return sum(abs(value).mean() for value in outputs.values()), (outputs, states)

    step = jax.value_and_grad(loss, has_aux=True)
    trained = [v.value for v in model.trainable_variables]
    states = [v.value for v in model.non_trainable_variables]
    operations = str(jax.make_jaxpr(step)(trained, states, x))
    num_recomputed = sum(operations.count(name) for name in ("checkpoint[", "remat2["))  # by version of JAX
    compiled, results = jax.jit(step), []
    for _ in range(2):
        (_, (outputs, states)), gradients = compiled(trained, states, x)
        results.append([np.asarray(a, np.float64) for a in jax.tree.leaves((outputs, gradients, states))])
    return results, num_recomputed

config = json.loads(sys.argv[1])
(plain, none), (again, some) = (steps({**config, "gradient_checkpointing": on}) for on in (False, True))
def distance(one, other):
    return max(np.abs(a - b).max() / max(1.0, np.abs(a).max()) for a, b in zip(one, other, strict=True))
print(json.dumps({
    "difference": max(distance(*pair) for pair in zip(plain, again, strict=True)),
    "between_steps": distance(plain[0][:7], plain[1][:7]),
    "recomputed": [none, some],
}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["graph", "stacks"])
def test_jax_draws_the_same_dropout_in_both_passes(name, repo_root):
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    config = {
        "graph": {**TINY_NETWORK, "combined_graph_layer": {**TINY_GRAPH, "dropout": 0.2}},
        "stacks": {**TINY_TRANSFORMER, "block": BLOCK},
    }[name]
    # Compiling without optimising: each step runs twice.
    settings = {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }
    done = subprocess.run(
        [sys.executable, "-c", JAX_SCRIPT, json.dumps(config)],
        capture_output=True,
        text=True,
        cwd=repo_root,
        env={**os.environ, **settings},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["difference"] < 1e-5  # sums of float32 in another order
    assert found["between_steps"] > 1e-2  # dropout was drawn anew
    assert found["recomputed"][0] == 0
    assert found["recomputed"][1] > 0
