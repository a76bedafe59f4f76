import pytest

from mlpf.config.differences import differences
from mlpf.config.schema import Config
from tests.support.configs import SMALL

SPACE = {"space": {"setup.lr": {"float": [1e-4, 1e-2]}}}


@pytest.fixture
def config():
    return Config.model_validate({**SMALL, "hypertune": SPACE})


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("setup.lr", 0.5, "setup.lr: 0.001 -> 0.5"),
        ("hypertune.algorithm", "random", "hypertune.algorithm: asha -> random"),
        ("hypertune.max_parameters", 1000, "hypertune.max_parameters: null -> 1000"),
        ("validation_num_events", 7, "validation_num_events: -1 -> 7"),
    ],
)
def test_a_changed_key_is_shown(config, key, value, line):
    assert differences(config, config.with_overrides({key: value})) == [line]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("callbacks.tensorboard", False),
        ("callbacks.comet", {"project": "p"}),
        ("callbacks.checkpoint.every_minutes", None),
        ("callbacks.checkpoint.every_steps", 9),
        ("hypertune.max_total_epochs", 5),
        ("hypertune.max_total_hours", 0.5),
        ("hypertune.max_device_hours", 0.5),
        ("hypertune.max_trial_hours", 0.5),
        ("hypertune.confirm.keep_checkpoints", True),
    ],
)
def test_keys_without_effect_do_not_count(config, key, value):
    assert differences(config, config.with_overrides({key: value})) == []


def test_the_place_of_the_data_does_not_count(config):
    assert differences(config, config.with_data_dir("/elsewhere")) == []


def test_another_section_is_shown_key_by_key(config):
    changed = config.with_overrides({"hypertune.space": {"setup.seed": {"int": [1, 9]}}})
    lines = differences(config, changed)
    assert "hypertune.space.setup.seed.int: (none) -> [1, 9]" in lines
    assert "hypertune.space.setup.lr.float: [0.0001, 0.01] -> (none)" in lines


def test_a_section_that_was_not_there(config):
    lines = differences(config.model_copy(update={"hypertune": None}), config)
    assert "hypertune: null -> (none)" in lines
    assert "hypertune.algorithm: (none) -> asha" in lines
