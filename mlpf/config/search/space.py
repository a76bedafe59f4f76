"""The space of a search, values out of it, and the configuration of a trial."""

import random
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from mlpf.config.schema import Config
from mlpf.config.search.schema import (
    HypertuneConfig,
    ParameterSpace,
    SearchedKeys,
    full_conditions,
    same_value,
)
from mlpf.config.search.trial_values import all_values, base_data, refusal, shown, validated
from mlpf.errors import ConfigError

_EXAMPLE = "hypertune: {space: {setup.lr: {float: [1.0e-4, 1.0e-2], log: true}}}"
_READY_SUFFIX = "_space.yaml"
# Of a range with more values than this, only some are looked at.
_MAX_VALUES = 50
# Where within a range values are looked at, besides its ends; no share of a whole range is a whole number.
_WITHIN = (0.1234, 0.3671, 0.6180, 0.8713)


def ready_spaces() -> list[str]:
    """Return the names of the spaces that lie beside the models."""
    names = [entry.name for entry in (files("mlpf") / "models").iterdir()]
    return sorted(name.removesuffix(_READY_SUFFIX) for name in names if name.endswith(_READY_SUFFIX))


def ready_space_file(name: str) -> Path:
    """Return the file of a ready space."""
    return Path(str(files("mlpf") / "models" / f"{name}{_READY_SUFFIX}"))


def search_section(config: Config) -> HypertuneConfig:
    """Return the section ``hypertune``.

    Raises:
        ConfigError: there is none.
    """
    if config.hypertune is None:
        raise ConfigError(f"no section hypertune: nothing to search for; add one, such as {_EXAMPLE}")
    return config.hypertune


def load_space(hypertune: HypertuneConfig) -> dict[str, ParameterSpace]:
    """Return searched key, a dotted path, -> its values; a ready space is read by its name.

    Raises:
        ConfigError: there is no ready space of that name.
    """
    if not isinstance(hypertune.space, str):
        return hypertune.space
    known = ready_spaces()
    if hypertune.space not in known:
        raise ConfigError(
            f"hypertune.space: no ready space {hypertune.space!r:.60}, expected one of {', '.join(known)}, "
            "or a mapping of keys to search"
        )
    text = ready_space_file(hypertune.space).read_text(encoding="utf-8")
    return TypeAdapter(SearchedKeys).validate_python(yaml.safe_load(text))


def trial_config(config: Config, values: Mapping[str, Any], seed: int | None = None) -> Config:
    """Return the configuration of one trial, without section ``hypertune``.

    Where a value names another variant of a section, keys that this variant does not have are left out.

    Args:
        config: configuration of the search.
        values: dotted path -> value.
        seed: ``setup.seed``; None = that of ``config``.

    Raises:
        ConfigError: the configuration refuses these values; the message names them.
    """
    if seed is not None:
        values = {**values, "setup.seed": seed}
    space = load_space(config.hypertune) if config.hypertune else {}
    found = validated(base_data(config), all_values(values, space))
    if isinstance(found, Config):
        return found
    raise ConfigError("\n".join(refusal(problem, f"{shown(values)}: refused:") for problem in found))


def some_values(space: ParameterSpace) -> list[Any]:
    """Return all values of a key, or of a long range both ends and a few within."""
    known = space.values
    if known is not None and (space.choice is not None or len(known) <= _MAX_VALUES):
        return list(known)
    if known is not None:
        return [known[round(share * (len(known) - 1))] for share in (0, *_WITHIN, 1)]
    low, high = space.bounds or (0.0, 0.0)
    if space.log:
        return [low, *(low * (high / low) ** share for share in _WITHIN), high]
    return [low, *(low + (high - low) * share for share in _WITHIN), high]


def drawn_values(
    space: Mapping[str, ParameterSpace], fixed: Mapping[str, Any], generator: random.Random
) -> dict[str, Any]:
    """Draw a value for each key that is searched, out of ``some_values``.

    Args:
        space: where the values are from.
        fixed: key -> value that it has wherever it is searched.
        generator: draws the others.
    """
    values: dict[str, Any] = {}
    for key, needed in full_conditions(space).items():
        if all(
            name in values and any(same_value(values[name], value) for value in wanted)
            for name, wanted in needed.items()
        ):
            values[key] = fixed[key] if key in fixed else generator.choice(some_values(space[key]))
    return values
