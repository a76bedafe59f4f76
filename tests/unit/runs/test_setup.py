"""Where a training is on its schedule, and whether its warm-up fits into it."""

import keras
import numpy as np
import pytest

from mlpf.config.schema import Config
from mlpf.runs.setup import num_updates, rate_line, warm_up_problem
from mlpf.training.optimizers.build import build_optimizer
from tests.support.configs import SMALL


class Loader:
    """Has three batches in an epoch."""

    def plan(self, _epoch):
        return [None] * 3


class Holder:
    """Has an optimizer."""

    def __init__(self, config, updates_done, updates):
        self.optimizer = build_optimizer(config.setup, config.optimizer, updates)
        self.optimizer.build([keras.Variable(np.zeros(1))])
        self.optimizer.iterations.assign(updates_done)


def config(**changes):
    return Config.model_validate(SMALL).with_overrides(
        {f"setup.{name}": value for name, value in changes.items()}
    )


@pytest.mark.parametrize(("per_update", "expected"), [(1, 30), (2, 15), (4, 7), (100, 1)])
def test_updates_are_batches_of_all_epochs_shared_by_accumulation(per_update, expected):
    assert num_updates(config(num_epochs=10, gradient_accumulation_steps=per_update), Loader()) == expected


def test_a_warm_up_as_long_as_the_training_is_told_with_both_numbers():
    assert warm_up_problem(config(lr_warmup_steps=29), 30) is None
    assert warm_up_problem(config(lr_warmup_steps=0), 1) is None
    problem = warm_up_problem(config(lr_warmup_steps=300, num_epochs=10), 30)
    assert "300 updates of warm-up, but the whole training has 30 (10 epochs)" in problem
    assert "reaches 0.0001 of 0.001" in problem  # 30 of 300 parts


def test_the_rate_of_a_cosine_that_goes_on():
    stretched = config(num_epochs=20)
    line = rate_line(stretched, Holder(stretched, 1000, 2000), 2000)
    assert line == "learning rate 0.0005 (setup.lr_schedule cosinedecay, update 1000 of 2000, peak 0.001)"


def test_the_end_of_a_schedule_is_told():
    ended = config(num_epochs=10)
    line = rate_line(ended, Holder(ended, 1000, 1000), 1000)
    assert "update 1000 of 1000): the schedule is at its end" in line


def test_a_constant_rate_has_no_end():
    constant = config(lr_schedule="none")
    assert "at its end" not in rate_line(constant, Holder(constant, 1000, 500), 500)
