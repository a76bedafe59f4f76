"""A YAML file with line numbers: parse it, and say in one line what is wrong with a key."""

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mlpf.config.model_schema import VARIANT_KEYS, VARIANTS
from mlpf.config.search.schema import FORMS
from mlpf.config.shipped import instead_of
from mlpf.errors import ConfigError

Path_ = tuple[str, ...]

# No configuration has as many. YAML aliases of aliases can expand a few lines to billions of values.
MAX_VALUES = 10_000


@dataclass
class Document:
    """A parsed YAML file: plain data, and file and line of each key."""

    data: dict[str, Any] = field(default_factory=dict)
    places: dict[Path_, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


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


Model = TypeVar("Model", bound=BaseModel)


def read_model(path: Path, ready_made: str, model: type[Model]) -> Model:
    """Read a YAML file that describes one thing, such as a site or a detector.

    Args:
        path: YAML file with a mapping.
        ready_made: hint for the error about a missing file: where files of this kind are.
        model: type of the description.

    Raises:
        ConfigError: every problem, one per line, with file, line and key.
    """
    document = read_document(path, ready_made)
    problems = document.problems
    try:
        found = model.model_validate(document.data)
    except ValidationError as error:
        problems = [*problems, *(describe_error(e, path, document, {}, model) for e in error.errors())]
    if problems:
        raise ConfigError("\n".join(problems))
    return found


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


def place_of(at: Path_, default: str, document: Document, sources: dict[Path_, str]) -> str:
    """Return where the value of a key, or the section that it is in, is given."""
    for end in range(len(at), 0, -1):
        if at[:end] in sources:
            return sources[at[:end]]
        if at[:end] in document.places:
            return document.places[at[:end]]
    return default


def describe_error(
    error: ErrorDetails,
    path: str | Path,
    document: Document,
    sources: dict[Path_, str],
    model: type[BaseModel],
) -> str:
    """Return one readable line for one pydantic error; ``model`` describes the whole file."""
    full = tuple(str(part) for part in error["loc"])
    at = _without_variant_names(full)
    where = place_of(at, str(path), document, sources)
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


def _known_keys(at: Path_, model: Any) -> list[str]:
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
