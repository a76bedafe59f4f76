"""Examples in docstrings are run, and every layer has one."""

import doctest
import importlib
import inspect
import pkgutil

import keras
import pytest

import mlpf.layers
import mlpf.models

MODULES = [
    name
    for room in (mlpf.layers, mlpf.models)
    for _, name, _ in pkgutil.iter_modules(room.__path__, f"{room.__name__}.")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_every_layer_and_network_has_an_example():
    without = []
    for name in MODULES:
        for title, found in inspect.getmembers(importlib.import_module(name), inspect.isclass):
            if found.__module__ != name or not issubclass(found, keras.layers.Layer):
                continue
            if title == "PFNet" or title.startswith("_"):  # bases of others
                continue
            if ">>> " not in (found.__doc__ or ""):
                without.append(f"{name}.{title}")
    assert without == []
