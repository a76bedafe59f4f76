"""A training that is watched: physics ranks its checkpoints, logs hold each epoch once."""

import json

import pytest

from mlpf.config.schema import Config
from mlpf.runs import data as training_data
from mlpf.workflows import train
from tests.support import stub_packages
from tests.support.fake_split import FakeSplit
from tests.support.models import TINY_NETWORK
from tests.unit.training.monitors.test_tensorboard import logged

NAME = "val_met_response_iqr"


@pytest.fixture
def comet(monkeypatch):
    """Data of the training and the package comet_ml."""
    splits = {"train": FakeSplit(24, seed=1), "valid": FakeSplit(20, seed=2)}
    monkeypatch.setattr(training_data, "open_split", lambda _name, _source, split, *_: splits[split])
    return stub_packages.comet_ml(monkeypatch)


def some_config(num_epochs):
    return Config.model_validate(
        {
            "setup": {"num_epochs": num_epochs, "lr_schedule": "none", "lr": 1e-2},
            "parameters": {**TINY_NETWORK, "output_decoding": {"pt_as_correction": True}},
            "evaluation_none_threshold": 0.9,
            "callbacks": {
                "checkpoint": {"monitor": NAME, "keep_last": 5},
                "physics": {"every": 2, "num_events": 12},
                "comet": {"project": "mlpf", "offline": True},
            },
            "train_test_datasets": {"physical": {"batch_per_gpu": 8, "datasets": ["a"]}},
            "validation_dataset": "a",
            "validation_batch_size": 8,
            "evaluation_datasets": {},
            "datasets": {"a": {"version": "1.0.0"}},
        }
    )


def test_a_watched_training_and_its_resume(tmp_path, comet):
    run = tmp_path / "run"
    train.run(some_config(2), run)
    summary = train.run(some_config(5), run, resume=True)

    history = json.loads((run / "history.json").read_text(encoding="utf-8"))
    assert history == summary.history
    measured = {record["epoch"]: record[NAME] for record in history if NAME in record}
    assert list(measured) == [2, 4, 5]
    assert summary.best_epoch == min(measured, key=lambda epoch: measured[epoch])
    best = json.loads((run / "checkpoints" / "best.json").read_text(encoding="utf-8"))
    assert (best["epoch"], best["metric"], best["value"]) == (
        summary.best_epoch,
        NAME,
        measured[summary.best_epoch],
    )
    scalars = logged(run / "logs")
    assert [step for step, _ in scalars["loss"]] == [1, 2, 3, 4, 5]
    steps = [step for step, _ in scalars["step/loss"]]
    assert steps == sorted(set(steps))  # once each; more than the ends of epochs on a slow machine
    assert {3, 6, 9, 12, 15} <= set(steps)
    assert dict(scalars[NAME]) == pytest.approx(measured, rel=1e-6)  # float32
    new, existing = comet.experiments
    assert existing.key == new.key
    assert [epoch for epoch, _ in new.metrics + existing.metrics] == [1, 2, 3, 4, 5]
    assert existing.metrics[-1][1][NAME] == measured[5]
