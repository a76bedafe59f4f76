"""What would stop a search or make it meaningless, found before its first trial."""

import difflib
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic_core import ErrorDetails

from mlpf.config.loading import read_extended
from mlpf.config.model_schema import VARIANTS
from mlpf.config.recorded_metrics import PHYSICS_METRICS, metric_problem
from mlpf.config.schema import Config
from mlpf.config.search.schema import (
    NETWORK_METRICS,
    HypertuneConfig,
    ParameterSpace,
    full_conditions,
    same_value,
)
from mlpf.config.search.space import drawn_values, load_space, ready_space_file, some_values
from mlpf.config.search.trial_values import all_values, base_data, refusal, validated, value_at
from mlpf.errors import ConfigError

# Keys that cannot be searched -> why.
_OTHER_EVENTS = "trials would be judged on different events"
_FIXED = {
    "hypertune": "it describes the search itself",
    "setup.num_epochs": "every trial trains a part of the same length; make one search for each",
    "setup.seed": "the best seed is luck; hypertune.confirm.seeds measures what a seed does",
    "callbacks": "it says what is recorded and kept, not what is learned",
    "dataset": _OTHER_EVENTS,
    "datasets": _OTHER_EVENTS,
    "validation_dataset": _OTHER_EVENTS,
    "validation_num_events": _OTHER_EVENTS,
    "validation_batch_size": "it does not change what is learned",
    "evaluation_datasets": "it does not change what is learned",
    "evaluation_jet_algo": "trials would be judged by different jets",
}
# Key -> the algorithms that have it; the other algorithms refuse it.
_ONLY_FOR = {
    "factor": ("hyperband", "asha"),
    "min_epochs": ("hyperband", "asha"),
    "iterations": ("hyperband",),
    "initial_points": ("bayesian",),
    "num_trials": ("random", "bayesian", "asha"),
}
# Sets of values that are tried before a value counts as refused by all others.
_NUM_DRAWN = 200

# Place of a problem in the configuration, and what it is.
Problem = tuple[tuple[str, ...], str]


def check_search(config: Config, path: Path | None = None) -> None:
    """Find what would stop a search or make it meaningless, before its first trial.

    Every value is looked at alone, in the configuration that is searched around, and with others if that
    refuses it. Values that are refused only together are not looked for: such a trial fails as refused, and
    the search goes on.

    Args:
        config: configuration of the search.
        path: file that it was read from, for messages.

    Raises:
        ConfigError: every problem, one per line, with file and line if ``path`` is given.
    """
    hypertune = config.hypertune
    if hypertune is None:
        return
    space = load_space(hypertune)
    problems = [
        *_algorithm_problems(config, hypertune, len(space)),
        *_objective_problems(config, hypertune, space),
        *_key_problems(config, hypertune, space),
    ]
    if problems:
        if path is None:
            raise ConfigError("\n".join(text for _, text in problems))
        places = _places(path, hypertune)
        raise ConfigError("\n".join(f"{places.get(at, path)}  {text}" for at, text in problems))


def _places(path: Path, hypertune: HypertuneConfig) -> dict[tuple[str, ...], str]:
    """Return place in the configuration -> file and line; those of a ready space are in its own file."""
    places = read_extended(path).places
    if isinstance(hypertune.space, str):
        ready = read_extended(ready_space_file(hypertune.space)).places
        places |= {("hypertune", "space", *at): line for at, line in ready.items()}
    return places


def _algorithm_problems(config: Config, hypertune: HypertuneConfig, num_keys: int) -> Iterator[Problem]:
    for key, algorithms in _ONLY_FOR.items():
        default = HypertuneConfig.model_fields[key].default
        if hypertune.algorithm not in algorithms and getattr(hypertune, key) != default:
            yield (
                ("hypertune", key),
                f"hypertune.{key}: belongs to {', '.join(algorithms)}, not to {hypertune.algorithm}; "
                "leave it out",
            )
    second = hypertune.min_epochs * hypertune.factor
    if hypertune.algorithm in _ONLY_FOR["min_epochs"] and second > config.setup.num_epochs:
        yield (
            ("hypertune", "min_epochs"),
            f"hypertune.min_epochs: {hypertune.min_epochs} x factor {hypertune.factor} is more than "
            f"setup.num_epochs {config.setup.num_epochs}, so no trial could be promoted; give fewer "
            "min_epochs, a smaller factor, more epochs, or algorithm: random",
        )
    random_trials = hypertune.initial_points or 3 * num_keys
    if hypertune.algorithm == "bayesian" and random_trials >= hypertune.num_trials:
        yield (
            ("hypertune", "initial_points"),
            f"hypertune.initial_points: the first {random_trials} trials are drawn (three per searched key "
            f"unless given), hypertune.num_trials is {hypertune.num_trials}: none would be guessed; "
            "change one of them",
        )


def _term_problem(config: Config, name: str, weight: float) -> str:
    """Say why a metric cannot be part of the objective; empty if it can."""
    return "" if name in NETWORK_METRICS else metric_problem(config, name, weight)


def _objective_problems(
    config: Config, hypertune: HypertuneConfig, space: Mapping[str, ParameterSpace]
) -> Iterator[Problem]:
    terms, at = hypertune.objective_terms, ("hypertune", "objective")
    for name, weight in terms.items():
        problem = _term_problem(config, name, weight)
        if problem:
            yield at, f"hypertune.objective: {problem}"
        for searched in space:
            for key in (searched, *space[searched].also):
                if _redefines(key, name):
                    yield (
                        ("hypertune", "space", searched),
                        f"hypertune.space  {key}: changes what {name} means, so its trials cannot be "
                        "compared; take val_jet_iqr or val_met_iqr as objective, or do not search it",
                    )
    every = config.callbacks.physics.every
    first = (
        hypertune.min_epochs if hypertune.algorithm in _ONLY_FOR["min_epochs"] else config.setup.num_epochs
    )
    judged = next((name for name in terms if name in PHYSICS_METRICS), None)
    if judged and first < min(every, config.setup.num_epochs):
        yield (
            at,
            f"hypertune.objective: {judged} is recorded every {every} epochs (callbacks.physics.every), but "
            f"the first trials end after {first} (hypertune.min_epochs); make them fit",
        )


def _redefines(key: str, metric: str) -> bool:
    """Tell whether a key changes the definition of a recorded metric, not only its value."""
    section, _, rest = key.partition(".")
    term = metric.removeprefix("val_").removesuffix("_loss")
    if section != "loss" or metric in PHYSICS_METRICS:
        return False
    if term == "loss":
        return True
    own = (f"{term}_loss", f"{term}_target", "cls_weight_by_pt", "reg_weight_by_pt")
    return rest.split(".")[0] in own or (
        rest.startswith(f"event_loss.{term}.") and not rest.endswith(".coef")
    )


def _key_problems(
    config: Config, hypertune: HypertuneConfig, space: Mapping[str, ParameterSpace]
) -> Iterator[Problem]:
    """Yield what is wrong with keys and values: forbidden, unknown, nested, refused, or without objective."""
    values = _Values(config, hypertune, space)
    paths = {path: key for key in space for path in (key, *space[key].also)}
    for path, key in paths.items():
        why = next((why for fixed, why in _FIXED.items() if _lies_in(path, fixed)), "")
        outer = next((other for other in paths if path.startswith(f"{other}.")), "")
        if path.startswith("train_test_datasets.") and path.endswith(".datasets"):
            why = _OTHER_EVENTS
        at = ("hypertune", "space", key)
        if why:
            yield at, f"hypertune.space  {path}: cannot be searched, {why}"
        elif outer:
            yield at, f"hypertune.space  {path}: lies within {outer}, which is searched, too; remove one"
        else:
            yield from ((at, text) for text in values.problems(path, key))


class _Values:
    """The values of a space, looked at one by one.

    Args:
        config: configuration of the search.
        hypertune: its section.
        space: the keys that are searched.
    """

    def __init__(self, config: Config, hypertune: HypertuneConfig, space: Mapping[str, ParameterSpace]):
        self._data, self._space = base_data(config), space
        self._conditions = full_conditions(space)
        # Terms of the objective that are recorded without a search.
        self._terms = {
            name: weight
            for name, weight in hypertune.objective_terms.items()
            if not _term_problem(config, name, weight)
        }

    def problems(self, path: str, key: str) -> Iterator[str]:
        """Yield the first problem of each kind with the values of ``key`` at ``path``."""
        group = path.split(".")[1:2]
        if path.startswith("train_test_datasets.") and group[0] not in self._data["train_test_datasets"]:
            known = ", ".join(self._data["train_test_datasets"])
            yield f"hypertune.space  {path}: no group of datasets {group[0]!r}; there are {known}"
            return
        seen: set[str] = set()
        values = some_values(self._space[key])
        # Both ends first: they say more than a value in between.
        for value in (*values[:1], *values[:0:-1]):
            try:
                found = self._with(self._alone(key, value))
            except ConfigError as error:
                yield f"hypertune.space  {error}"
                return
            if isinstance(found, Config):
                new = self._problems_of_accepted(found, path, value)
            else:
                new = self._problems_of_refused(found, path, key, value)
            for kind, text in new:
                if kind not in seen:
                    seen.add(kind)
                    yield text
                if kind == "extra_forbidden":
                    return

    def _alone(self, key: str, value: Any) -> dict[str, Any]:
        """Return a value with the first values of others under which its key is searched."""
        return {**{name: wanted[0] for name, wanted in self._conditions[key].items()}, key: value}

    def _with(self, values: Mapping[str, Any]) -> Config | list[ErrorDetails]:
        return validated(self._data, all_values(values, self._space))

    def _problems_of_accepted(self, found: Config, path: str, value: Any) -> Iterator[tuple[str, str]]:
        read = value_at(found.model_dump(by_alias=True), path)
        if not isinstance(value, dict | list) and not same_value(value, read):
            yield (
                "read",
                f"hypertune.space  {path}: {value!r} would be read as {read!r}; give {read!r} itself",
            )
        for name, weight in self._terms.items():
            problem = _term_problem(found, name, weight)
            if problem:
                yield name, f"hypertune.space  {path}: with {value!r}, {problem}"

    def _problems_of_refused(
        self, found: list[ErrorDetails], path: str, key: str, value: Any
    ) -> Iterator[tuple[str, str]]:
        # The key, its conditions, and what they also set: all have lines of their own about their values.
        own = {at for name in (key, *self._conditions[key]) for at in (name, *self._space[name].also)}
        single = False
        for problem in found:
            text = refusal(problem, "hypertune.space")
            place = text.split("  ", 1)[-1].split(": ", 1)[0]
            unknown = problem["type"] == "extra_forbidden"
            if unknown and _lies_in(path, place):
                yield "extra_forbidden", f"hypertune.space  {path}: {_unknown(path, text, self._data)}"
                return
            if _lies_in(place, path):
                yield problem["type"], text
            single |= any(_lies_in(place, at) or (unknown and _lies_in(at, place)) for at in own)
        # What is refused for its relation to other keys may be accepted with other values of these.
        if not single and path == key and not self._accepted_with_others(key, value):
            message = found[0]["msg"].removeprefix("Value error, ")
            yield (
                "with others",
                f"hypertune.space  {path}: {value!r} is refused with all values of the other keys that were "
                f"tried: {message}; remove it, or search {path} only `when` another key has values that fit",
            )

    def _accepted_with_others(self, key: str, value: Any) -> bool:
        alone, generator = self._alone(key, value), random.Random(0)
        tried = [
            {**self._alone(other, with_it), **alone}
            for other in self._space
            for with_it in some_values(self._space[other])
        ]
        tried += [drawn_values(self._space, alone, generator) for _ in range(_NUM_DRAWN)]
        return any(isinstance(self._with(values), Config) for values in tried)


def _lies_in(path: str, section: str) -> bool:
    """Tell whether a dotted path is that of a section, or of something in it."""
    return f"{path}.".startswith(f"{section}.")


def _unknown(path: str, text: str, data: dict[str, Any]) -> str:
    """Say that there is no such key, with the likely one."""
    chosen = data["parameters"]["model"]
    for model, section in VARIANTS["parameters"].items():
        if path in _paths({"parameters": section().model_dump(by_alias=True)}, "") and model != chosen:
            return f"a key of the model {model}, but parameters.model is {chosen}; do not search it"
    known = [*_paths(data, "")]
    close = [other for other in known if other.endswith(f".{path}")]
    close = close or difflib.get_close_matches(path, known, n=1, cutoff=0.85)
    return f"unknown key (did you mean {close[0]!r}?)" if close else text.split(": ", 1)[-1]


def _paths(data: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in data.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{key}.")
