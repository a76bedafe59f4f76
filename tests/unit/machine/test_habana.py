"""The plug-in of Habana Gaudi, by stand-ins: neither plug-in nor card is here."""

import sys
import types

import pytest
import tensorflow as tf

from mlpf.errors import MissingDependency
from mlpf.machine import habana


@pytest.fixture
def plugin(monkeypatch):
    """Install a stand-in for the plug-in; return the calls that it gets."""
    calls = []

    def install(load=None, cards=1):
        package, module = (
            types.ModuleType("habana_frameworks"),
            types.ModuleType("habana_frameworks.tensorflow"),
        )
        module.load_habana_module = load or (lambda: calls.append("loaded"))
        package.tensorflow = module
        monkeypatch.setitem(sys.modules, package.__name__, package)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        found = [tf.config.PhysicalDevice(f"/physical_device:HPU:{i}", "HPU") for i in range(cards)]
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: found if kind == "HPU" else [])
        return calls

    return install


def message(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_plugin_is_loaded_once_and_cards_are_counted(plugin):
    calls = plugin(cards=2)
    assert habana.load_habana() == 2
    assert calls == ["loaded"]


def test_a_missing_plugin_is_named_with_the_versions_it_needs_and_those_here():
    with pytest.raises(MissingDependency) as error:
        habana.load_habana()
    for word in (
        "habana-tensorflow",
        "1.14.0.493",
        "TensorFlow 2.15 and Python 3.10",
        f"TensorFlow {tf.__version__}",
    ):
        assert word in message(error)


def test_a_plugin_for_another_tensorflow_says_what_it_said(plugin, monkeypatch):
    plugin()

    class Refusing(types.ModuleType):
        def __getattr__(self, name):
            raise ImportError("Found unsupported TF version (2.18.1)\nsupported versions: (2.15.0)")

    monkeypatch.setitem(sys.modules, "habana_frameworks.tensorflow", Refusing("habana_frameworks.tensorflow"))
    with pytest.raises(MissingDependency) as error:
        habana.load_habana()
    assert "does not load with TensorFlow" in message(error)
    assert "(ImportError: Found unsupported TF version (2.18.1) supported versions: (2.15.0))" in message(
        error
    )


def test_a_plugin_that_changes_keras_2_loads_and_leaves_keras_3_alone(plugin, monkeypatch):
    plugin()
    from keras.src.layers.convolutional import base_conv

    before = dict(vars(base_conv.BaseConv))

    class Changing(types.ModuleType):
        def __getattr__(self, name):
            base_conv.Conv._jit_compiled_convolution_op = None  # what the plug-in does at import
            return lambda: None

    monkeypatch.setitem(sys.modules, "habana_frameworks.tensorflow", Changing("habana_frameworks.tensorflow"))
    assert habana.load_habana() == 1
    assert not hasattr(base_conv, "Conv")
    assert dict(vars(base_conv.BaseConv)) == before


def test_a_missing_driver_is_said_in_one_line(plugin):
    def load():
        raise Exception("Habana module was not found.\nmore")  # what the plug-in raises

    plugin(load)
    with pytest.raises(MissingDependency) as error:
        habana.load_habana()
    assert "cannot start (Exception: Habana module was not found. more)" in message(error)


def test_a_plugin_without_cards_is_an_error(plugin):
    plugin(cards=0)
    with pytest.raises(MissingDependency, match="finds no Gaudi card"):
        habana.load_habana()


def test_modules_that_the_plugin_misses_are_not_taken_for_the_plugin(monkeypatch):
    monkeypatch.setitem(sys.modules, "habana_frameworks", None)
    with pytest.raises(MissingDependency, match="is not installed"):
        habana.load_habana()
