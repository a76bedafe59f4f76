"""Explain configuration keys: type, default, bounds and meaning, straight from the schema."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from mlpf.config.loading import section_of
from mlpf.config.model_schema import MODEL_CONFIGS
from mlpf.config.schema import Config
from mlpf.errors import ConfigError

# The section whose keys depend on the model that it names.
PARAMETERS = "parameters"


@dataclass(frozen=True)
class KeyInfo:
    """One configuration key as a user sees it."""

    key: str
    type: str
    default: str
    meaning: str


def explain(prefix: str = "") -> list[KeyInfo]:
    """Return the keys at and below ``prefix``; all of them if it is empty.

    Raises:
        ConfigError: no key starts with ``prefix``; the message suggests the nearest ones.
    """
    keys = list(_walk(Config, ""))
    found = [k for k in keys if not prefix or k.key == prefix or k.key.startswith(prefix + ".")]
    if not found:
        close = difflib.get_close_matches(prefix, [k.key for k in keys], n=3, cutoff=0.5)
        hint = f"; did you mean {', '.join(close)}?" if close else "; `mlpf config explain` lists all keys"
        raise ConfigError(f"no configuration key {prefix!r}{hint}")
    return found


def _walk(model: type[BaseModel], prefix: str) -> Iterator[KeyInfo]:
    for name, info in model.model_fields.items():
        key = prefix + (info.alias or name)
        if key == PARAMETERS:
            yield KeyInfo(key, "section", "", info.description or "")
            yield from _models()
            continue
        section = section_of(info.annotation)
        if section is None:
            yield KeyInfo(key, _type_text(info), _default_text(info), info.description or "")
            continue
        free = not (isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel))
        yield KeyInfo(key, "sections by name" if free else "section", "", info.description or "")
        yield from _walk(section, f"{key}.NAME." if free else f"{key}.")


def _models() -> Iterator[KeyInfo]:
    """Return the keys of every model; one that several have, with the same meaning, once."""
    seen: dict[str, KeyInfo] = {}
    for name, config in MODEL_CONFIGS.items():
        for info in _walk(config, f"{PARAMETERS}."):
            if info.key == f"{PARAMETERS}.model":
                names = list(MODEL_CONFIGS)
                info = replace(info, type=f"one of {names}", default=names[0])
            if seen.get(info.key) == info:
                continue
            where = "" if info.key not in seen and _in_all(info.key) else f"{name}: "
            seen.setdefault(info.key, info)
            yield replace(info, meaning=f"{where}{info.meaning}")


def _in_all(key: str) -> bool:
    """Return whether every model has the key."""
    keys = [{info.key for info in _walk(config, f"{PARAMETERS}.")} for config in MODEL_CONFIGS.values()]
    return all(key in known for known in keys)


def _type_text(info: FieldInfo) -> str:
    annotation: Any = info.annotation
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    text = text.replace("typing.", "").replace("Literal", "one of ")
    bounds = [str(m) for m in info.metadata if type(m).__module__ == "annotated_types"]
    return " ".join([text, *bounds])


def _default_text(info: FieldInfo) -> str:
    if info.default is PydanticUndefined:
        return "required"
    return str(info.default)
