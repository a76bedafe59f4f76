"""What a training checks before it starts, and what it writes down."""

import io
from dataclasses import replace

import keras
import pytest
import tensorflow as tf
from rich.console import Console

from mlpf.config.schema import Config
from mlpf.errors import ConfigError, MissingDependency
from mlpf.machine import devices
from mlpf.machine.host import read_host
from mlpf.runs.setup import prepare_process
from mlpf.workflows import train
from tests.support.configs import SMALL
from tests.support.number_formats import skip_if_it_aborts


def test_callbacks_are_checked_before_anything_is_written(tmp_path):
    config = Config.model_validate(SMALL).with_overrides({"callbacks.checkpoint.monitor": "val_los"})
    with pytest.raises(ConfigError, match="'val_los' is not recorded"):
        train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_xla_on_several_gpus_is_refused_before_training(tmp_path, monkeypatch):
    config = Config.model_validate(SMALL).with_overrides({"setup.jit_compile": True})
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda *_: ["GPU:0", "GPU:1"])
    with pytest.raises(ConfigError, match=r"setup\.jit_compile: true trains on one device"):
        train.run(config, tmp_path / "run")


@pytest.mark.parametrize("allowed", [False, True])
def test_devices_are_set_up_as_the_configuration_says(allowed):
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    console = Console(file=io.StringIO())
    config = Config.model_validate(SMALL).with_overrides({"setup.allow_tf32": allowed})
    try:
        prepare_process(config, None, False, console)
        assert tf.config.experimental.tensor_float_32_execution_enabled() == allowed
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)
    assert "training on 1 x " in console.file.getvalue()


@pytest.mark.parametrize(
    ("dtype", "has_bfloat16", "told"),
    [("mixed_bfloat16", False, True), ("mixed_bfloat16", True, False), ("float32", False, False)],
)
def test_bfloat16_is_announced_where_the_cpu_emulates_it(monkeypatch, dtype, has_bfloat16, told):
    host = replace(read_host(), has_bfloat16=has_bfloat16)
    monkeypatch.setattr(devices, "read_host", lambda *_: host)
    monkeypatch.setattr(devices, "accelerators", list)
    console = Console(file=io.StringIO())
    skip_if_it_aborts(dtype)
    config = Config.model_validate(SMALL).with_overrides({"setup.dtype": dtype})
    try:
        prepare_process(config, None, False, console)
    finally:
        keras.config.set_dtype_policy("float32")
    lines = [line for line in console.file.getvalue().splitlines() if "no instructions for bfloat16" in line]
    assert len(lines) == told


def test_gaudi_without_its_plugin_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(MissingDependency, match="habana-tensorflow is not installed"):
        train.run(Config.model_validate(SMALL), tmp_path / "run", habana_enabled=True)
    assert not (tmp_path / "run").exists()
