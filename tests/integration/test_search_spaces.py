"""Networks of the ready search spaces: what the configuration accepts, the models accept."""

import random

import keras
import pytest

from mlpf.config import load_config
from mlpf.config.search.space import drawn_values, load_space, trial_config
from mlpf.runs.trained import build_network


@pytest.mark.parametrize("name", ["clic-demo", "clic", "clic-transformer"])
def test_drawn_networks_can_be_built(repo_root, name):
    config = load_config(repo_root / "parameters" / f"{name}-hypertune.yaml")
    generator, space = random.Random(1), load_space(config.hypertune)
    sets = [drawn_values(space, {}, generator) for _ in range(3)]
    sizes = {build_network(trial_config(config, values)).count_params() for values in sets}
    keras.backend.clear_session()
    assert len(sizes) > 1
