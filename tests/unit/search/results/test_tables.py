import json
import math
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlpf.config.loading import load_config
from mlpf.search.options import TrialOptions
from mlpf.search.results.tables import (
    BEST_FILE,
    FIXED_COLUMNS,
    TRIALS_JSON,
    TRIALS_TABLE,
    best_trial,
    collect,
    furthest_trials,
    trial_table,
    write_best,
    write_trials,
)
from mlpf.search.state import SearchState, TrialRecord, read_search
from tests.support.search_directories import (
    FakeSearch,
    completed,
    epoch_record,
    search_config,
    write_search,
)

VALUES = {"setup.lr": 0.02, "parameters.combined_graph_layer.bin_size": 16, "setup.optimizer": "lion"}


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    return FakeSearch().confirm().write(tmp_path_factory.mktemp("searches") / "search")


def state(*trials):
    return SearchState("somewhere", search_config(), list(trials), finished=True)


def written(tmp_path, *trials, **options):
    folder = write_search(tmp_path / options.pop("name", "search"), trials, **options)
    return collect(read_search(folder))


def test_best_is_the_smallest_objective_of_the_highest_rung():
    trials = [
        completed("0000", 0.1, epochs=1),
        completed("0001", 0.6, epochs=9),
        # stopped early: counts with the rung that it was given
        completed("0002", 0.5, epochs=9, metrics={"trained_epochs": 4}),
        completed("0003", 0.2, epochs=9, purpose="confirm"),
        TrialRecord("0004", "0004", status="failed", objective=None, epochs=9),
        TrialRecord("0005", "0005", status="running", epochs=27),
    ]
    assert best_trial(state(*trials)).trial_id == "0002"
    assert best_trial(state(*trials[:1], *trials[4:])).trial_id == "0000"
    assert best_trial(state(*trials[4:])) is None


def test_configurations_are_ordered_by_epochs_then_objective():
    trials = [
        completed("0000", 0.4, epochs=1),
        completed("0001", 0.3, epochs=1),
        completed("0002", 0.9, epochs=3, run="0000"),
        completed("0003", 0.2, epochs=1),
        TrialRecord("0004", "0001", status="failed", epochs=3),
        completed("0005", 0.8, epochs=3, purpose="confirm", run="c"),
    ]
    assert [t.trial_id for t in furthest_trials(state(*trials))] == ["0002", "0003", "0001"]


def test_table_has_a_typed_row_for_every_trial(search):
    results = collect(read_search(search))
    write_trials(results)
    table = pq.read_table(search / TRIALS_TABLE)

    assert table.num_rows == len(results.state.trials)
    assert {name: table.schema.field(name).type for name in FIXED_COLUMNS} == FIXED_COLUMNS
    types = {name: table.schema.field(name).type for name in results.state.config.hypertune.space}
    assert list(types.values()) == [
        pa.float64(), pa.int64(), pa.int64(), pa.string(), pa.float64(), pa.bool_()
    ]  # fmt: skip
    rows = {row["trial_id"]: row for row in table.to_pylist()}
    for trial in results.state.trials:
        row = rows[trial.trial_id]
        assert (row["objective"], row["failure_kind"]) == (trial.objective, trial.failure_kind)
        assert row["device_hours"] == pytest.approx(trial.seconds / 3600)
        assert all(row[key] == trial.values.get(key) for key in types)
        assert row["metric.val_loss"] == trial.metrics.get("val_loss")
        assert row["num_parameters"] == trial.metrics.get("num_parameters")


def test_json_holds_the_same_rows_and_the_summary(search):
    results = collect(read_search(search))
    write_trials(results)
    content = json.loads((search / TRIALS_JSON).read_text(encoding="utf-8"))

    assert [row["trial_id"] for row in content["trials"]] == [t.trial_id for t in results.state.trials]
    assert content["best"] == results.best.trial_id
    assert [gain["gain"]["n"] for gain in content["gains"]] == [3, 3]
    assert sum(content["cost"]["epochs"].values()) == sum(len(h) for h in results.histories.values())
    assert not list(search.glob(".*part"))


def test_values_without_a_type_of_their_own_are_json_text(tmp_path):
    trials = [
        completed("0000", 1.0, values={"a": [1, 2], "b": None, "c": 1, "d": {"x": 1}}),
        completed("0001", 1.0, values={"a": [3], "b": 5, "c": 2.5}),
        completed("0002", 1.0, values={}),
    ]
    table = trial_table(written(tmp_path, *trials).rows).to_pydict()

    assert table["a"] == ["[1, 2]", "[3]", None]
    assert table["b"] == ["null", "5", None]
    assert table["c"] == [1.0, 2.5, None]
    assert table["d"] == ['{"x": 1}', None, None]


def test_numbers_that_json_does_not_have_are_null(tmp_path):
    results = written(tmp_path, completed("0000", 1.0, metrics={"val_jet_response_iqr": math.nan}))
    write_trials(results)
    text = (tmp_path / "search" / TRIALS_JSON).read_text(encoding="utf-8")

    assert "NaN" not in text
    assert json.loads(text)["trials"][0]["metrics"] == {"val_jet_response_iqr": None}


def test_a_search_without_trials_has_an_empty_table_and_no_best(tmp_path):
    results = written(tmp_path)
    write_trials(results)

    assert pq.read_table(tmp_path / "search" / TRIALS_TABLE).num_rows == 0
    assert write_best(results) is None
    assert not (tmp_path / "search" / BEST_FILE).exists()


def test_a_damaged_history_is_listed_and_the_others_count(tmp_path):
    trials = [TrialRecord(name, name, status="running", epochs=9) for name in ("0000", "0001")]
    histories = {"0000": "[{", "0001": [epoch_record(1, 1.0), epoch_record(2, 0.9)]}
    results = written(tmp_path, *trials, histories=histories)

    assert [row["trained_epochs"] for row in results.rows] == [0, 2]
    assert len(results.problems) == 1
    assert "runs/0000/history.json" in results.problems[0]


def test_best_configuration_is_complete_and_has_the_values(tmp_path):
    results = written(tmp_path, completed("0000", 0.5, values=VALUES))
    path = write_best(results)
    config = load_config(path)

    assert config.hypertune is None
    assert config.setup.lr == 0.02
    assert config.parameters.combined_graph_layer.bin_size == 16
    assert config.setup.optimizer == "lion"
    assert config.setup.num_epochs == results.state.config.setup.num_epochs
    head = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert any("trial 0000" in line and "9 of 9 epochs" in line for line in head)
    assert any(f"mlpf train -c {path}" in line for line in head)


def test_best_configuration_says_which_events_the_search_had(tmp_path):
    results = written(tmp_path, completed("0000", 0.5, values=VALUES))
    assert "has trained with" not in write_best(results).read_text(encoding="utf-8")
    TrialOptions(ntrain=500).write(tmp_path / "search")
    assert "# The search has trained with --ntrain 500.\n" in write_best(results).read_text(encoding="utf-8")


def can_name(name):
    """Whether a file may have this name under the present locale."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def test_no_name_of_a_directory_ends_the_comment(tmp_path):
    name = "a\nsetup: {lr: 7}\u2028b"
    if not can_name(name):
        name = "a\nsetup: {lr: 7}b"
    results = written(tmp_path, completed("0000", 0.5, values=VALUES), name=name)
    assert load_config(write_best(results)).setup.lr == 0.02
