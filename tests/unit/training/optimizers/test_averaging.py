import json
from itertools import chain

import numpy as np
import pytest
from keras import ops

from mlpf.config.training_schema import OptimizerConfig, SetupConfig
from mlpf.training.optimizers.averaging import averaged_weights, averages
from mlpf.training.optimizers.build import build_optimizer
from tests.support.child_process import run_code
from tests.support.tiny_model import tiny_model


def built(**setup):
    model = tiny_model()
    section = SetupConfig(**{"ema": 0.8, "lr": 0.1, "lr_schedule": "none", "optimizer": "sgd"} | setup)
    optimizer = build_optimizer(section, OptimizerConfig(), 100)
    optimizer.build(model.trainable_variables)
    return model, optimizer


def step(model, optimizer):
    scale = 1.0 if not hasattr(optimizer, "dynamic_scale") else optimizer.dynamic_scale
    optimizer.apply([scale * ops.ones(v.shape) for v in model.trainable_variables])


def values(variables):
    return [np.array(v) for v in variables]


WRAPPERS = [{}, {"dtype": "mixed_float16"}, {"dtype": "mixed_float16", "gradient_accumulation_steps": 2}]


@pytest.mark.parametrize("setup", WRAPPERS)
def test_averages_follow_their_equation(setup):
    """In float64: a = w after the first update, then a <- 0.8 a + 0.2 w."""
    model, optimizer = built(**setup)
    expected = None
    for _ in range(4):
        for _ in range(setup.get("gradient_accumulation_steps", 1)):
            step(model, optimizer)
        now = [w.astype(np.float64) for w in values(model.trainable_variables)]
        expected = (
            now if expected is None else [0.8 * a + 0.2 * w for a, w in zip(expected, now, strict=True)]
        )

    for a, b in zip(averages(optimizer), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("setup", WRAPPERS)
def test_the_model_has_the_averages_for_a_while_and_then_its_own_weights(setup):
    model, optimizer = built(**setup)
    for _ in range(6):
        step(model, optimizer)
    before = values(model.weights)

    with averaged_weights(model, optimizer):
        inside = values(model.trainable_variables)
    for a, b in zip(inside, averages(optimizer), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(inside, values(model.trainable_variables), strict=True))
    for a, b in zip(values(model.weights), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_weights_come_back_after_an_error():
    model, optimizer = built()
    step(model, optimizer)
    step(model, optimizer)
    before = values(model.weights)

    with pytest.raises(RuntimeError, match="stop"), averaged_weights(model, optimizer):
        raise RuntimeError("stop")
    for a, b in zip(values(model.weights), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("setup", [{"ema": None}, {}, {"gradient_accumulation_steps": 3}])
def test_without_averages_the_model_stays_as_it_is(setup):
    """Keras has zeros for averages until the first update."""
    model, optimizer = built(**setup)
    for _ in range(2 if len(setup) and setup.get("ema", 1) else 0):
        step(model, optimizer)
    before = values(model.weights)

    assert averages(optimizer) is None
    with averaged_weights(model, optimizer):
        for a, b in zip(values(model.weights), before, strict=True):
            np.testing.assert_array_equal(a, b)


def test_weights_loaded_after_the_optimizer_was_built_start_the_averages():
    model, optimizer = built()
    model.set_weights([w + 1 for w in model.get_weights()])
    step(model, optimizer)

    for a, b in zip(averages(optimizer), model.trainable_variables, strict=True):
        np.testing.assert_array_equal(a, b)


TRAIN_TWICE = """
import json
import sys
import keras
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from mlpf.config.loss_schema import LossConfig
from mlpf.config.training_schema import OptimizerConfig, SetupConfig
from mlpf.data.feeding.batch_loader import BatchLoader, EventPool, length_buckets
from mlpf.training.optimizers.averaging import averaged_weights, averages
from mlpf.training.loop.distribution import Mirrored, SingleDevice
from mlpf.training.losses.total import MLPFLoss
from mlpf.training.optimizers.build import build_optimizer
from mlpf.training.loop.trainer import Trainer
from tests.support.fake_split import FakeSplit
from tests.support.tiny_model import tiny_model

def run(distribution, setup):
    pool = EventPool([(FakeSplit(22, seed=1), None)])
    edges = length_buckets([pool], 8, 1.3)
    train = BatchLoader(pool, [(pool.events_of(0), 8)], edges, seed=3)
    valid = BatchLoader(pool, [(pool.events_of(0), 8)], edges)
    with distribution.scope():
        model = tiny_model()
        optimizer = build_optimizer(SetupConfig(lr=1e-2, **setup), OptimizerConfig(), 20)
        optimizer.initial_scale = 64.0
    trainer = Trainer(model, MLPFLoss(LossConfig()), optimizer, distribution)
    records = trainer.fit(train, valid, 2)
    raw = [np.array(w) for w in model.get_weights()]
    with averaged_weights(model, optimizer):
        inside = [np.array(w) for w in model.get_weights()]
    after = [np.array(w) for w in model.get_weights()]
    assert all((a == b).all() for a, b in zip(raw, after, strict=True))
    assert any((a != b).any() for a, b in zip(raw, inside, strict=True))
    length = float(sum((w.astype(np.float64) ** 2).sum() for w in inside) ** 0.5)
    updates = int(keras.ops.convert_to_numpy(optimizer.iterations))
    return [[r["loss"], r["val_loss"], length, updates] for r in records]

setup = json.loads(sys.argv[1])
keras.config.set_dtype_policy(setup.get("dtype", "float32"))
print(json.dumps([run(SingleDevice(), setup), run(Mirrored(["CPU:0", "CPU:1"]), setup)]))
"""


def train_twice(repo_root, **setup):
    """Of one device and of two: loss, val_loss, length of the averages, updates."""
    return run_code(repo_root, TRAIN_TWICE, json.dumps(setup))


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("mixed_float16", 1e-2)])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_two_replicas_clip_accumulate_and_average_like_one_device(repo_root, dtype, tolerance, name):
    setup = {"dtype": dtype, "optimizer": name, "lr_schedule": "onecycle", "clipnorm": 1.0, "ema": 0.5}
    single, mirrored = train_twice(repo_root, **setup, gradient_accumulation_steps=2)

    assert single[0][3] == 3  # 6 batches
    for expected, found in zip(chain(*single), chain(*mirrored), strict=True):
        assert found == pytest.approx(expected, rel=tolerance)
