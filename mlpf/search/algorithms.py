"""The search algorithms by name: random and Bayesian of keras-tuner, and our own ASHA and Hyperband."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlpf.config.schema import Config
from mlpf.config.search.space import load_space, search_section
from mlpf.search.keras_tuner_adapter import STOPPED, BayesianProposer, RandomProposer
from mlpf.search.oracle import SearchOracle
from mlpf.search.successive_halving import AshaOracle, HyperbandOracle


class _LimitedOracle(SearchOracle):
    """Stops after ``num_trials`` configurations."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Return the values of the next trial."""
        if len(self.records) >= self.hypertune.num_trials:
            return STOPPED
        answer: dict[str, Any] = super().populate_space(trial_id)
        return answer


class RandomOracle(_LimitedOracle, RandomProposer):
    """Independent random configurations."""


class BayesianOracle(_LimitedOracle, BayesianProposer):
    """Gaussian process with an upper confidence bound."""


def build_oracle(directory: Path, config: Config, clock: Callable[[], float] = time.time) -> SearchOracle:
    """Build the algorithm that ``hypertune.algorithm`` names.

    Args:
        directory: of the search.
        config: the whole configuration, with its section ``hypertune``.
        clock: returns Unix time.

    Raises:
        ConfigError: no section ``hypertune``.
    """
    section = search_section(config)
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
    return HyperbandOracle(**common) if section.algorithm == "hyperband" else AshaOracle(**common)
