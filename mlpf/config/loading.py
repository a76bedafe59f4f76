"""Read a configuration from YAML files and overrides. Errors name file, line, key and likely spelling."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mlpf.config.documents import Document, Path_, describe_error, place_of, read_document
from mlpf.config.model_schema import VARIANT_KEYS, VARIANTS
from mlpf.config.schema import Config
from mlpf.config.shipped import configuration_path, shipped_configurations
from mlpf.errors import ConfigError
from mlpf.files.atomic import atomic_write

# Key that names the file on which a file builds.
EXTENDS = "extends"


def load_config(
    path: str | Path, overrides: Sequence[str] = (), extra: dict[str, Any] | None = None
) -> Config:
    """Read a YAML configuration, apply overrides and validate it.

    Args:
        path: YAML file, or the name of a configuration of the package, such as ``clic-demo``. Its key
            ``extends`` names another, on top of which it is put; a path there is relative to the file.
        overrides: ``"a.b=value"`` strings; the value is parsed as YAML.
        extra: dotted key -> value, e.g. from command line options; applied last.

    Returns:
        The frozen configuration.

    Raises:
        ConfigError: every problem, one per line, each with file, line and key.
    """
    return load_with_places(path, overrides, extra)[0]


def load_with_places(
    path: str | Path, overrides: Sequence[str] = (), extra: dict[str, Any] | None = None
) -> tuple[Config, Callable[[str], str]]:
    """Read a configuration as ``load_config`` does, and say where its values come from.

    Args:
        path: YAML file.
        overrides: ``"a.b=value"`` strings.
        extra: dotted key -> value.

    Returns:
        The configuration, and a function that takes a dotted key and returns the place of its value:
        ``file:line``, the option, or the file alone for a default.

    Raises:
        ConfigError: as ``load_config``.
    """
    path = configuration_path(path)
    document = read_extended(path)
    problems = document.problems
    sources: dict[Path_, str] = {}
    for text in overrides:
        key, value, problem = _parse_override(text)
        if problem:
            problems.append(problem)
        else:
            _set(document.data, key, value, f"--set {text}", sources, problems)
    for dotted, value in (extra or {}).items():
        _set(document.data, tuple(dotted.split(".")), value, "command line", sources, problems)
    try:
        config = Config.model_validate(document.data)
    except ValidationError as error:
        problems = [*problems, *(describe_error(e, path, document, sources, Config) for e in error.errors())]
    if problems:
        raise ConfigError("\n".join(problems))
    return config, lambda key: place_of(tuple(key.split(".")), str(path), document, sources)


def write_resolved(config: Config, path: Path) -> None:
    """Write the complete configuration, including defaults, as YAML. Atomic.

    Raises:
        OSError: the directory cannot be written.
    """
    with atomic_write(path) as part:
        part.write_text(resolved_text(config), encoding="utf-8")


def resolved_text(config: Config) -> str:
    """Return the complete configuration, including defaults, as YAML."""
    return yaml.safe_dump(config.model_dump(by_alias=True), sort_keys=False)


def read_extended(path: Path, on_top: tuple[Path, ...] = ()) -> Document:
    """Parse a YAML file, put on top of the one that it extends; ``on_top`` are the files that extend it.

    Raises:
        ConfigError: a file cannot be read or holds no mapping, or files extend each other in a circle.
    """
    document = read_document(path)
    if EXTENDS not in document.data:
        return document
    given, where = document.data.pop(EXTENDS), document.places[(EXTENDS,)]
    if not isinstance(given, str) or not given:
        raise ConfigError(
            f"{where}  {EXTENDS}: expected the path of a file, relative to this one, or the name of a "
            f"configuration of the package (given {given!r:.60})"
        )
    try:
        base_path, files = configuration_path(given, path.parent), (*on_top, path.resolve())
    except ConfigError as error:
        raise ConfigError(f"{where}  {EXTENDS}: {error}") from None
    if base_path.resolve() in files:
        raise ConfigError(f"{where}  {EXTENDS}: {given} is or extends this file itself; name another one")
    if not base_path.is_file():
        known = base_path.stem in shipped_configurations()
        hint = f"; did you mean {EXTENDS}: {base_path.stem} (of the package)?" if known else ""
        raise ConfigError(
            f"{where}  {EXTENDS}: {base_path}: no such file; the path is relative to {path}{hint}"
        )
    base = read_extended(base_path, files)
    base.data = _merged(base, document.data, ())
    base.places |= document.places
    base.problems += document.problems
    return base


def _merged(base: Document, top: dict[str, Any], at: Path_) -> dict[str, Any]:
    """Merge ``top`` into ``base``, the section at ``at``: sections are merged, other values replaced."""
    below: Any = base.data
    for part in at:
        below = below[part]
    result = dict(below)
    for key, value in top.items():
        old, here = below.get(key), (*at, key)
        if isinstance(old, dict) and isinstance(value, dict) and not _stands_alone(here, old, value):
            result[key] = _merged(base, value, here)
            continue
        result[key] = value
        base.places = {place: line for place, line in base.places.items() if place[: len(here)] != here}
    return result


def _stands_alone(at: Path_, old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Return whether a section replaces the base section: it names another variant, or values to search."""
    choice = VARIANT_KEYS.get(at[-1], "type")
    variants = [*VARIANTS.get(at[-1], ())]
    other = bool(variants) and choice in new and new[choice] != old.get(choice, variants[0])
    return other or at[:-1] == ("hypertune", "space")


def _parse_override(text: str) -> tuple[Path_, Any, str]:
    """Split ``a.b=value``. The third item describes the problem; it is empty without one."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        return (), None, f"--set {text}: expected KEY=VALUE, e.g. --set setup.lr=1e-4"
    try:
        return tuple(key.split(".")), parse_value(value), ""
    except ValueError:
        return (), None, f"--set {text}: the value is not valid YAML"


def parse_value(text: str) -> Any:
    """Read the value of a key as YAML, and ``1e-4`` as a number.

    Raises:
        ValueError: not valid YAML.
    """
    try:
        parsed = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error)) from error
    return _number(parsed) if isinstance(parsed, str) else parsed


def _number(text: str) -> Any:
    """Read ``1e-4`` as a number. YAML 1.1 reads it as text."""
    try:
        return float(text)
    except ValueError:
        return text


def _set(
    data: dict[str, Any], key: Path_, value: Any, source: str, sources: dict[Path_, str], problems: list[str]
) -> None:
    """Set ``key`` to ``value``; create missing sections."""
    node: Any = data
    for part in key[:-1]:
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict):
            problems.append(f"{source}: {part!r} is a value, not a section")
            return
    node[key[-1]] = value
    sources[key] = source
