import math

import pytest

from mlpf.config.training_schema import OptimizerConfig, SetupConfig
from mlpf.training.optimizers.schedules import OneCycle, build_momentum, build_schedule


def rate(setup, step, optimizer=None, total=100):
    schedule = build_schedule(
        SetupConfig.model_validate(setup), OptimizerConfig.model_validate(optimizer or {}), total
    )
    return float(schedule(step)) if callable(schedule) else schedule


def test_none_is_constant():
    assert rate({"lr": 0.1, "lr_schedule": "none"}, 77) == 0.1


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.1), (25, 0.1 * (1 + math.sqrt(0.5)) / 2), (50, 0.05), (100, 0.0), (120, 0.0)],
)
def test_cosine_falls_from_the_peak_to_zero(step, expected):
    assert rate({"lr": 0.1, "lr_schedule": "cosinedecay"}, step) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(("step", "expected"), [(0, 0.01), (9, 0.1), (10, 0.1), (55, 0.05), (100, 0.0)])
def test_warm_up_rises_linearly_and_leaves_the_end_in_place(step, expected):
    setup = {"lr": 0.1, "lr_schedule": "cosinedecay", "lr_warmup_steps": 10}

    assert rate(setup, step) == pytest.approx(expected, abs=1e-7)


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


@pytest.mark.parametrize(("step", "expected"), [(0, 0.1), (24, 0.1), (25, 0.05), (50, 0.025)])
def test_exponential_decay_once_per_epoch(step, expected):
    """100 updates in 4 epochs: one epoch has 25."""
    setup = {"lr": 0.1, "lr_schedule": "exponentialdecay", "num_epochs": 4}
    section = {"decay_steps": "epoch", "decay_rate": 0.5, "staircase": True}

    assert rate(setup, step, {"exponentialdecay": section}) == pytest.approx(expected, abs=1e-7)


CYCLE = {"warmup_ratio": 0.4, "div_factor": 10.0, "final_div": 1e4, "momentum_high": 0.9, "momentum_low": 0.7}


@pytest.mark.parametrize(
    ("step", "learning_rate", "momentum"),
    [
        (0, 0.1, 0.9),
        (20, 0.55, 0.8),  # half way up: the mean of 0.1 and 1
        (40, 1.0, 0.7),
        (55, 0.0001 + 0.9999 * (1 + math.sqrt(0.5)) / 2, 0.9 - 0.2 * (1 + math.sqrt(0.5)) / 2),
        (70, 0.50005, 0.8),
        (100, 0.0001, 0.9),
        (130, 0.0001, 0.9),
    ],
)
def test_one_cycle(step, learning_rate, momentum):
    setup, sections = {"lr": 1.0, "lr_schedule": "onecycle"}, {"onecycle": CYCLE}
    cycle = build_momentum(SetupConfig.model_validate(setup), OptimizerConfig.model_validate(sections), 100)

    assert rate(setup, step, sections) == pytest.approx(learning_rate, abs=1e-6)
    assert float(cycle(step)) == pytest.approx(momentum, abs=1e-6)


def test_one_cycle_ends_at_a_small_rate_without_rounding():
    assert rate({"lr": 1e-3, "lr_schedule": "onecycle"}, 100) == pytest.approx(1e-8, rel=1e-6)


@pytest.mark.parametrize("total", [1, 2, 7])
def test_one_cycle_of_few_updates_is_finite(total):
    rates = [rate({"lr": 1.0, "lr_schedule": "onecycle"}, step, total=total) for step in range(total + 1)]

    assert rates[0] == pytest.approx(1 / 25, abs=1e-6)
    assert rates[-1] == pytest.approx(1e-5, abs=1e-8)
    assert all(0 < r <= 1 for r in rates)


@pytest.mark.parametrize("name", ["none", "cosinedecay", "exponentialdecay"])
def test_other_schedules_leave_the_momentum(name):
    assert build_momentum(SetupConfig(lr_schedule=name), OptimizerConfig(), 100) is None


def test_schedules_come_back_from_their_configuration():
    cycle = OneCycle(0.1, 1.0, 0.01, 100, 0.3)
    warm = build_schedule(SetupConfig(lr_warmup_steps=5), OptimizerConfig(), 100)

    assert float(OneCycle.from_config(cycle.get_config())(40)) == float(cycle(40))
    assert float(type(warm).from_config(warm.get_config())(40)) == float(warm(40))
