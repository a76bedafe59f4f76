import json

import numpy as np
import pytest
import yaml

from mlpf.config.schema import Config
from mlpf.errors import CheckpointError, ConfigError, DataError, OutputExists
from mlpf.runs import data as training_data
from mlpf.workflows import train
from tests.support.fake_split import FakeSplit
from tests.support.fake_training import open_fake, tiny_config
from tests.support.saved_weights import saved_weights


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
        "validation_reference.json",
    }
    assert [r["num_events"] for r in summary.history] == [20, 20]
    assert json.loads((tmp_path / "run" / "history.json").read_text(encoding="utf-8")) == summary.history
    assert (
        Config.model_validate(
            yaml.safe_load((tmp_path / "run" / "config.resolved.yaml").read_text(encoding="utf-8"))
        )
        == config
    )
    with pytest.raises(OutputExists, match="not empty"):
        train.run(config, tmp_path / "run")


def test_weights_of_another_model_are_refused(tmp_path):
    train.run(tiny_config(**{"setup.num_epochs": 1}), tmp_path / "one")
    wider = tiny_config(**{"parameters.node_encoding_hidden_dim": 9})

    with pytest.raises(CheckpointError, match="another model"):
        train.run(wider, tmp_path / "two", weights=tmp_path / "one")


def test_partial_weights_start_another_model_and_are_listed(tmp_path, capsys):
    train.run(tiny_config(**{"setup.num_epochs": 1}), tmp_path / "one")
    wider = tiny_config(
        **{"parameters.num_graph_layers_id": 2, "setup.num_epochs": 1, "setup.trainable": "classification"}
    )
    frozen = wider.with_overrides({"setup.trainable": "heads"})
    with pytest.raises(ConfigError, match=r"setup\.trainable freezes cg_id_1, with weights that do not fit"):
        train.run(frozen, tmp_path / "none", weights=tmp_path / "one", partial=True)
    capsys.readouterr()

    train.run(wider, tmp_path / "two", weights=tmp_path / "one", partial=True)

    printed = capsys.readouterr().out
    assert "weights of the model taken" in printed
    assert "missing in the file" in printed
    old = saved_weights(tmp_path / "one" / "checkpoints" / "epoch_1")
    new = saved_weights(tmp_path / "two" / "checkpoints" / "epoch_1")
    for name, values in old.items():
        if name.startswith(("cg_reg/", "input_normalization/", "decoding/ffn_energy/")):
            np.testing.assert_array_equal(values, new[name], err_msg=name)
    head = "decoding/ffn_id/out/vars/0"
    assert np.abs(old[head] - new[head]).max() > 0


def test_a_split_without_events_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(training_data, "open_split", lambda *_: FakeSplit(0))

    with pytest.raises(DataError, match="split train has no events"):
        train.run(tiny_config(), tmp_path / "run")
