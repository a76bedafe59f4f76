"""What a training checks before it starts, and what it writes down."""

import pytest
import tensorflow as tf

from mlpf.config.schema import Config
from mlpf.errors import ConfigError
from mlpf.workflows import train

BASE = {
    "parameters": {"combined_graph_layer": {"bin_size": 8, "max_num_bins": 8}},
    "train_test_datasets": {"physical": {"batch_per_gpu": 4, "datasets": ["a"]}},
    "validation_dataset": "a",
    "validation_batch_size": 8,
    "evaluation_datasets": {},
    "datasets": {"a": {"version": "1.0.0"}},
}


def test_a_resumed_run_remembers_its_limits(tmp_path):
    config = Config.model_validate(BASE)
    train._write_description(config, tmp_path, {"ntrain": 7, "ntest": None})
    assert train._recorded_limits(tmp_path) == {"ntrain": 7, "ntest": None}
    (tmp_path / train.ENVIRONMENT_FILE).write_text("{")
    assert train._recorded_limits(tmp_path) == {}


def test_callbacks_are_checked_before_anything_is_written(tmp_path):
    config = Config.model_validate(BASE).with_overrides({"callbacks.checkpoint.monitor": "val_los"})
    with pytest.raises(ConfigError, match="'val_los' is not recorded"):
        train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_xla_on_several_gpus_is_refused_before_training(tmp_path, monkeypatch):
    config = Config.model_validate(BASE).with_overrides({"setup.jit_compile": True})
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda *_: ["GPU:0", "GPU:1"])
    with pytest.raises(ConfigError, match=r"setup\.jit_compile: true trains on one device"):
        train.run(config, tmp_path / "run")
