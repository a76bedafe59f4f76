import json

import pyarrow.parquet as pq
import pytest

from mlpf.config.loading import load_config
from mlpf.errors import CheckpointError
from mlpf.runs import data as training_data
from mlpf.search.results.tables import BEST_FILE, TRIALS_JSON, TRIALS_TABLE
from mlpf.search.state import TrialRecord
from mlpf.workflows import hypertune_report, train
from tests.support.fake_training import open_fake, tiny_config
from tests.support.search_directories import (
    FakeSearch,
    completed,
    epoch_record,
    write_history,
    write_search,
)

FIGURES = {
    "objective_over_time", "objective_over_cost", "learning_curves", "parallel_coordinates", "importance",
    "confirmation",
}  # fmt: skip


def figures(folder, suffix="png"):
    return {path.stem for path in (folder / "plots").glob(f"*.{suffix}")}


def test_all_is_rebuilt_from_the_files(tmp_path, capsys):
    folder = FakeSearch().confirm().write(tmp_path / "a $x$ <b>_c")
    hypertune_report.run(folder)
    printed = capsys.readouterr().out

    assert figures(folder) == figures(folder, "pdf") == FIGURES
    page = (folder / "report.html").read_text(encoding="utf-8")
    for heading in (
        "Gain over the default",
        "Cost",
        "Best configurations",
        "Failed trials",
        "Importance",
        "Figures",
    ):
        assert f"<h2>{heading}" in page
    assert page.count("<img ") == len(FIGURES)
    assert "&lt;b&gt;there" in page
    assert pq.read_table(folder / TRIALS_TABLE).num_rows == 46
    assert load_config(folder / BEST_FILE).hypertune is None
    assert "34 completed, 3 failed" in printed
    assert "n = 3" in printed


def test_a_search_in_progress_shows_what_there_is(tmp_path, capsys):
    trials = [
        completed("0000", 0.5, values={"setup.lr": 0.01}, epochs=1, ended=10.0, metrics={"val_loss": 0.5}),
        TrialRecord("0001", "0001", status="running", epochs=9, values={"setup.lr": 0.1}),
    ]
    histories = {"0000": [epoch_record(1, 0.5)], "0001": [epoch_record(e, 1.0) for e in (1, 2)]}
    folder = write_search(tmp_path / "search", trials, histories, finished=False)
    hypertune_report.run(folder)
    printed = capsys.readouterr().out

    assert figures(folder) == FIGURES - {"importance", "confirmation"}
    assert "not finished" in printed
    assert "too few trials for the importance of keys: 1" in printed
    assert "not over when this was written" in (folder / BEST_FILE).read_text(encoding="utf-8")


@pytest.mark.parametrize("trials", [[], [TrialRecord("0000", "0000", status="failed", failure_kind="nan")]])
def test_a_search_without_completed_trials_says_so(tmp_path, capsys, trials):
    folder = write_search(tmp_path / "search", trials, finished=False)
    hypertune_report.run(folder)

    assert "no trial has completed" in " ".join(capsys.readouterr().out.split())
    assert not (folder / BEST_FILE).exists()
    assert json.loads((folder / TRIALS_JSON).read_text(encoding="utf-8"))["best"] is None
    assert (folder / "report.html").is_file()


def test_a_damaged_history_is_reported_and_the_rest_drawn(tmp_path, capsys):
    folder = FakeSearch(num_configurations=9).write(tmp_path / "search")
    write_history(folder, "0000", "[{")
    hypertune_report.run(folder, plots=False)
    printed = " ".join(capsys.readouterr().out.split())

    assert "1 of the runs left out" in printed
    assert "runs/0000/history.json" in printed.replace(" ", "")
    assert not (folder / "plots").exists()
    assert "<h2>Figures" not in (folder / "report.html").read_text(encoding="utf-8")


def test_a_run_of_a_training_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="not a search directory"):
        hypertune_report.run(tmp_path)


def test_the_best_configuration_trains(tmp_path, monkeypatch):
    monkeypatch.setattr(training_data, "open_split", open_fake)
    space = {"setup.lr": {"float": [1e-4, 1e-1], "log": True}}
    config = tiny_config(**{"setup.num_epochs": 1, "hypertune": {"space": space}})
    best = completed("0000", 0.5, values={"setup.lr": 0.0123}, epochs=1)
    folder = write_search(tmp_path / "search", [best], config=config)
    hypertune_report.run(folder, plots=False)
    summary = train.run(load_config(folder / BEST_FILE), tmp_path / "run")

    assert [record["learning_rate"] for record in summary.history] == [pytest.approx(0.0123)]
