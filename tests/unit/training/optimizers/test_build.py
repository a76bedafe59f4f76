import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from mlpf.config.training_schema import OptimizerConfig, SetupConfig
from mlpf.training.optimizers.build import build_optimizer

# Lion takes signs only: which one depends on its momentum here.
CHANGING_SIGN = (1.0, -0.05, -0.08, 0.2)


def trajectory(setup, optimizer, steps=4):
    """A weight under gradients of changing size."""
    weight = keras.Variable(np.array([1.0, -2.0], np.float32))
    built = build_optimizer(SetupConfig.model_validate(setup), OptimizerConfig.model_validate(optimizer), 10)
    built.build([weight])
    for i in range(steps):
        built.apply([ops.array([0.5 + (i == 0), CHANGING_SIGN[i % 4]])])
    return ops.convert_to_numpy(weight)


@pytest.mark.parametrize(
    ("setup", "optimizer"),
    [
        ({"lr": 1e-2}, {}),
        ({"lr_schedule": "none"}, {}),
        ({"lr_warmup_steps": 3}, {}),
        ({"optimizer": "sgd"}, {}),
        ({"optimizer": "adamw"}, {}),
        ({"optimizer": "lamb"}, {}),
        ({"optimizer": "lion"}, {}),
        ({"lr_schedule": "onecycle"}, {}),
        ({}, {"adam": {"beta_1": 0.5}}),
        ({}, {"adam": {"beta_2": 0.5}}),
        ({}, {"adam": {"amsgrad": True, "beta_2": 0.5}}),
    ],
)
def test_setup_and_adam_keys_change_the_result(setup, optimizer):
    assert np.abs(trajectory(setup, optimizer) - trajectory({}, {})).max() > 1e-6


def test_amsgrad_alone_changes_the_result():
    with_it = trajectory({}, {"adam": {"amsgrad": True, "beta_2": 0.5}})

    assert np.abs(with_it - trajectory({}, {"adam": {"beta_2": 0.5}})).max() > 1e-6


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("adamw", {"weight_decay": 0.5}),
        ("adamw", {"beta_1": 0.5, "weight_decay": 0.01}),
        ("sgd", {"momentum": 0.1}),
        ("sgd", {"nesterov": True}),
        ("lamb", {"beta_1": 0.5}),
        ("lamb", {"beta_2": 0.5}),
        ("lamb", {"weight_decay": 0.5}),
        ("lion", {"beta_1": 0.02}),
        ("lion", {"beta_2": 0.02}),
        ("lion", {"weight_decay": 0.5}),
    ],
)
def test_keys_of_other_optimizers_change_the_result(name, section):
    changed = trajectory({"optimizer": name}, {name: section})

    assert np.abs(changed - trajectory({"optimizer": name}, {})).max() > 1e-6


def one_step(gradients, **setup):
    """Where weights at 0 are after one update of plain gradient descent with learning rate 1."""
    variables = [keras.Variable(np.zeros(1, np.float32)) for _ in gradients]
    section = SetupConfig(optimizer="sgd", lr=1.0, lr_schedule="none", **setup)
    built = build_optimizer(section, OptimizerConfig(), 1)
    built.build(variables)
    built.apply([ops.array([g]) for g in gradients])
    return [float(v.numpy()[0]) for v in variables]


def test_clipping_scales_all_gradients_by_the_global_norm():
    np.testing.assert_allclose(one_step([3.0, 4.0], clipnorm=1.0), [-0.6, -0.8], rtol=0, atol=1e-6)


def test_small_gradients_are_not_clipped():
    np.testing.assert_allclose(one_step([0.3, 0.4], clipnorm=1.0), [-0.3, -0.4], rtol=0, atol=1e-7)


CYCLE = {"warmup_ratio": 0.5, "momentum_high": 0.8, "momentum_low": 0.4}
# One-cycle of 4 updates with the peak 0.5 in the middle: 0.5 / 25, half way, peak, half way down to 0.5e-5.
MOMENTA = (0.8, 0.6, 0.4, 0.6)
RATES = (0.02, 0.26, 0.5, 0.2500025)


def reference(name, gradients):
    """The weight after updates from 1, in float64: the equations of each optimizer without weight decay."""
    w, m, v, decay = 1.0, 0.0, 0.0, {"adam": 0.999, "adamw": 0.999, "lamb": 0.999, "lion": 0.99}.get(name)
    for t, (g, b, r) in enumerate(zip(gradients, MOMENTA, RATES, strict=True), start=1):
        if name == "sgd":
            m = b * m - r * g
            w += m
        elif name == "lion":
            w -= r * np.sign(b * m + (1 - b) * g)
            m = decay * m + (1 - decay) * g
        else:
            m, v = b * m + (1 - b) * g, decay * v + (1 - decay) * g * g
            update = (m / (1 - b**t)) / (np.sqrt(v / (1 - decay**t)) + 1e-7)
            w -= r * update * (abs(w / update) if name == "lamb" else 1.0)
    return w


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "lamb", "lion"])
def test_one_cycle_changes_rate_and_momentum_inside_the_graph(name):
    gradients = (0.5, -0.1, 0.3, 0.2)
    section = {} if name in ("adam", "sgd") else {"weight_decay": 0.0}
    weight = keras.Variable(np.array([1.0], np.float32))
    built = build_optimizer(
        SetupConfig(optimizer=name, lr=0.5, lr_schedule="onecycle"),
        OptimizerConfig.model_validate({name: section, "onecycle": CYCLE}),
        4,
    )
    built.build([weight])
    step = tf.function(lambda g: built.apply([g]), autograph=False)
    for g in gradients:
        step(tf.constant([g]))

    assert float(weight.numpy()[0]) == pytest.approx(reference(name, gradients), abs=2e-5)
    assert float(built.learning_rate) == pytest.approx(0.5e-5, rel=1e-5)
    assert step.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "lamb", "lion"])
@pytest.mark.parametrize("schedule", ["onecycle", "none"])
def test_optimizers_come_back_from_their_configuration(name, schedule):
    setup = SetupConfig(optimizer=name, lr_schedule=schedule, dtype="mixed_float16")
    built = build_optimizer(setup, OptimizerConfig(), 4)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(built))

    assert type(again.inner_optimizer) is type(built.inner_optimizer)
    assert again.get_config() == built.get_config()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("warmup_ratio", 0.6),
        ("div_factor", 5.0),
        ("final_div", 2.0),
        ("momentum_high", 0.5),
        ("momentum_low", 0.5),
    ],
)
def test_keys_of_one_cycle_change_the_result(key, value):
    changed = trajectory({"lr_schedule": "onecycle"}, {"onecycle": {key: value}}, steps=9)

    assert np.abs(changed - trajectory({"lr_schedule": "onecycle"}, {}, steps=9)).max() > 1e-6
