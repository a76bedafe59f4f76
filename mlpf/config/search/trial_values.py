"""Set values in a configuration at dotted paths and check the result."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mlpf.config.documents import Document, describe_error
from mlpf.config.model_schema import VARIANT_KEYS, VARIANTS, Section
from mlpf.config.schema import Config
from mlpf.config.search.schema import ParameterSpace
from mlpf.errors import ConfigError


def all_values(values: Mapping[str, Any], space: Mapping[str, ParameterSpace]) -> dict[str, Any]:
    """Add the keys that a searched key also sets (``also``) to ``values``."""
    tied = {path: value for key, value in values.items() if key in space for path in space[key].also}
    return {**values, **tied}


def base_data(config: Config) -> dict[str, Any]:
    """Return a configuration as plain data, without the section ``hypertune``."""
    return config.model_dump(by_alias=True) | {"hypertune": None}


def validated(data: dict[str, Any], values: Mapping[str, Any]) -> Config | list[ErrorDetails]:
    """Return the configuration ``data`` with ``values``, or its problems."""
    try:
        return Config.model_validate(with_values(data, values))
    except ValidationError as error:
        return error.errors()


def refusal(problem: ErrorDetails, where: str) -> str:
    """Return one line for one problem."""
    return describe_error(problem, where, Document(), {}, Config)


def shown(values: Mapping[str, Any]) -> str:
    """Return values as text: ``setup.lr=0.001, setup.optimizer=adam``."""
    return ", ".join(
        f"{key}={value if isinstance(value, str) else repr(value)}" for key, value in values.items()
    )


def with_values(data: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of plain data with values set at dotted paths.

    If a value selects another variant of a section, as in ``parameters.combined_graph_layer.kernel.type``,
    keys that this variant lacks are left out.

    Raises:
        ConfigError: a path leads through a value that is not a section.
    """
    # Variants first: they decide which keys a section has.
    for path, value in sorted(values.items(), key=lambda item: not _names_variant(item[0])):
        data = _with_value(data, path.split("."), value, "", path)
    return data


def value_at(data: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path; None if a section on the way is missing."""
    node: Any = data
    for part in path.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _names_variant(path: str) -> bool:
    section, key = ["", "", *path.split(".")][-2:]
    return section in VARIANTS and key == VARIANT_KEYS.get(section, "type")


def _with_value(node: dict[str, Any], parts: list[str], value: Any, above: str, path: str) -> dict[str, Any]:
    key, *rest = parts
    if not rest:
        return {**_of_variant(node, above, key, value), key: value}
    below = {} if node.get(key) is None else node[key]
    if not isinstance(below, dict):
        raise ConfigError(f"{path}: {key} is a value, not a section")
    return {**node, key: _with_value(below, rest, value, key, path)}


def _of_variant(node: dict[str, Any], section: str, key: str, value: Any) -> dict[str, Any]:
    """Return the entries that a section keeps when ``key`` becomes ``value``: those of the new variant."""
    variants: dict[str, type[Section]] = VARIANTS.get(section, {})
    if key != VARIANT_KEYS.get(section, "type") or value == node.get(key) or str(value) not in variants:
        return node
    known = {f.alias or name for name, f in variants[str(value)].model_fields.items()}
    return {name: kept for name, kept in node.items() if name in known}
