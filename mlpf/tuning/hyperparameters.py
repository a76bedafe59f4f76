"""A search space in the terms of keras-tuner, and its choices back as values of the configuration."""

import importlib
import json
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from mlpf.config.hypertune_schema import ParameterSpace, full_conditions, same_value
from mlpf.errors import MissingDependency


def import_keras_tuner() -> ModuleType:
    """Import keras-tuner.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        return importlib.import_module("keras_tuner")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "keras_tuner":
            raise
        raise MissingDependency(
            "searching needs keras-tuner, which is not installed; run pip install mlpf[hypertune]"
        ) from None


def build_hyperparameters(space: Mapping[str, ParameterSpace]) -> Any:
    """Return the space as ``keras_tuner.HyperParameters``, each key after those on which it depends.

    Whole numbers and booleans are what they are. Everything else that is counted, numbers with a point
    included, is a choice among JSON texts: a choice of keras-tuner holds one scalar type, its messages
    between processes round to float32, and a rounded number is none of the choices any more. A float with
    step is such a choice too, because keras-tuner misses the last of 0.1, 0.2, 0.3.

    Raises:
        MissingDependency: keras-tuner is not installed.
        ValueError: conditions of the space contradict each other.
    """
    entries = []
    for key, needed in full_conditions(space).items():
        # Not conditional_scope: it takes nested conditions only, not two keys that are independent.
        conditions = [
            _entry("Parent", name=name, values=[_encode(space[name], value) for value in wanted])
            for name, wanted in needed.items()
        ]
        entries.append(_hyperparameter(key, space[key], conditions))
    hyperparameters = import_keras_tuner().HyperParameters.from_config({"space": entries, "values": {}})
    hyperparameters.ensure_active_values()
    return hyperparameters


def _entry(class_name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": class_name, "config": config}


def _hyperparameter(key: str, space: ParameterSpace, conditions: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a hyperparameter as keras-tuner writes it to a file."""
    if space.kind == "boolean":
        return _entry("Boolean", name=key, conditions=conditions)
    if space.values is not None and space.kind != "int":
        values = [_encode(space, value) for value in space.values]
        return _entry("Choice", name=key, values=values, ordered=False, conditions=conditions)
    low, high = space.bounds or (0, 0)
    return _entry(
        space.kind.capitalize(),
        name=key,
        min_value=low,
        max_value=high,
        step=None if space.step is None else int(space.step),
        sampling="log" if space.log else "linear",
        conditions=conditions,
    )


def _whole(space: ParameterSpace) -> bool:
    """Tell whether every value is a whole number: those keras-tuner can hold as they are."""
    return all(isinstance(v, int) and not isinstance(v, bool) for v in space.choice or [None])


def _encode(space: ParameterSpace, value: Any) -> Any:
    """Return what keras-tuner holds for a value of a counted space."""
    same = next(v for v in space.values or [] if same_value(v, value))
    if space.kind in ("boolean", "int") or _whole(space):
        return same
    return json.dumps(same)


def decode(space: Mapping[str, ParameterSpace], kt_values: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted path -> value for the values of a trial of keras-tuner.

    Keys that are not searched under these values, and keras-tuner's own, are left out. A float without step
    becomes the shortest decimal that is the same float32, which is what keras-tuner's messages preserve: so
    every process decodes a trial to the same number.

    Raises:
        ValueError: a value that the space does not have, or a searched key without value.
    """
    values: dict[str, Any] = {}
    for key, needed in full_conditions(space).items():
        if not all(
            name in values and any(same_value(values[name], value) for value in wanted)
            for name, wanted in needed.items()
        ):
            continue
        if key not in kt_values:
            raise ValueError(f"{key}: the trial has no value of it; was the search begun with another space?")
        values[key] = _decode(key, space[key], kt_values[key])
    return values


def _decode(key: str, space: ParameterSpace, coded: Any) -> Any:
    known = space.values
    if known is None:
        low, high = space.bounds or (0.0, 0.0)
        return min(max(float(str(np.float32(coded))), low), high)
    for value in known if not isinstance(known, range) else [int(coded)] if coded in known else []:
        if same_value(_encode(space, value), coded):
            return value
    raise ValueError(f"{key}: {coded!r:.60} is none of its values; was the search begun with another space?")
