import json

import pytest

from mlpf.errors import DataError
from mlpf.search.results.run_progress import (
    device_hours,
    network_constants,
    objective_curve,
    objective_name,
    read_history,
    spent_seconds,
    trained_epochs,
)
from mlpf.search.state import TrialRecord
from mlpf.search.trial_files import TrialFiles
from tests.support.search_directories import completed, epoch_record, search_config, write_history

HISTORY = [epoch_record(epoch, 1 / epoch) for epoch in range(1, 6)]


def test_history_of_a_run_that_has_not_begun_is_empty(tmp_path):
    assert read_history(tmp_path, "0000") == []


@pytest.mark.parametrize("text", ["[{", "{}", "[1]", '[{"epoch": "one"}]', "\x00", "null"])
def test_damaged_history_is_named(tmp_path, text):
    write_history(tmp_path, "0000", text)

    with pytest.raises(DataError, match=r"runs/0000/history\.json: "):
        read_history(tmp_path, "0000")


@pytest.mark.parametrize(
    ("trial", "epochs"),
    [
        (TrialRecord("0", "0", status="running", epochs=9), 5),
        (TrialRecord("0", "0", status="running", epochs=9, initial_epoch=3), 2),
        # a promotion has made the history longer
        (TrialRecord("0", "0", status="failed", epochs=3, initial_epoch=1), 2),
        # the run of a waiting promotion has not begun
        (TrialRecord("0", "0", epochs=27, initial_epoch=9), 0),
        # stopped early
        (completed("0", 1.0, epochs=9, initial_epoch=3, metrics={"trained_epochs": 7.0}), 4),
    ],
)
def test_epochs_of_a_trial_are_its_own(trial, epochs):
    assert trained_epochs(trial, HISTORY) == epochs


def test_seconds_of_an_open_trial_are_those_its_worker_noted(tmp_path):
    path = TrialFiles(tmp_path, "0000").cost
    trial = TrialRecord("0007", "0000", status="running", seconds=10.0)
    assert spent_seconds(tmp_path, trial) == 10
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"0000": 99.0, "0007": 12.5}), encoding="utf-8")
    assert spent_seconds(tmp_path, trial) == 12.5
    path.write_text("[half", encoding="utf-8")
    assert spent_seconds(tmp_path, trial) == 10
    path.write_text(json.dumps({"0007": "x"}), encoding="utf-8")
    assert spent_seconds(tmp_path, trial) == 10
    path.write_text(json.dumps({"0007": 99.0}), encoding="utf-8")
    trial.status = "completed"
    assert spent_seconds(tmp_path, trial) == 10


def test_hours_count_devices():
    assert device_hours(TrialRecord("0", "0", devices=3), 1200.0) == pytest.approx(1.0)


def test_curve_of_a_weighted_sum_has_the_epochs_in_which_all_was_measured():
    section = search_config(objective={"val_jet_iqr": 2.0, "num_parameters": 1e-3}).hypertune
    history = [{"epoch": 1, "val_loss": 3.0}, {"epoch": 2, "val_jet_response_iqr": 0.1}]

    assert objective_name(section) == "2 val_jet_response_iqr + 0.001 num_parameters"
    assert objective_curve(section, history, {"num_parameters": 500}) == [(2.0, pytest.approx(0.7))]
    assert objective_curve(section, history, {}) == []


def test_constants_of_a_network_are_known_to_all_trials_of_its_run():
    trials = [
        completed("0000", 1.0, run="a", metrics={"num_parameters": 5, "val_loss": 2.0}),
        TrialRecord("0001", "a", status="running"),
        TrialRecord("0002", "b"),
    ]
    assert network_constants(trials) == {"a": {"num_parameters": 5}, "b": {}}
