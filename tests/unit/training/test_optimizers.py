import numpy as np
import pytest
from keras import ops

from mlpf.config.training_schema import OptimizerConfig, SetupConfig
from mlpf.training.optimizers import build_optimizer, build_schedule, clip_gradients


def trajectory(setup, optimizer, steps=4):
    """A weight under gradients of changing size."""
    import keras

    weight = keras.Variable(np.array([1.0, -2.0], np.float32))
    built = build_optimizer(SetupConfig.model_validate(setup), OptimizerConfig.model_validate(optimizer), 10)
    built.build([weight])
    for i in range(steps):
        built.apply([ops.array([0.5 + (i == 0), -0.1 * i])])
    return ops.convert_to_numpy(weight)


@pytest.mark.parametrize(
    ("setup", "optimizer"),
    [
        ({"lr": 1e-2}, {}),
        ({"lr_schedule": "none"}, {}),
        ({"lr_warmup_steps": 3}, {}),
        ({"optimizer": "sgd"}, {}),
        ({"optimizer": "adamw"}, {}),
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
    ],
)
def test_keys_of_other_optimizers_change_the_result(name, section):
    changed = trajectory({"optimizer": name}, {name: section})

    assert np.abs(changed - trajectory({"optimizer": name}, {})).max() > 1e-6


def rate(setup, step, optimizer=None, total=100):
    schedule = build_schedule(
        SetupConfig.model_validate(setup), OptimizerConfig.model_validate(optimizer or {}), total
    )
    return float(schedule(step)) if callable(schedule) else schedule


def test_cosine_falls_from_the_peak_to_zero():
    setup = {"lr": 0.1, "lr_schedule": "cosinedecay"}

    assert rate(setup, 0) == pytest.approx(0.1, abs=1e-7)
    assert rate(setup, 50) == pytest.approx(0.05, abs=1e-7)
    assert rate(setup, 100) == pytest.approx(0.0, abs=1e-7)


def test_warm_up_rises_linearly_and_leaves_the_end_in_place():
    setup = {"lr": 0.1, "lr_schedule": "cosinedecay", "lr_warmup_steps": 10}

    assert rate(setup, 0) == pytest.approx(0.01, abs=1e-7)
    assert rate(setup, 9) == pytest.approx(0.1, abs=1e-7)
    assert rate(setup, 10) == pytest.approx(0.1, abs=1e-7)
    assert rate(setup, 100) == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize(
    ("section", "step", "expected"),
    [
        ({"decay_steps": 10, "decay_rate": 0.5, "staircase": True}, 19, 0.05),
        ({"decay_steps": 10, "decay_rate": 0.5, "staircase": False}, 20, 0.025),
        ({"decay_steps": 20, "decay_rate": 0.5, "staircase": False}, 20, 0.05),
        ({"decay_steps": 10, "decay_rate": 0.25, "staircase": False}, 5, 0.05),
    ],
)
def test_exponential_decay(section, step, expected):
    setup = {"lr": 0.1, "lr_schedule": "exponentialdecay"}

    assert rate(setup, step, {"exponentialdecay": section}) == pytest.approx(expected, abs=1e-7)


def test_clipping_scales_all_gradients_by_the_global_norm():
    clipped = clip_gradients([ops.array([3.0]), ops.array([4.0])], 1.0)

    np.testing.assert_allclose([float(g[0]) for g in clipped], [0.6, 0.8], rtol=0, atol=1e-6)


def test_small_gradients_are_not_clipped():
    clipped = clip_gradients([ops.array([0.3]), ops.array([0.4])], 1.0)

    np.testing.assert_allclose([float(g[0]) for g in clipped], [0.3, 0.4], rtol=0, atol=1e-7)
