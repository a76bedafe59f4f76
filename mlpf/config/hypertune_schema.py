"""Section ``hypertune``: which keys of the configuration are searched, how, and for what."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from mlpf.config.model_schema import Section

# Short names of recorded metrics.
METRIC_ALIASES = {"val_jet_iqr": "val_jet_response_iqr", "val_met_iqr": "val_met_response_iqr"}

Bounds = Annotated[list[float], Field(min_length=2, max_length=2)]
WholeBounds = Annotated[list[int], Field(min_length=2, max_length=2)]


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
    when: dict[str, Any] = Field(
        {},
        description="searched only where other searched keys have these values (one value, or a list)",
    )


class ConfirmConfig(Section):
    """After the search: the best configurations and the default one trained again with other seeds."""

    top: NonNegativeInt = Field(1, description="so many of the best configurations; 0 = none")
    seeds: Annotated[int, Field(ge=2)] = Field(3, description="seeds of each, the same for all")


class HypertuneConfig(Section):
    """A search for hyperparameters; a trial trains for at most ``setup.num_epochs`` epochs."""

    algorithm: Literal["random", "bayesian", "hyperband", "asha"] = Field(
        "asha", description="how configurations are chosen, and how long each is trained"
    )
    objective: str | dict[str, float] = Field(
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
        description="no new configuration once all trials have been given so many epochs; null = no limit",
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
    lease_seconds: PositiveFloat = Field(
        60.0, description="silence of a worker in s after which its trial is given to another"
    )
    confirm: ConfirmConfig = Field(ConfirmConfig(), description="error of the gain")
    space: str | dict[str, ParameterSpace] = Field(
        description="keys to search, by dotted path; or the name of a ready space, gnn_dense or transformer"
    )

    @model_validator(mode="after")
    def _some_weight(self) -> "HypertuneConfig":
        if not self.objective or not any(self.objective_terms.values()):
            raise ValueError("hypertune.objective: no metric with a weight; give one, such as val_loss")
        return self

    @property
    def objective_terms(self) -> dict[str, float]:
        """Recorded metric -> weight of the sum that is made small."""
        terms = {self.objective: 1.0} if isinstance(self.objective, str) else self.objective
        return {METRIC_ALIASES.get(name, name): weight for name, weight in terms.items()}
