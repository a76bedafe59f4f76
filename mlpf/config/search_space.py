"""A search space and its configurations: read the space, and put chosen values into a configuration."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from mlpf.config.hypertune_schema import HypertuneConfig, ParameterSpace, SearchedKeys
from mlpf.config.loading import Document, describe_error
from mlpf.config.model_schema import VARIANT_KEYS, VARIANTS, Section
from mlpf.config.schema import Config
from mlpf.errors import ConfigError

_READY_SUFFIX = "_space.yaml"


def ready_spaces() -> list[str]:
    """Return the names of the spaces that lie beside the models."""
    folder = files("mlpf") / "models"
    names = [entry.name for entry in folder.iterdir()]
    return sorted(name.removesuffix(_READY_SUFFIX) for name in names if name.endswith(_READY_SUFFIX))


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
    text = (files("mlpf") / "models" / f"{hypertune.space}{_READY_SUFFIX}").read_text()
    return TypeAdapter(SearchedKeys).validate_python(yaml.safe_load(text))


def trial_config(config: Config, values: Mapping[str, Any], seed: int | None = None) -> Config:
    """Return the configuration of one trial.

    Where a value chooses another variant of a section (``parameters.combined_graph_layer.kernel.type``), keys
    that the new variant does not have are left out.

    Args:
        config: configuration of the search.
        values: dotted path -> value.
        seed: ``setup.seed``; None = that of ``config``.

    Raises:
        ConfigError: the configuration refuses these values; the message names them.
    """
    if seed is not None:
        values = {**values, "setup.seed": seed}
    data = config.model_dump(by_alias=True)
    data["hypertune"] = None
    try:
        return Config.model_validate(with_values(data, values))
    except ValidationError as error:
        raise ConfigError("\n".join(refusals(values, error))) from None


def refusals(values: Mapping[str, Any], error: ValidationError) -> list[str]:
    """Return one line per problem that the configuration has with these values."""
    given = ", ".join(f"{key}={value!r}" for key, value in values.items())
    return [describe_error(problem, f"{given}: refused:", Document(), {}) for problem in error.errors()]


def with_values(data: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain data of a configuration with values set at dotted paths; ``data`` stays as it is.

    Raises:
        ConfigError: a path leads through a value that is not a section.
    """
    for path, value in values.items():
        data = _with_value(data, path.split("."), value, "", path)
    return data


def _with_value(node: dict[str, Any], parts: list[str], value: Any, above: str, path: str) -> dict[str, Any]:
    key, *rest = parts
    if not rest:
        return {**_of_variant(node, above, key, value), key: value}
    below = {} if node.get(key) is None else node[key]
    if not isinstance(below, dict):
        raise ConfigError(f"{path}: {key} is a value, not a section")
    return {**node, key: _with_value(below, rest, value, key, path)}


def _of_variant(node: dict[str, Any], section: str, key: str, value: Any) -> dict[str, Any]:
    """Return what a section keeps when ``key`` becomes ``value``: the keys of the variant that it names."""
    variants: dict[str, type[Section]] = VARIANTS.get(section, {})
    if key != VARIANT_KEYS.get(section, "type") or value == node.get(key) or str(value) not in variants:
        return node
    known = {f.alias or name for name, f in variants[str(value)].model_fields.items()}
    return {name: kept for name, kept in node.items() if name in known}
