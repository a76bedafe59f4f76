import pytest
from pydantic import ValidationError

from mlpf.config.training_schema import ExponentialDecayConfig, SetupConfig


def test_one_cycle_has_its_own_warm_up():
    SetupConfig(lr_schedule="onecycle")
    with pytest.raises(ValidationError, match=r"set it to 0 and use optimizer\.onecycle\.warmup_ratio"):
        SetupConfig(lr_schedule="onecycle", lr_warmup_steps=10)


@pytest.mark.parametrize("value", [0, "week", 2.5])
def test_decay_steps_are_a_number_or_an_epoch(value):
    assert ExponentialDecayConfig(decay_steps="epoch").decay_steps == "epoch"
    with pytest.raises(ValidationError):
        ExponentialDecayConfig(decay_steps=value)
