import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpf.config import load_config
from mlpf.config.search.schema import ParameterSpace, full_conditions, same_value
from mlpf.config.search.space import drawn_values, load_space, ready_spaces, some_values, trial_config
from mlpf.errors import ConfigError
from tests.support.configs import searching

LAYER = "parameters.combined_graph_layer."


def test_a_space_that_is_given_is_taken():
    assert load_space(searching({"setup.lr": {"float": [0.1, 0.2]}}).hypertune)["setup.lr"].bounds == (
        0.1,
        0.2,
    )


def test_ready_spaces_are_those_of_the_models():
    assert ready_spaces() == ["gnn_dense", "transformer"]


def test_a_ready_space_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="no ready space 'gnn', expected one of gnn_dense, transformer"):
        load_space(searching("gnn").hypertune)


@pytest.mark.parametrize("name", ["clic-demo", "clic", "clic-transformer"])
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_every_set_of_values_is_a_configuration(repo_root, name, data):
    config = load_config(repo_root / "parameters" / f"{name}-hypertune.yaml")
    space = load_space(config.hypertune)
    values = {}
    for key, needed in full_conditions(space).items():
        if all(any(same_value(values.get(k), v) for v in wanted) for k, wanted in needed.items()):
            known = space[key].values
            drawn = st.floats(*space[key].bounds) if known is None else st.sampled_from(list(known))
            values[key] = data.draw(drawn)
    trial = trial_config(config, values)
    assert trial.hypertune is None
    written = trial.model_dump(by_alias=True)
    for key, value in values.items():
        for path in (key, *space[key].also):
            node = written
            for part in path.split("."):
                node = node[part]
            assert node == value


def test_a_trial_has_its_values_and_its_seed():
    config = searching({"setup.lr": {"float": [0.1, 0.2]}})
    trial = trial_config(config, {"setup.lr": 0.15}, seed=7)
    assert (trial.setup.lr, trial.setup.seed, trial.hypertune) == (0.15, 7, None)
    assert trial_config(config, {}).setup == config.setup


def test_a_refused_trial_names_its_values():
    with pytest.raises(
        ConfigError, match=r"setup\.lr=-1, .*=3: refused:  setup\.lr: input should be greater"
    ):
        trial_config(searching("gnn_dense"), {"setup.lr": -1, f"{LAYER}bin_size": 3})


@pytest.mark.parametrize(
    "given", [{"float": [1.0, 9.0]}, {"float": [1e-4, 1e-1], "log": True}, {"int": [1, 10**6]}]
)
def test_of_a_long_range_both_ends_and_some_within_are_looked_at(given):
    space = ParameterSpace.model_validate(given)
    values = some_values(space)
    assert (values[0], values[-1]) == pytest.approx(space.bounds, rel=1e-12)
    assert values == sorted(values)
    assert len(values) == 6


def test_numbers_within_a_range_are_not_whole_by_chance():
    assert any(value != int(value) for value in some_values(ParameterSpace(float=[16, 64])))


def test_drawn_values_are_those_of_the_keys_that_are_searched_together():
    space = load_space(
        searching(
            {
                "a": {"choice": ["x", "y"]},
                "b": {"int": [1, 3], "when": {"a": "x"}},
                "c": {"boolean": True, "when": {"b": 3}},
                "d": {"choice": [None, 1]},
                "e": {"boolean": True, "when": {"d": None}},
            }
        ).hypertune
    )
    generator = random.Random(1)
    drawn = [drawn_values(space, {"d": None}, generator) for _ in range(200)]
    assert {(v["a"], v.get("b"), v.get("c")) for v in drawn} == {
        ("x", 1, None),
        ("x", 2, None),
        ("x", 3, False),
        ("x", 3, True),
        ("y", None, None),
    }
    assert all(v["d"] is None and "e" in v for v in drawn)
