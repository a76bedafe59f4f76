"""A training in parts ends bit by bit as one at once; early stopping decides the same in both."""

import json

import numpy as np
import pytest

from mlpf.errors import ConfigError
from mlpf.files.run_directory import RunDirectory
from mlpf.runs import data as training_data
from mlpf.workflows import train
from tests.support.fake_training import open_fake, tiny_config
from tests.support.run_results import assert_same, result

# Dropout draws random numbers, the optimizer has a state, the schedule follows the step.
CONFIG = {
    "setup.num_epochs": 6,
    "setup.lr_schedule": "cosinedecay",
    "setup.lr_warmup_steps": 4,
    "setup.optimizer": "adamw",
    "setup.deterministic": True,
    "parameters.output_decoding.dropout": 0.2,
}
# Nothing is a gain of 100, so the second epoch is the last.
EARLY = {"callbacks.early_stopping": {"patience": 1, "min_delta": 100.0, "monitor": "val_cls_loss"}}


@pytest.fixture(autouse=True)
def _events(monkeypatch):
    monkeypatch.setattr(training_data, "open_split", open_fake)


def status(run_dir):
    return json.loads(RunDirectory(run_dir).status.read_text(encoding="utf-8"))


def history(run_dir):
    return json.loads((run_dir / "history.json").read_text(encoding="utf-8"))


def test_in_parts_as_at_once(tmp_path, capsys):
    config = tiny_config(**CONFIG)
    train.run(config, tmp_path / "at_once")

    run_dir = tmp_path / "parts"
    first = train.run(config, run_dir, stop_after=2)
    assert len(first.history) == 2
    assert status(run_dir)["state"] == "finished"
    assert status(run_dir)["reason"] == "after epoch 2 of 6, as asked; continue with --resume"
    assert "after epoch 2 of 6" in " ".join(capsys.readouterr().out.split())
    again = train.run(config, run_dir, resume=True, stop_after=2)
    assert len(again.history) == 2
    train.run(config, run_dir, resume=True, stop_after=4)
    last = train.run(config, run_dir, resume=True)
    assert last.end_reason == status(run_dir)["reason"] == ""

    assert_same(result(run_dir), result(tmp_path / "at_once"))
    rates = [record["learning_rate"] for record in history(run_dir)]
    assert rates[1] > rates[3] > rates[5] > 0  # a cosine over six epochs, not over two


def test_the_epoch_before_a_pause_has_jets(tmp_path):
    config = tiny_config(**CONFIG, **{"callbacks.physics.every": 4})
    run_dir = tmp_path / "run"
    train.run(config, run_dir, stop_after=3)
    train.run(config, run_dir, resume=True)
    judged = [record["epoch"] for record in history(run_dir) if "val_jet_matched_fraction" in record]
    assert judged == [3, 4, 6]

    train.run(config, tmp_path / "at_once")
    arrays, _ = result(run_dir)
    others, _ = result(tmp_path / "at_once")
    for name, values in others.items():
        np.testing.assert_array_equal(arrays[name], values, err_msg=name)


def test_early_stopping_ends_in_order_and_stays_at_its_end(tmp_path, capsys):
    config = tiny_config(**CONFIG, **EARLY, **{"callbacks.physics.every": 5})
    summary = train.run(config, tmp_path / "run")
    assert len(summary.history) == 2
    assert "early stopping after epoch 2" in " ".join(capsys.readouterr().out.split())
    assert status(tmp_path / "run")["state"] == "finished"
    assert status(tmp_path / "run")["reason"] == summary.end_reason
    assert summary.end_reason.startswith(
        "early stopping after epoch 2: val_cls_loss without gain for 1 epochs"
    )
    assert "val_jet_matched_fraction" in summary.history[-1]  # its end counts as the last epoch

    resumed = train.run(config, tmp_path / "run", resume=True)
    assert resumed.history == summary.history
    patient = tiny_config(**CONFIG)
    assert len(train.run(patient, tmp_path / "run", resume=True).history) == 6


def test_a_history_that_was_not_written_is_written_on_resume(tmp_path):
    config = tiny_config(**CONFIG)
    train.run(config, tmp_path, stop_after=2)
    before = history(tmp_path)
    (tmp_path / "history.json").write_text(
        json.dumps(before[:1]), encoding="utf-8"
    )  # killed between checkpoint and history
    train.run(config, tmp_path, resume=True, stop_after=2)
    assert history(tmp_path) == before


def test_an_epoch_beyond_the_last_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"--stop-after 7: setup\.num_epochs is 6"):
        train.run(tiny_config(**CONFIG), tmp_path / "run", stop_after=7)
    assert not (tmp_path / "run").exists()
