import pytest

from mlpf.config.recorded_metrics import metric_problem, recorded_metrics
from mlpf.config.schema import Config
from tests.support.configs import SMALL

CONFIG = Config.model_validate(SMALL)


def test_terms_without_coefficient_are_not_recorded():
    names = recorded_metrics(CONFIG.with_overrides({"loss.pt_loss_coef": 0.0}))
    assert {"loss", "val_loss", "val_eta_loss", "val_jet_response_iqr"} <= set(names)
    assert "val_pt_loss" not in names


@pytest.mark.parametrize(
    ("name", "weight", "problem"),
    [
        ("val_loss", 1.0, ""),
        ("val_loss", -1.0, "weight -1 would maximise val_loss"),
        ("val_met_response_iqr", 0.5, ""),
        ("val_jet_matched_fraction", -1.0, ""),
        ("val_jet_matched_fraction", 1.0, "a smaller val_jet_matched_fraction is not better"),
        ("val_jet_response_median", -1.0, "a smaller val_jet_response_median is not better"),
        ("val_los", 1.0, "'val_los' is not recorded"),
    ],
)
def test_what_can_be_made_small(name, weight, problem):
    found = metric_problem(CONFIG, name, weight)
    assert problem in found
    assert bool(problem) == bool(found)


def test_physics_is_recorded_only_if_it_is_asked_for():
    config = CONFIG.with_overrides({"callbacks.physics.every": 0})
    assert "callbacks.physics.every above 0" in metric_problem(config, "val_jet_response_iqr")
