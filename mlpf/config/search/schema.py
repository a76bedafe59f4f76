"""Section ``hypertune``: search space, algorithm, objective and limits of a search."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    field_validator,
    model_validator,
)

from mlpf.config.model_schema import Section

# Measured before training. Objectives and limits can use both.
NUM_PARAMETERS, INFERENCE_MS = "num_parameters", "inference_ms"
NETWORK_METRICS = (NUM_PARAMETERS, INFERENCE_MS)
# Short names of recorded metrics.
METRIC_ALIASES = {"val_jet_iqr": "val_jet_response_iqr", "val_met_iqr": "val_met_response_iqr"}

# Keys that take a name or a mapping -> names of the two forms in the locations of pydantic errors.
FORMS = dict.fromkeys(("objective", "space"), ("(name)", "(mapping)"))
_FORM = Discriminator(lambda data: "(name)" if isinstance(data, str) else "(mapping)")

# Maximum number of values of a range with a step.
MAX_VALUES = 10_000

# YAML 1.1 reads a number without a point, such as 1e-4, as text.
_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")

Bounds = Annotated[list[float], Field(min_length=2, max_length=2)]
WholeBounds = Annotated[list[int], Field(min_length=2, max_length=2)]

# Rounding of logarithms.
_SLACK = 1e-9


def same_value(a: Any, b: Any) -> bool:
    """Return whether two values of a key are the same. 1 equals 1.0, but not true."""
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


class ParameterSpace(Section):
    """The values that one key of the configuration may take: exactly one of the four kinds."""

    choice: Annotated[list[Any], Field(min_length=1)] | None = Field(None, description="one of these values")
    int_: WholeBounds | None = Field(
        None, alias="int", description="a whole number from the first to the second, both included"
    )
    float_: Bounds | None = Field(
        None, alias="float", description="a number from the first to the second, both included"
    )
    boolean: Literal[True] | None = Field(None, description="true: the key is true or false")
    step: PositiveFloat | None = Field(
        None, description="distance between values of int or float; with log, the factor between them"
    )
    log: bool = Field(False, description="int and float: equal shares for equal factors")
    also: list[str] = Field([], description="further keys, by dotted path, that get the same value")
    when: dict[str, Any] = Field(
        {},
        description="searched only where other searched keys have these values (one value, or a list)",
    )

    @field_validator("choice", mode="before")
    @classmethod
    def _read_exponents(cls, given: Any) -> Any:
        if not isinstance(given, list):
            return given
        return [float(v) if isinstance(v, str) and _EXPONENT.fullmatch(v) else v for v in given]

    @field_validator("choice")
    @classmethod
    def _values_differ(cls, given: list[Any] | None) -> list[Any] | None:
        for i, value in enumerate(given or []):
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError):
                raise ValueError(
                    f"{value!r:.60} cannot be a choice; give numbers, text, booleans, null, lists or mappings"
                ) from None
            if any(same_value(value, other) for other in (given or [])[:i]):
                raise ValueError(f"{value!r:.60} is given twice; remove one")
        return given

    @model_validator(mode="after")
    def _kind_and_bounds(self) -> "ParameterSpace":
        given = [name for name, value in self._kinds.items() if value is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"expected exactly one of choice, int, float and boolean, found {found}")
        bounds = self.bounds
        if bounds is None:
            extra = [key for key, wanted in (("step", self.step is not None), ("log", self.log)) if wanted]
            if extra:
                raise ValueError(
                    f"{' and '.join(extra)}: only with int and float, not with {given[0]}; leave out"
                )
            return self
        low, high = bounds
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(
                f"{self.kind} needs two finite bounds, the smaller one first, not {list(bounds)}"
            )
        if self.log and low <= 0:
            raise ValueError(f"log needs bounds above 0, not {list(bounds)}; change them or leave out log")
        if self.step is not None:
            self._check_step(low, high, self.step)
        return self

    def _check_step(self, low: float, high: float, step: float) -> None:
        if not math.isfinite(step) or (self.int_ is not None and step != int(step)):
            raise ValueError(
                f"step={step:g} of {self.kind} is not a {'whole' if self.int_ else 'finite'} number"
            )
        if self.log and step <= 1:
            raise ValueError(f"step={step:g} with log is the factor between values; give one above 1")
        span = math.log(high / low, step) if self.log else (high - low) / step
        if span < 1 - _SLACK:
            raise ValueError(f"step={step:g} leads from {low:g} beyond {high:g}; give a smaller one")
        if self.int_ is None and span > MAX_VALUES:
            raise ValueError(f"step={step:g} makes more than {MAX_VALUES} values; give a larger one or none")

    @property
    def _kinds(self) -> dict[str, Any]:
        return {"choice": self.choice, "int": self.int_, "float": self.float_, "boolean": self.boolean}

    @property
    def kind(self) -> str:
        """``choice``, ``int``, ``float`` or ``boolean``."""
        return next(name for name, value in self._kinds.items() if value is not None)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Smallest and largest value of int and float."""
        both = self.int_ if self.int_ is not None else self.float_
        return None if both is None else (both[0], both[1])

    @property
    def values(self) -> Sequence[Any] | None:
        """All values in order; None for a float without step.

        Values of a float with step are exact decimals: 0.1, 0.2, 0.3.
        """
        if self.choice is not None:
            return self.choice
        if self.boolean is not None:
            return [False, True]
        if self.int_ is not None:
            low, high = self.int_
            if not self.log or self.step is None:
                return range(low, high + 1, int(self.step or 1))
            factor = int(self.step)
            return [low * factor**i for i in range(math.floor(math.log(high / low, factor) + _SLACK) + 1)]
        if self.float_ is None or self.step is None:
            return None
        low_, high_, step = (Decimal(repr(v)) for v in (*self.float_, self.step))
        if not self.log:
            return [float(low_ + i * step) for i in range(int((high_ - low_) / step) + 1)]
        number = math.floor(math.log(self.float_[1] / self.float_[0], self.step) + _SLACK) + 1
        return [min(float(low_ * step**i), self.float_[1]) for i in range(number)]

    @property
    def conditions(self) -> dict[str, list[Any]]:
        """``when`` with a list of values for each key."""
        return {key: given if isinstance(given, list) else [given] for key, given in self.when.items()}


def full_conditions(space: Mapping[str, ParameterSpace]) -> dict[str, dict[str, list[Any]]]:
    """Return searched key -> key it depends on -> values for which it is searched.

    Indirect conditions are included. Each key comes after the keys that it depends on; otherwise the order
    is that of ``space``.

    Raises:
        ValueError: a condition names a key or value that is not searched, goes in a circle, or never holds.
    """
    done: dict[str, dict[str, list[Any]]] = {}

    def add(key: str, behind: tuple[str, ...]) -> None:
        if key in done:
            return
        if key in behind:
            circle = " -> ".join((*behind[behind.index(key) :], key))
            raise ValueError(f"{key}: when goes in a circle, {circle}; remove one of them")
        needed: dict[str, list[Any]] = {}
        for other, wanted in space[key].conditions.items():
            _check_condition(key, other, wanted, space)
            add(other, (*behind, key))
            for name, values in (*done[other].items(), (other, wanted)):
                both = [
                    v for v in values if name not in needed or any(same_value(v, w) for w in needed[name])
                ]
                if not both:
                    raise ValueError(f"{key}: when never holds, it needs two values of {name}; change it")
                needed[name] = both
        done[key] = needed

    for key in space:
        add(key, ())
    return done


def _check_condition(key: str, other: str, wanted: list[Any], space: Mapping[str, ParameterSpace]) -> None:
    """Refuse a condition on a key that is not searched, or on values that it does not take."""
    if other not in space or other == key:
        known = ", ".join(name for name in space if name != key) or "none"
        raise ValueError(f"{key}: when names {other}, which is no other searched key; they are {known}")
    if not wanted:
        raise ValueError(f"{key}: when gives no value of {other}; give one or several")
    values = space[other].values
    if values is None:
        raise ValueError(f"{key}: when names {other}, a range without step; conditions need single values")
    for value in wanted:
        if not any(same_value(value, v) for v in values):
            raise ValueError(f"{key}: when wants {value!r:.60} of {other}, which is none of its values")


def _check_together(space: dict[str, ParameterSpace]) -> dict[str, ParameterSpace]:
    full_conditions(space)
    paths = [path for key, keys in space.items() for path in (key, *keys.also)]
    twice = next((path for path in paths if paths.count(path) > 1), "")
    if twice:
        raise ValueError(f"{twice}: searched twice, or searched and also set by another key; remove one")
    return space


# Dotted path of a key -> its values.
SearchedKeys = Annotated[dict[str, ParameterSpace], Field(min_length=1), AfterValidator(_check_together)]
Weight = Annotated[float, Field(allow_inf_nan=False)]
Space = Annotated[Annotated[str, Tag("(name)")] | Annotated[SearchedKeys, Tag("(mapping)")], _FORM]
Objective = Annotated[Annotated[str, Tag("(name)")] | Annotated[dict[str, Weight], Tag("(mapping)")], _FORM]


class ConfirmConfig(Section):
    """After the search: train the best configurations and the default one again with other seeds."""

    top: NonNegativeInt = Field(1, description="so many of the best configurations; 0 = none")
    seeds: Annotated[int, Field(ge=2)] = Field(3, description="seeds of each, the same for all")
    keep_checkpoints: bool = Field(
        False, description="keep the weights of these trainings, for mlpf evaluate; else only histories stay"
    )


class HypertuneConfig(Section):
    """A search for hyperparameters; a trial trains for at most ``setup.num_epochs`` epochs."""

    algorithm: Literal["random", "bayesian", "hyperband", "asha"] = Field(
        "asha", description="how configurations are chosen, and how long each is trained"
    )
    objective: Objective = Field(
        "val_loss",
        description="recorded metric to make small, or a weighted sum of several as metric: weight; "
        "val_jet_iqr and val_met_iqr are short for val_jet_response_iqr and val_met_response_iqr",
    )
    objective_epoch: Literal["best", "last"] = Field(
        "best", description="epoch of a trial that counts: that with the smallest objective, or the last"
    )
    max_parameters: PositiveInt | None = Field(
        None, description="a trial with more weights fails before it is trained; null = no limit"
    )
    max_inference_ms: PositiveFloat | None = Field(
        None,
        description="a trial whose network takes longer for one event, in ms, fails before it is trained; "
        "null = no limit",
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(1, description="seed of the choice of configurations")
    num_trials: PositiveInt = Field(
        16, description="configurations in all; for hyperband their number follows from setup.num_epochs"
    )
    max_total_epochs: PositiveInt | None = Field(
        None,
        description="no new trial or promotion once so many epochs were given out, confirmation apart; "
        "null = no limit",
    )
    max_total_hours: PositiveFloat | None = Field(
        None,
        description="hours of the search, summed over restarts, after which no new trial, promotion or "
        "confirmation begins; null = no limit",
    )
    max_device_hours: PositiveFloat | None = Field(
        None,
        description="GPU-hours of all trials (core-hours without GPUs), after which no new trial, promotion "
        "or confirmation begins; null = no limit",
    )
    max_trial_hours: PositiveFloat | None = Field(
        None, description="a trial that takes longer for its epochs fails; null = no limit"
    )
    factor: Annotated[int, Field(ge=2)] = Field(
        3, description="hyperband and asha: of so many trials one is promoted, to so many times the epochs"
    )
    min_epochs: PositiveInt = Field(1, description="hyperband and asha: epochs of the first rung")
    iterations: PositiveInt = Field(1, description="hyperband: repetitions of the whole algorithm")
    initial_points: PositiveInt | None = Field(
        None, description="bayesian: random trials before the first guess; null = three per searched key"
    )
    max_retries: NonNegativeInt = Field(1, description="times that a trial is repeated whose process crashed")
    max_losses: NonNegativeInt = Field(
        10, description="times that a trial may be lost with its worker before it counts as failed"
    )
    max_consecutive_failures: PositiveInt = Field(
        5,
        description="trials in a row whose crash ends the search; memory, NaN and limits do not count",
    )
    confirm: ConfirmConfig = Field(ConfirmConfig(), description="error of the gain")
    space: Space = Field(
        description="keys to search, by dotted path; or the name of a ready space, gnn_dense or transformer"
    )

    @model_validator(mode="after")
    def _some_weight(self) -> "HypertuneConfig":
        if not self.objective or not any(self.objective_terms.values()):
            raise ValueError("objective: no metric with a weight; give one, such as val_loss")
        return self

    @property
    def objective_terms(self) -> dict[str, float]:
        """Recorded metric -> weight of the sum that is made small."""
        terms = {self.objective: 1.0} if isinstance(self.objective, str) else self.objective
        return {METRIC_ALIASES.get(name, name): weight for name, weight in terms.items()}
