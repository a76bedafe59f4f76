"""The plug-in of Habana Gaudi, by a package that stands for it: neither plug-in nor card is here."""

import importlib.util

import pytest
import tensorflow as tf

from mlpf.errors import MissingDependency
from mlpf.machine import habana
from tests.support.child_process import run_code
from tests.support.stub_packages import importable


@pytest.fixture
def plugin(monkeypatch):
    """Install the package; ``begin`` is called when it is imported."""

    def install(begin=lambda: lambda: None, cards=1):
        monkeypatch.setattr(importable(monkeypatch, "habana_frameworks.tensorflow"), "begin", begin)
        found = [tf.config.PhysicalDevice(f"/physical_device:HPU:{i}", "HPU") for i in range(cards)]
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: found if kind == "HPU" else [])

    return install


def message(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def refusing(error):
    """Return a function that raises an error."""

    def call():
        raise error

    return call


def test_the_plugin_is_loaded_once_and_cards_are_counted(plugin):
    calls = []
    plugin(lambda: lambda: calls.append("loaded"), cards=2)
    assert habana.load_habana() == 2
    assert calls == ["loaded"]


@pytest.mark.skipif(
    importlib.util.find_spec("habana_frameworks") is not None, reason="the plug-in is installed here"
)
def test_a_missing_plugin_is_named_with_the_versions_it_needs_and_those_here(repo_root):
    said = run_code(
        repo_root,
        """
import json
from mlpf.errors import MissingDependency
from mlpf.machine.habana import load_habana
try:
    load_habana()
except MissingDependency as error:
    print(json.dumps(str(error)))
""",
    )
    for word in (
        "habana-tensorflow is not installed",
        "1.14.0.493",
        "TensorFlow 2.15 and Python 3.10",
        f"TensorFlow {tf.__version__}",
    ):
        assert word in said
    assert "\n" not in said


def test_a_plugin_for_another_tensorflow_says_what_it_said(plugin):
    plugin(refusing(ImportError("Found unsupported TF version (2.18.1)\nsupported versions: (2.15.0)")))
    with pytest.raises(MissingDependency) as error:
        habana.load_habana()
    assert "does not load with TensorFlow" in message(error)
    assert "(ImportError: Found unsupported TF version (2.18.1) supported" in message(error)


def test_a_plugin_that_changes_keras_2_loads_and_leaves_keras_3_alone(plugin):
    from keras.src.layers.convolutional import base_conv

    before = dict(vars(base_conv.BaseConv))

    def changing():
        base_conv.Conv._jit_compiled_convolution_op = None  # what the plug-in does at import
        return lambda: None

    plugin(changing)
    assert habana.load_habana() == 1
    assert not hasattr(base_conv, "Conv")
    assert dict(vars(base_conv.BaseConv)) == before


def test_a_missing_driver_is_said_in_one_line(plugin):
    plugin(lambda: refusing(Exception("Habana module was not found.\nmore")))  # what the plug-in raises
    with pytest.raises(MissingDependency) as error:
        habana.load_habana()
    assert "cannot start (Exception: Habana module was not found. more)" in message(error)


def test_a_plugin_without_cards_is_an_error(plugin):
    plugin(cards=0)
    with pytest.raises(MissingDependency, match="finds no Gaudi card"):
        habana.load_habana()


def test_modules_that_the_plugin_misses_are_not_taken_for_the_plugin(plugin):
    plugin(refusing(ModuleNotFoundError("No module named 'wrapt'", name="wrapt")))
    with pytest.raises(ModuleNotFoundError, match="wrapt"):
        habana.load_habana()
