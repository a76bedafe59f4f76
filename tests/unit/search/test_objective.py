import math

import pytest

from mlpf.config.search.schema import HypertuneConfig
from mlpf.search.objective import objective_value


def search(objective, epoch="best"):
    return HypertuneConfig(objective=objective, objective_epoch=epoch, space="gnn_dense")


HISTORY = [
    {"epoch": 1.0, "val_loss": 3.0, "val_jet_response_iqr": 0.5},
    {"epoch": 2.0, "val_loss": 1.0},
    {"epoch": 3.0, "val_loss": 2.0, "val_jet_response_iqr": 0.2},
    {"epoch": 4.0, "val_loss": math.nan, "val_jet_response_iqr": 0.1},
    {"epoch": 5.0, "val_loss": 2.5, "val_jet_response_iqr": 0.4},
]


@pytest.mark.parametrize(
    ("objective", "epoch", "expected"),
    [
        ("val_loss", "best", (1.0, 2)),
        ("val_loss", "last", (2.5, 5)),
        ("val_jet_iqr", "best", (0.1, 4)),
        # 3 + 5 = 8, -, 2 + 2 = 4, -, 2.5 + 4 = 6.5
        ({"val_loss": 1.0, "val_jet_iqr": 10.0}, "best", (4.0, 3)),
        ({"val_loss": 1.0, "val_jet_iqr": 10.0}, "last", (6.5, 5)),
        ({"val_loss": 0.5, "val_jet_iqr": 0.0}, "best", (1.0, 3)),
    ],
)
def test_the_weighted_sum_of_the_epoch_that_counts(objective, epoch, expected):
    assert objective_value(search(objective, epoch), HISTORY) == pytest.approx(expected, abs=1e-12)


def test_the_first_of_equal_epochs_counts():
    assert objective_value(search("val_loss"), [{"val_loss": 1.0}, {"val_loss": 1.0}]) == (1.0, 1)


def test_the_epoch_of_the_record_counts_not_its_place():
    assert objective_value(search("val_loss"), [{"epoch": 7.0, "val_loss": 1.0}]) == (1.0, 7)


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ([], "val_loss was recorded in none of 0 epochs"),
        ([{"loss": 1.0}], "val_loss was recorded in none of 1 epochs"),
        ([{"val_loss": math.inf}], "val_loss was finite in none of 1 epochs"),
    ],
)
def test_no_epoch_counts(history, message):
    with pytest.raises(ValueError, match=message):
        objective_value(search("val_loss"), history)


def test_metrics_that_are_never_recorded_together():
    history = [{"val_loss": 1.0}, {"val_jet_response_iqr": 1.0}]
    with pytest.raises(ValueError, match="no epoch of 2 has all of val_loss, val_jet_response_iqr"):
        objective_value(search({"val_loss": 1.0, "val_jet_iqr": 1.0}), history)
