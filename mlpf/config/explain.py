"""Explain configuration keys from the schema: type, default, bounds and meaning."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from mlpf.config.documents import section_of
from mlpf.config.model_schema import VARIANT_KEYS, VARIANTS, Section
from mlpf.config.schema import Config
from mlpf.config.search.schema import FORMS
from mlpf.config.type_text import type_text, value_text
from mlpf.errors import ConfigError

_SHORTEST_PLURAL = 3  # shorter words with an s at their end are no plurals


@dataclass(frozen=True)
class KeyInfo:
    """Type, default, bounds and meaning of one configuration key."""

    key: str
    type: str
    default: str
    meaning: str


def explain(text: str = "") -> list[KeyInfo]:
    """Return the keys at and below a key, else those whose names or meanings have all words of a text.

    Args:
        text: dotted key, or words such as ``learning rate``; empty = all keys.

    Raises:
        ConfigError: there are none; the message suggests the nearest ones.
    """
    keys = list(_walk(Config, ""))
    found = [k for k in keys if not text or k.key == text or k.key.startswith(text + ".")]
    found = found or _about(text, keys)
    if not found:
        raise ConfigError(f"no configuration key {text!r}, and none is about it{_hint(text, keys)}")
    return found


def _about(text: str, keys: list[KeyInfo]) -> list[KeyInfo]:
    """Return the keys whose names or meanings have all words of a text; sections only where no key does."""
    if "." in text:
        return []  # a key with a spelling mistake
    wanted = _words(text)

    def fits(key: KeyInfo) -> bool:
        words = _words(f"{key.key} {key.meaning}")
        return bool(wanted) and all(any(word.startswith(w) for word in words) for w in wanted)

    found = [key for key in keys if fits(key)]
    return [key for key in found if not key.type.startswith("section")] or found


def _words(text: str) -> list[str]:
    """Return the words of a text in lower case, without the s of a plural."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    return [word[:-1] if len(word) > _SHORTEST_PLURAL and word.endswith("s") else word for word in words]


def _hint(text: str, keys: list[KeyInfo]) -> str:
    """Return the keys with the most similar spelling, or words that meanings have."""
    close = difflib.get_close_matches(text, [k.key for k in keys], n=3, cutoff=0.5)
    words = {word for key in keys for word in re.findall(r"[a-z]{3,}", f"{key.key} {key.meaning}".lower())}
    close = close or difflib.get_close_matches(text.lower(), sorted(words), n=3, cutoff=0.75)
    return f"; did you mean {', '.join(close)}?" if close else "; `mlpf config explain` lists all keys"


def _walk(model: type[BaseModel], prefix: str) -> Iterator[KeyInfo]:
    for name, info in model.model_fields.items():
        key = prefix + (info.alias or name)
        section = section_of(info.annotation)
        variants = VARIANTS.get(info.alias or name)
        if section is not None and variants is not None:
            yield KeyInfo(key, "section", "", info.description or "")
            yield from _variants(key, variants)
            continue
        if section is None:
            kind = "name, or weights by name" if name in FORMS else type_text(info.annotation, info.metadata)
            yield KeyInfo(key, kind, _default_text(info), info.description or "")
            continue
        form = (info.alias or name) in FORMS
        free = form or get_origin(info.annotation) is dict
        kind = (
            "name, or sections by dotted path"
            if form
            else "sections by name"
            if free
            else "section"
            if info.is_required() or info.default
            else "section or null"
        )
        yield KeyInfo(key, kind, "", info.description or "")
        yield from _walk(section, f"{key}.NAME." if free else f"{key}.")


def _variants(key: str, variants: dict[str, type[Section]]) -> Iterator[KeyInfo]:
    """Return the keys of all variants of a section. A key that several variants share appears once."""
    keys = {name: list(_walk(section, f"{key}.")) for name, section in variants.items()}
    choice = f"{key}.{VARIANT_KEYS.get(key, 'type')}"
    seen: dict[str, KeyInfo] = {}
    for name, infos in keys.items():
        for info in infos:
            if info.key == choice:
                info = replace(info, type=f"one of {', '.join(variants)}", default=next(iter(variants)))
            if seen.get(info.key) == info:
                continue
            in_all = all(info.key in {other.key for other in others} for others in keys.values())
            where = "" if info.key not in seen and in_all else f"{name}: "
            seen.setdefault(info.key, info)
            yield replace(info, meaning=f"{where}{info.meaning}")


def _default_text(info: FieldInfo) -> str:
    if info.default is PydanticUndefined:
        return "required"
    return value_text(info.default)
