import json

import pytest
import yaml

from mlpf.config.schema import Config
from mlpf.errors import CheckpointError, DataError, OutputExists
from mlpf.workflows import train, training_data
from tests.support.fake_split import FakeSplit
from tests.support.fake_training import open_fake, tiny_config


@pytest.fixture(autouse=True)
def _fake_data(monkeypatch):
    monkeypatch.setattr(training_data, "open_split", open_fake)


def test_a_run_writes_its_directory_and_refuses_to_overwrite_it(tmp_path):
    config = tiny_config(**{"setup.num_epochs": 2, "callbacks.tensorboard": True})
    summary = train.run(config, tmp_path / "run", ntrain=10, ntest=5)

    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert names == {
        "config.resolved.yaml",
        "environment.json",
        "history.json",
        "checkpoints",
        "logs",
        ".lock",
        "status.json",
    }
    assert [r["num_events"] for r in summary.history] == [20, 20]
    assert json.loads((tmp_path / "run" / "history.json").read_text()) == summary.history
    assert (
        Config.model_validate(yaml.safe_load((tmp_path / "run" / "config.resolved.yaml").read_text()))
        == config
    )
    with pytest.raises(OutputExists, match="not empty"):
        train.run(config, tmp_path / "run")


def test_weights_of_another_model_are_refused(tmp_path):
    train.run(tiny_config(**{"setup.num_epochs": 1}), tmp_path / "one")
    wider = tiny_config(**{"parameters.node_encoding_hidden_dim": 9})

    with pytest.raises(CheckpointError, match="another model"):
        train.run(wider, tmp_path / "two", weights=tmp_path / "one")


def test_a_split_without_events_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(training_data, "open_split", lambda *_: FakeSplit(0))

    with pytest.raises(DataError, match="split train has no events"):
        train.run(tiny_config(), tmp_path / "run")
