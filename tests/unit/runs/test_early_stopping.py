"""When a training is over, from its history alone."""

import math
import re

import pytest

from mlpf.config.schema import Config
from mlpf.config.training_schema import EarlyStoppingConfig
from mlpf.errors import ConfigError
from mlpf.runs.early_stopping import StopCriterion, last_gain
from tests.support.configs import SMALL

JETS = "val_jet_response_iqr"


def ending(early_stopping=None, stop_after=None, **overrides):
    changes = {"setup.num_epochs": 10, "callbacks.early_stopping": early_stopping} | overrides
    return StopCriterion(Config.model_validate(SMALL).with_overrides(changes), stop_after)


def history(values, name="val_loss"):
    return [{"epoch": i} | ({} if v is None else {name: v}) for i, v in enumerate(values, start=1)]


def first_end(end, values, name="val_loss"):
    """Number of epochs after which a training with these values ends."""
    records = history(values, name)
    return next((n for n in range(len(records) + 1) if end.is_over(records[:n])), None)


@pytest.mark.parametrize(
    ("settings", "values", "expected"),
    [
        ({"patience": 2}, [5, 4, 3, 3.5, 3.1, 2], 5),  # best in 3, then two without gain
        ({"patience": 2}, [5, 4, 4, 4], 4),  # the same is no gain
        ({"patience": 3}, [5, 6, 6, 4, 5, 5, 3.9], None),  # each time just in time
        (
            {"patience": 2, "min_delta": 0.5},
            [5, 4.6, 4.4, 4.2, 4.0, 1],
            5,
        ),  # 4.4 is a gain on 5, not 4.0 on 4.4
        ({"patience": 2, "start_epoch": 4}, [1, 2, 3, 4, 5, 6], 6),  # what came before does not count
        ({"patience": 2}, [5, None, None, None, 6, None, 7], 7),  # nor do epochs without the metric
        ({"patience": 2}, [math.nan, math.nan], 2),
        ({"patience": 2}, [5, 6, math.nan, 4], 3),
        ({"patience": 1, "monitor": "loss"}, [5, 6, 7], None),  # not recorded in these histories
        (None, [5, 6, 7, 8, 9], None),
    ],
)
def test_patience(settings, values, expected):
    assert first_end(ending(settings), values) == expected


def test_last_gain_by_hand():
    section = EarlyStoppingConfig(patience=9, min_delta=0.5)
    assert last_gain(history([5, 4.6, 4.4, 4.2]), "val_loss", section) == (4.4, 3, 1)
    assert last_gain([], "val_loss", section) == (math.inf, 0, 0)


def test_the_metric_that_ranks_checkpoints_is_the_default():
    end = ending({"patience": 1}, **{"callbacks.checkpoint.monitor": "val_pt_loss"})
    assert first_end(end, [1, 2], "val_pt_loss") == 2
    assert first_end(end, [1, 2], "val_loss") is None


def test_jets_of_an_epoch_before_a_pause_do_not_count():
    """A training at once would not have them."""
    end = ending({"patience": 1, "monitor": JETS}, **{"callbacks.physics.every": 2})
    at_once = history([None, 5, None, 4], JETS)
    paused = history([None, 5, 6, 4], JETS)  # stopped after epoch 3
    assert not end.is_over(at_once)
    assert not end.is_over(paused)
    assert end.is_over(history([None, 5, None, 6], JETS))


def test_the_epoch_asked_for():
    end = ending(stop_after=3)
    assert first_end(end, [5] * 9) == 3
    assert end.reason(history([5] * 3)) == "after epoch 3 of 10, as asked; continue with --resume"
    assert end.reason(history([5] * 10)) == ""
    with pytest.raises(ConfigError, match=r"--stop-after 11: setup\.num_epochs is 10; give an epoch from 1"):
        ending(stop_after=11)


def test_early_stopping_comes_before_the_epoch_asked_for():
    end = ending({"patience": 1}, stop_after=2)
    assert end.reason(history([5, 6])) == (
        "early stopping after epoch 2: val_loss without gain for 1 epochs (best 5 in epoch 1)"
    )
    assert "never a number" in end.reason(history([math.nan]))
    assert ending({"patience": 1}, **{"setup.num_epochs": 2}).reason(history([5, 6])) == ""


@pytest.mark.parametrize(
    ("settings", "num_records", "expected"),
    [
        ({}, 9, None),
        ({}, 10, "all 10 epochs are trained. To train longer: mlpf train --resume RUN --nepochs N"),
        (
            {"stop_after": 4},
            4,
            "epoch 4 is trained. To train longer: mlpf train --resume RUN without --stop-after",
        ),
        ({"stop_after": 4}, 3, None),
        ({"early_stopping": {"patience": 2}}, 3, "for 2 epochs.*--set callbacks.early_stopping=null"),
    ],
)
def test_a_run_with_nothing_left_says_why_and_how_to_go_on(settings, num_records, expected):
    found = ending(**settings).nothing_left(history([1.0] * num_records), "RUN")
    if expected is None:
        assert found is None
    else:
        assert re.search(f"^RUN: nothing is left to do, .*{expected}", found)
