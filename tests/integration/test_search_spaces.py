"""Networks of the ready search spaces: what the configuration accepts, the models accept."""

import random

import keras
import pytest

from mlpf.config import load_config
from mlpf.config.search.combinations import combinations
from mlpf.config.search.space import load_space, trial_config
from mlpf.runs.trained import build_network


@pytest.mark.parametrize("name", ["clic-demo", "clic", "clic-transformer"])
def test_drawn_networks_can_be_built(repo_root, name):
    config = load_config(repo_root / "parameters" / f"{name}-hypertune.yaml")
    sets = random.Random(1).sample(combinations(load_space(config.hypertune)), 3)
    sizes = {build_network(trial_config(config, values)).count_params() for values in sets}
    keras.backend.clear_session()
    assert len(sizes) > 1
