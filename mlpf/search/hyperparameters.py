"""Convert a search space to keras-tuner's hyperparameters, and their values back."""

import importlib
import json
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from mlpf.config.search.schema import ParameterSpace, full_conditions, same_value
from mlpf.errors import MissingDependency, how_to_install


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
            f"searching needs keras-tuner, which is not installed; {how_to_install('hypertune')}"
        ) from None


def build_hyperparameters(space: Mapping[str, ParameterSpace]) -> Any:
    """Return the space as ``keras_tuner.HyperParameters``, each key after those on which it depends.

    A choice of keras-tuner holds values of one scalar type. So a choice of values that are not all ints, or
    all floats, becomes a choice of JSON texts. A float with step becomes a choice of its values, because
    keras-tuner misses the last of 0.1, 0.2, 0.3.

    Raises:
        MissingDependency: keras-tuner is not installed.
        ValueError: conditions of the space contradict each other.
    """
    entries = []
    for key, needed in full_conditions(space).items():
        # conditional_scope only allows nested conditions, not two independent ones.
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
    """Return a hyperparameter in the form that keras-tuner writes to a file."""
    if space.kind == "boolean":
        return _entry("Boolean", name=key, conditions=conditions)
    if space.values is not None and space.kind != "int":
        values = [*map(_coding(space), space.values)]
        return _entry("Choice", name=key, values=values, conditions=conditions)
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


def _coding(space: ParameterSpace) -> Callable[[Any], Any]:
    """Return the function that converts a value of a key for keras-tuner.

    If all values are ints, all floats or all booleans, they stay as they are. Otherwise they become text.
    """
    types = {type(value) for value in space.choice or ()}
    return json.dumps if space.choice and types not in ({int}, {float}) else _unchanged


def _unchanged(value: Any) -> Any:
    return value


def _encode(space: ParameterSpace, value: Any) -> Any:
    """Return the form of a single value in keras-tuner."""
    return _coding(space)(next(v for v in space.values or () if same_value(v, value)))


def decode(space: Mapping[str, ParameterSpace], kt_values: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted path -> value for the values of a trial of keras-tuner.

    Keys whose conditions do not hold, and keys of keras-tuner, are left out.

    Raises:
        ValueError: a value is not in the space, or a searched key has no value.
    """
    values: dict[str, Any] = {}
    for key, needed in full_conditions(space).items():
        if not all(
            name in values and any(same_value(values[name], value) for value in wanted)
            for name, wanted in needed.items()
        ):
            continue
        if key not in kt_values:
            raise ValueError(f"{key}: the trial has no value of it; check that the space has not changed")
        values[key] = _decode(key, space[key], kt_values[key])
    return values


def _decode(key: str, space: ParameterSpace, coded: Any) -> Any:
    known = space.values
    if known is None:
        low, high = space.bounds or (0.0, 0.0)
        return min(max(float(coded), low), high)  # rounding of logarithms can leave the range
    if space.kind == "int" and coded in known:
        return int(coded)
    coding = _coding(space)
    for value in known if space.kind != "int" else ():
        if same_value(coding(value), coded):
            return value
    raise ValueError(f"{key}: {coded!r:.60} is none of its values; check that the space has not changed")
