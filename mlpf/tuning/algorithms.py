"""The algorithms by name: those of keras-tuner behind our mixin, and our ASHA."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlpf.config.schema import Config
from mlpf.config.search_space import load_space
from mlpf.errors import ConfigError
from mlpf.tuning.asha import AshaOracle
from mlpf.tuning.oracle import SearchOracle, TrialStatus, keras_tuner


class _LimitedOracle(SearchOracle):
    """Stops after ``num_trials`` configurations."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Return the values of the next trial."""
        if len(self.records) >= self.hypertune.num_trials:
            return {"status": TrialStatus.STOPPED}
        return super().populate_space(trial_id)


class RandomOracle(_LimitedOracle, keras_tuner.oracles.RandomSearchOracle):
    """Independent random configurations."""


class BayesianOracle(_LimitedOracle, keras_tuner.oracles.BayesianOptimizationOracle):
    """Gaussian process with an upper confidence bound."""

    def get_state(self) -> dict[str, Any]:
        """Return everything as plain data; keras-tuner forgets its random generator."""
        kind, keys, *rest = self._random_state.get_state()
        return super().get_state() | {"random_state": [kind, keys.tolist(), *rest]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take the state of ``get_state``."""
        super().set_state(state)
        self._random_state.set_state(tuple(state["random_state"]))


class HyperbandOracle(SearchOracle, keras_tuner.oracles.HyperbandOracle):
    """Hyperband: brackets of synchronous successive halving.

    Args:
        min_epochs: epochs of the first rung; keras-tuner itself always begins with 1.
        arguments: those of the mixin and of keras-tuner.
    """

    def __init__(self, *, min_epochs: int, **arguments: Any):
        super().__init__(**arguments)
        self.min_epochs = min_epochs
        self._current_bracket = self._get_num_brackets() - 1
        self._brackets = []
        self._start_new_bracket()

    def promotable(self) -> set[str]:
        """Return ids of completed trials of rounds whose next round is not full."""
        waiting: set[str] = set()
        for bracket in self._brackets:
            rounds = bracket["rounds"]
            for number, (now, after) in enumerate(itertools.pairwise(rounds), start=1):
                if len(after) < self._get_size(bracket["bracket_num"], number):
                    promoted = {info["past_id"] for info in after}
                    waiting |= {info["id"] for info in now} - promoted
        return {i for i in waiting if i in self.records and self.records[i].status == "completed"}


def build_oracle(directory: Path, config: Config, clock: Callable[[], float] = time.time) -> SearchOracle:
    """Build the algorithm that ``hypertune.algorithm`` names.

    Args:
        directory: of the search.
        config: the whole configuration, with its section ``hypertune``.
        clock: returns Unix time.

    Raises:
        ConfigError: no section ``hypertune``.
    """
    section = config.hypertune
    if section is None:
        raise ConfigError("hypertune: the section is missing")
    common: dict[str, Any] = {
        "directory": directory,
        "config": config,
        "space": load_space(section),
        "clock": clock,
    }
    if section.algorithm == "random":
        return RandomOracle(**common)
    if section.algorithm == "bayesian":
        return BayesianOracle(**common, num_initial_points=section.initial_points)
    if section.algorithm == "hyperband":
        return HyperbandOracle(
            **common,
            min_epochs=section.min_epochs,
            max_epochs=config.setup.num_epochs,
            factor=section.factor,
            hyperband_iterations=section.iterations,
        )
    return AshaOracle(**common)
