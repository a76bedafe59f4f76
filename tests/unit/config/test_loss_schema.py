"""What a section of the loss may say."""

import pytest
from pydantic import ValidationError

from mlpf.config.loss_schema import LossConfig, RegressionLossConfig
from mlpf.training.losses.targets import REGRESSION_NAMES


def test_terms_follow_from_coefficients():
    assert LossConfig().term_names == ("cls", "charge", *REGRESSION_NAMES)
    some = LossConfig.model_validate({"pt_loss_coef": 0, "event_loss": {"hist_2d": {"coef": 0.5}}})
    assert some.term_names == ("cls", "charge", "eta", "sin_phi", "cos_phi", "energy", "hist_2d")
    assert some.coefficients["hist_2d"] == 0.5


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"type": "CosineSimilarity"}, "Input should be 'Huber', 'MeanSquaredError'"),
        ({"type": "LogCosh", "delta": 1.0}, "delta belongs to Huber, not to LogCosh; remove it"),
        (
            {"kwargs": {"width": 1.0}},
            "kwargs: Huber has no argument width; its arguments are delta",
        ),
        (
            {"type": "MeanSquaredError", "kwargs": {"delta": 1.0}},
            "kwargs: MeanSquaredError has no argument delta; it has no arguments",
        ),
        ({"delta": 1.0, "kwargs": {"delta": 1.0}}, "delta is given twice"),
        ({"kwargs": {"delta": -1.0}}, "greater than 0"),
    ],
)
def test_losses_that_keras_does_not_have(section, message):
    with pytest.raises(ValidationError, match=message):
        RegressionLossConfig.model_validate(section)


@pytest.mark.parametrize("type_", ["MeanSquaredLogarithmicError", "MeanAbsolutePercentageError"])
@pytest.mark.parametrize("name", ["pt", "energy"])
def test_no_logarithm_of_a_logarithm(name, type_):
    section = {f"{name}_target": "log_ratio", f"{name}_loss": {"type": type_}}
    with pytest.raises(
        ValidationError, match=f"{name}_target: log_ratio .* {name}_loss.type: {type_} cannot be taken"
    ):
        LossConfig.model_validate(section)


def test_a_loss_without_terms_is_refused():
    names = ("classification", "charge", *REGRESSION_NAMES)
    with pytest.raises(ValidationError, match="every coefficient is 0, so there is nothing to train"):
        LossConfig.model_validate({f"{name}_loss_coef": 0 for name in names})


def test_coefficients_are_numbers():
    with pytest.raises(ValidationError, match="finite"):
        LossConfig.model_validate({"event_loss": {"met": {"coef": float("inf")}}})
