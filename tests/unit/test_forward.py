"""Every engine gives the same outputs under the same names, from as few traces as it can."""

import os
import subprocess
import sys

import numpy as np
import pytest

from mlpf import forward
from mlpf.models.interface import OUTPUT_NAMES
from tests.support.events import clic_like_events
from tests.support.models import tiny_model, tiny_transformer

SHAPES = ((1, 32), (3, 32), (2, 48), (1, 32))
# How often the code of the layers runs for those four batches, of which three have a shape of their own.
ENGINES = {"eager_forward": 4, "graph_forward": 1, "xla_forward": 3}


class Counted:
    """A model that counts how often its code runs."""

    def __init__(self, model):
        self._model = model
        self.num_input_features = model.num_input_features
        self.num_calls = 0

    def __call__(self, X, training):
        assert not training
        self.num_calls += 1
        return self._model(X, training=training)


@pytest.mark.parametrize("build", [tiny_model, tiny_transformer])
@pytest.mark.parametrize(("name", "calls"), ENGINES.items())
def test_outputs_are_arrays_of_the_model_and_shapes_do_not_trace_again(build, name, calls):
    model = build(input_encoding="clic_helix", use_normalizer=True)
    model.input_normalization.set_statistics(
        {"scale": np.ones((3, 16)), "mean": np.zeros((3, 16)), "std": 2 * np.ones((3, 16))}
    )
    counted = Counted(model)
    run = getattr(forward, name)(counted)
    for seed, shape in enumerate(SHAPES):
        X = clic_like_events(*shape, seed=seed)
        found = run(X)
        assert set(found) == set(OUTPUT_NAMES)
        for output, values in model(X, training=False).items():
            assert isinstance(found[output], np.ndarray)
            assert found[output].dtype == np.float32
            # Sums of float32 in another order; inputs are normalised, so outputs are of order 10.
            np.testing.assert_allclose(found[output], values, rtol=1e-4, atol=1e-4)
    assert counted.num_calls == calls


def test_a_graph_follows_the_weights():
    model = tiny_model()
    run, X = forward.graph_forward(model), clic_like_events(1, 32)
    before = run(X)["cls"]
    model.set_weights([0.5 * weight for weight in model.get_weights()])
    after = run(X)["cls"]
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, model(X)["cls"], rtol=1e-4, atol=1e-4)


STRATEGY = """
import numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
from mlpf.forward import graph_forward
from tests.support.events import clic_like_events
from tests.support.models import tiny_model
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    mirrored = tiny_model()
X = clic_like_events(2, 32)
found, expected = graph_forward(mirrored)(X), graph_forward(tiny_model())(X)
assert type(mirrored.trainable_variables[0].value).__name__ == "MirroredVariable"
for name, values in expected.items():
    np.testing.assert_array_equal(found[name], values)
"""


def test_a_model_on_several_devices_runs_on_one(repo_root):
    environment = os.environ | {"PYTHONPATH": str(repo_root), "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        [sys.executable, "-c", STRATEGY], cwd=repo_root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
