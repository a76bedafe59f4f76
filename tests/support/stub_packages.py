"""Importable packages that stand for those which cannot be installed everywhere."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

PACKAGES = Path(__file__).parent / "packages"


def importable(monkeypatch: pytest.MonkeyPatch, name: str) -> ModuleType:
    """Put the packages on the path for the length of a test; return one of their modules."""
    monkeypatch.syspath_prepend(PACKAGES)
    return importlib.import_module(name)


def comet_ml(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return Comet without experiments."""
    comet = importable(monkeypatch, "comet_ml")
    monkeypatch.setattr(comet, "experiments", [])
    monkeypatch.setattr(comet, "refuses", None)
    return comet
