"""Read a configuration from YAML files and overrides. Errors name file, line, key and likely spelling."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mlpf.config.model_schema import VARIANT_KEYS, VARIANTS
from mlpf.config.schema import Config
from mlpf.config.search.schema import FORMS
from mlpf.config.shipped import configuration_path, instead_of
from mlpf.errors import ConfigError
from mlpf.files.atomic import atomic_write

Path_ = tuple[str, ...]

# Key that names the file on which a file builds.
EXTENDS = "extends"

# No configuration has as many. YAML aliases of aliases can expand a few lines to billions of values.
MAX_VALUES = 10_000


@dataclass
class Document:
    """A parsed YAML file: plain data, and file and line of each key."""

    data: dict[str, Any] = field(default_factory=dict)
    places: dict[Path_, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


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
        problems = [*problems, *(describe_error(e, path, document, sources) for e in error.errors())]
    if problems:
        raise ConfigError("\n".join(problems))
    return config, lambda key: _place(tuple(key.split(".")), str(path), document, sources)


def _place(at: Path_, default: str, document: Document, sources: dict[Path_, str]) -> str:
    """Return where the value of a key, or the section that it is in, is given."""
    for end in range(len(at), 0, -1):
        if at[:end] in sources:
            return sources[at[:end]]
        if at[:end] in document.places:
            return document.places[at[:end]]
    return default


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


def read_document(path: Path, ready_made: str | None = None) -> Document:
    """Parse a YAML file into plain data with line numbers. Duplicate keys are listed as problems.

    Args:
        path: YAML file with a mapping.
        ready_made: hint for the error about a missing file: where files of this kind are. None = where
            configurations are.

    Raises:
        ConfigError: the file cannot be read, or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; {ready_made or instead_of(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text ({error})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{where}  not valid YAML: {getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise ConfigError(f"{path}  nested too deeply; a configuration has a few levels") from None
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{path}:1  expected a mapping of sections, found no `key: value` lines")
    if num_values(node, {}) > MAX_VALUES:
        raise ConfigError(
            f"{path}  more than {MAX_VALUES} values once its aliases (*name) are expanded; write them out"
        )
    document = Document()
    try:
        document.data = _walk(node, (), path, document, yaml.SafeLoader(""))
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(
            f"{where}  a value cannot be read: {getattr(error, 'problem', None) or error}"
        ) from None
    return document


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
        raise ConfigError(f"{where}  {EXTENDS}: {base_path}: no such file; the path is relative to {path}")
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


def num_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values below a node with all aliases expanded. An alias of itself counts as too many."""
    if id(node) not in known:
        known[id(node)] = MAX_VALUES + 1  # remains if the node contains itself
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        known[id(node)] = 1 + sum(num_values(part, known) for part in parts)
    return known[id(node)]


def _walk(node: yaml.Node, at: Path_, path: Path, document: Document, loader: yaml.SafeLoader) -> Any:
    """Turn a YAML node into plain data, filling ``document.places``."""
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(loader.construct_object(key_node))
            line = key_node.start_mark.line + 1
            if key in mapping:
                first = document.places[(*at, key)].rpartition(":")[2]
                document.problems.append(
                    f"{path}:{line}  {'.'.join((*at, key))}: key given twice, first on line {first}"
                )
            document.places[(*at, key)] = f"{path}:{line}"
            mapping[key] = _walk(value_node, (*at, key), path, document, loader)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            document.places[(*at, str(i))] = f"{path}:{item.start_mark.line + 1}"
        return [_walk(item, (*at, str(i)), path, document, loader) for i, item in enumerate(node.value)]
    return loader.construct_object(node)


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


def describe_error(
    error: ErrorDetails,
    path: str | Path,
    document: Document,
    sources: dict[Path_, str],
    model: type[BaseModel] = Config,
) -> str:
    """Return one readable line for one pydantic error; ``model`` describes the whole file."""
    full = tuple(str(part) for part in error["loc"])
    at = _without_variant_names(full)
    where = _place(at, str(path), document, sources)
    key = ".".join(at)
    if error["type"] == "extra_forbidden":
        known = _known_keys(full[:-1], model)
        close = difflib.get_close_matches(at[-1], known, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else f"; known here: {', '.join(known)}"
        return f"{where}  {key}: unknown key{hint}"
    if error["type"] == "missing":
        return f"{where}  {key}: required key is missing"
    if error["type"].startswith("union_tag"):
        return f"{where}  {key}: {_describe_variant(at[-1], error['input'])}"
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if not key:
        return f"{where}  {message}"
    given = repr(error["input"])
    shown = given if len(given) <= 60 else given[:57] + "..."
    return f"{where}  {key}: {message} (given {shown})"


def _describe_variant(key: str, given: Any) -> str:
    """Return an error text that lists the variants of a section."""
    choice, names = VARIANT_KEYS.get(key, "type"), ", ".join(VARIANTS[key])
    if not isinstance(given, dict):
        return f"expected a section (given {given!r:.60})"
    return f"no {choice} {given.get(choice)!r:.60}, expected one of {names}"


def _without_variant_names(at: Path_) -> Path_:
    """Drop the names of variants that pydantic puts behind the key of a section."""
    return tuple(part for before, part in zip(("", *at), at, strict=False) if not _is_variant(before, part))


def _is_variant(key: str, part: str) -> bool:
    return part in VARIANTS.get(key, ()) or part in FORMS.get(key, ())


def _known_keys(at: Path_, model: Any = Config) -> list[str]:
    """Return the keys of the section at ``at``, a path that includes names of variants."""
    for before, part in zip(("", *at), at, strict=False):
        if part in FORMS.get(before, ()):
            continue
        if _is_variant(before, part):
            model = VARIANTS[before][part]
            continue
        fields = getattr(model, "model_fields", {})
        match = next((f for n, f in fields.items() if part in (n, f.alias)), None)
        if match is None:
            continue  # a key of a free mapping, such as a dataset name
        model = section_of(match.annotation)
    return [f.alias or n for n, f in getattr(model, "model_fields", {}).items()]


def section_of(annotation: Any) -> Any:
    """Return the section class inside an annotation such as ``dict[str, Section]``, else None.

    For a section with variants, return the first one.
    """
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = section_of(argument)
        if found is not None:
            return found
    return None
