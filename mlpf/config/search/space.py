"""Read the space of a search, make the configuration of a trial, and check the search before it starts."""

import difflib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

import yaml
from pydantic import TypeAdapter

from mlpf.config.model_schema import VARIANTS
from mlpf.config.recorded_metrics import PHYSICS_METRICS, metric_problem
from mlpf.config.schema import Config
from mlpf.config.search.combinations import Values, combinations, involved, some_values, with_key
from mlpf.config.search.schema import (
    NETWORK_METRICS,
    HypertuneConfig,
    ParameterSpace,
    SearchedKeys,
    full_conditions,
    same_value,
)
from mlpf.config.search.trial_values import all_values, base_data, refusal, shown, validated, value_at
from mlpf.errors import ConfigError

_EXAMPLE = "hypertune: {space: {setup.lr: {float: [1.0e-4, 1.0e-2], log: true}}}"
_READY_SUFFIX = "_space.yaml"

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
# Keys that only some algorithms have.
_ONLY_FOR = {
    "factor": ("hyperband", "asha"),
    "min_epochs": ("hyperband", "asha"),
    "iterations": ("hyperband",),
    "initial_points": ("bayesian",),
    "num_trials": ("random", "bayesian", "asha"),
}
# Maximum number of error lines about combinations, and of refused combinations that are analysed.
_MAX_LINES = 8
_MAX_EXAMINED = 100


def ready_spaces() -> list[str]:
    """Return the names of the ready search spaces, in ``mlpf/models``."""
    names = [entry.name for entry in (files("mlpf") / "models").iterdir()]
    return sorted(name.removesuffix(_READY_SUFFIX) for name in names if name.endswith(_READY_SUFFIX))


def search_section(config: Config) -> HypertuneConfig:
    """Return the section ``hypertune``.

    Raises:
        ConfigError: there is none.
    """
    if config.hypertune is None:
        raise ConfigError(f"no section hypertune: nothing to search for; add one, such as {_EXAMPLE}")
    return config.hypertune


def load_space(hypertune: HypertuneConfig) -> dict[str, ParameterSpace]:
    """Return searched key (dotted path) -> its values. A ready space is read from its file.

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
    text = (files("mlpf") / "models" / f"{hypertune.space}{_READY_SUFFIX}").read_text(encoding="utf-8")
    return TypeAdapter(SearchedKeys).validate_python(yaml.safe_load(text))


def trial_config(config: Config, values: Mapping[str, Any], seed: int | None = None) -> Config:
    """Return the configuration of one trial, without section ``hypertune``.

    If a value selects another variant of a section, keys that this variant lacks are left out.

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


def check_search(config: Config) -> None:
    """Check a search before its first trial.

    All keys and values are checked, and combinations that contain every possible pair of values.

    Raises:
        ConfigError: every problem, one per line.
    """
    hypertune = config.hypertune
    if hypertune is None:
        return
    space = load_space(hypertune)
    problems = [
        *_algorithm_problems(config, hypertune, len(space)),
        *_objective_problems(config, hypertune, space),
    ]
    wrong_keys = [*_key_problems(config, space)]
    # A combination with a wrong value would only repeat the error.
    problems += wrong_keys or _combination_problems(config, hypertune, space)
    if problems:
        raise ConfigError("\n".join(problems))


def _algorithm_problems(config: Config, hypertune: HypertuneConfig, num_keys: int) -> Iterator[str]:
    for key, algorithms in _ONLY_FOR.items():
        default = HypertuneConfig.model_fields[key].default
        if hypertune.algorithm not in algorithms and getattr(hypertune, key) != default:
            yield (
                f"hypertune.{key}: belongs to {', '.join(algorithms)}, not to {hypertune.algorithm}; "
                "leave it out"
            )
    second = hypertune.min_epochs * hypertune.factor
    if hypertune.algorithm in _ONLY_FOR["min_epochs"] and second > config.setup.num_epochs:
        yield (
            f"hypertune.min_epochs: {hypertune.min_epochs} x factor {hypertune.factor} is more than "
            f"setup.num_epochs {config.setup.num_epochs}, so no trial could be promoted; give fewer "
            "min_epochs, a smaller factor, more epochs, or algorithm: random"
        )
    random_trials = hypertune.initial_points or 3 * num_keys
    if hypertune.algorithm == "bayesian" and random_trials >= hypertune.num_trials:
        yield (
            f"hypertune.initial_points: the first {random_trials} trials are drawn (three per searched key "
            f"unless given), hypertune.num_trials is {hypertune.num_trials}: none would be guessed; "
            "change one of them"
        )


def _term_problem(config: Config, name: str, weight: float) -> str:
    """Return why a metric cannot be part of the objective; empty if it can."""
    return "" if name in NETWORK_METRICS else metric_problem(config, name, weight)


def _objective_problems(
    config: Config, hypertune: HypertuneConfig, space: Mapping[str, ParameterSpace]
) -> Iterator[str]:
    terms = hypertune.objective_terms
    for name, weight in terms.items():
        problem = _term_problem(config, name, weight)
        if problem:
            yield f"hypertune.objective: {problem}"
        for key in (path for searched in space for path in (searched, *space[searched].also)):
            if _redefines(key, name):
                yield (
                    f"hypertune.space  {key}: changes what {name} means, so its trials cannot be compared; "
                    "take val_jet_iqr or val_met_iqr as objective, or do not search it"
                )
    every = config.callbacks.physics.every
    first = (
        hypertune.min_epochs if hypertune.algorithm in _ONLY_FOR["min_epochs"] else config.setup.num_epochs
    )
    judged = next((name for name in terms if name in PHYSICS_METRICS), None)
    if judged and first < min(every, config.setup.num_epochs):
        yield (
            f"hypertune.objective: {judged} is recorded every {every} epochs (callbacks.physics.every), but "
            f"the first trials end after {first} (hypertune.min_epochs); make them fit"
        )


def _redefines(key: str, metric: str) -> bool:
    """Return whether a key changes the definition of a recorded metric, not only its value."""
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


def _key_problems(config: Config, space: Mapping[str, ParameterSpace]) -> Iterator[str]:
    """Yield problems of single keys: forbidden, unknown, nested, or with an impossible value."""
    data, conditions = base_data(config), full_conditions(space)
    paths = {path: key for key in space for path in (key, *space[key].also)}
    for path, key in paths.items():
        why = next((why for fixed, why in _FIXED.items() if f"{path}.".startswith(f"{fixed}.")), "")
        outer = next((other for other in paths if path.startswith(f"{other}.")), "")
        if path.startswith("train_test_datasets.") and path.endswith(".datasets"):
            why = _OTHER_EVENTS
        if why:
            yield f"hypertune.space  {path}: cannot be searched, {why}"
        elif outer:
            yield f"hypertune.space  {path}: lies within {outer}, which is searched, too; remove one"
        else:
            values = some_values(space[key])
            # Check both ends first: their errors are clearer than those of values in between.
            tried = [with_key(key, value, conditions) for value in (*values[:1], *values[:0:-1])]
            yield from _value_problems(path, [(v[key], all_values(v, space)) for v in tried], data)


def _value_problems(path: str, tried: list[tuple[Any, Values]], data: dict[str, Any]) -> Iterator[str]:
    """Yield the first problem of each kind for the values of a key: (value, all values set with it)."""
    group = path.split(".")[1:2]
    if path.startswith("train_test_datasets.") and group[0] not in data["train_test_datasets"]:
        known = ", ".join(data["train_test_datasets"])
        yield f"hypertune.space  {path}: no group of datasets {group[0]!r}; there are {known}"
        return
    seen = set()
    for value, values in tried:
        try:
            found = validated(data, values)
        except ConfigError as error:
            yield f"hypertune.space  {error}"
            return
        if isinstance(found, Config):
            read = value_at(found.model_dump(by_alias=True), path)
            if not isinstance(value, dict | list) and not same_value(value, read) and "read" not in seen:
                seen.add("read")
                yield f"hypertune.space  {path}: {value!r} would be read as {read!r}; give {read!r} itself"
            continue
        for problem in found:
            text = refusal(problem, "hypertune.space")
            place = text.split("  ", 1)[-1].split(": ", 1)[0]
            if problem["type"] == "extra_forbidden" and f"{path}.".startswith(f"{place}."):
                yield f"hypertune.space  {path}: {_unknown(path, text, data)}"
                return
            if f"{place}.".startswith(f"{path}.") and problem["type"] not in seen:
                seen.add(problem["type"])
                yield text


def _unknown(path: str, text: str, data: dict[str, Any]) -> str:
    """Return an error text about an unknown key, with the likely spelling."""
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


def _combination_problems(
    config: Config, hypertune: HypertuneConfig, space: Mapping[str, ParameterSpace]
) -> list[str]:
    """Return one line for each group of keys with values that are refused together."""
    data = base_data(config)
    tried = combinations(space)
    refused: list[tuple[Values, str]] = []
    problems: dict[str, None] = {}
    for values in tried:
        found = validated(data, all_values(values, space))
        if not isinstance(found, Config):
            refused.append((values, found[0]["msg"].removeprefix("Value error, ")))
            continue
        for name, weight in hypertune.objective_terms.items():
            problem = _term_problem(found, name, weight)
            if problem and not _term_problem(config, name, weight):
                problems[f"hypertune.objective: with values of the space, {problem}"] = None
    if not refused:
        return [*problems]

    def refuses(values: Values) -> bool:
        return not isinstance(validated(data, all_values(values, space)), Config)

    groups: dict[tuple[str, ...], str] = {}
    for values, message in refused[:_MAX_EXAMINED]:
        guilty = involved(values, space, refuses)
        if guilty and len(groups) < _MAX_LINES:
            groups.setdefault(tuple(guilty), f"hypertune.space  {shown(guilty)}: {message}")
    number = "all" if len(refused) == len(tried) else f"{len(refused)} of {len(tried)}"
    lines = [*groups.values()] or [f"hypertune.space: {refused[0][1]}"]
    lines[-1] += (
        f"; remove a value, or search one key only `when` another has values that fit "
        f"({number} combinations looked at are refused)"
    )
    return [*problems, *lines]
