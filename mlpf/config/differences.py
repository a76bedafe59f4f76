"""Differences of two configurations, one line each."""

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from mlpf.config.schema import Config

# Keys that do not change the result of a training, such as paths. A star stands for any name.
WITHOUT_EFFECT = (
    "datasets.*.data_dir",
    "callbacks.tensorboard",
    "callbacks.comet",
    "callbacks.comet.*",
    "callbacks.checkpoint.every_minutes",
    "callbacks.checkpoint.every_steps",
    "hypertune.max_total_epochs",
    "hypertune.max_total_hours",
    "hypertune.max_device_hours",
    "hypertune.max_trial_hours",
    "hypertune.confirm.keep_checkpoints",
)
_ABSENT = "(none)"


def changed_keys(old: Config, new: Config) -> dict[str, str]:
    """Return key -> ``old -> new`` of what may change a result, in the order of the keys."""
    before, after = dict(_flat(old.model_dump(by_alias=True))), dict(_flat(new.model_dump(by_alias=True)))
    keys = [*before, *(key for key in after if key not in before)]
    return {
        key: f"{_text(before, key)} -> {_text(after, key)}"
        for key in keys
        if _text(before, key) != _text(after, key)
        and not any(fnmatchcase(key, pattern) for pattern in WITHOUT_EFFECT)
    }


def differences(old: Config, new: Config) -> list[str]:
    """Return ``key: old -> new`` for every key that may change a result, in the order of the keys."""
    return [f"{key}: {change}" for key, change in changed_keys(old, new).items()]


def _flat(data: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted path and value of every key that is not a section. An empty section counts as a value."""
    for name, value in data.items():
        key = f"{above}{name}"
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{key}.")
        else:
            yield key, value


def _text(values: dict[str, Any], key: str) -> str:
    if key not in values:
        return _ABSENT
    value = values[key]
    return value if isinstance(value, str) else json.dumps(value)
