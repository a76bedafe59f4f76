"""A search space in keras-tuner's terms and back. Keras comes first: in this process it is not NumPy's."""

import json
import random

import keras  # noqa: F401 - keras-tuner takes the Keras that is there
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from mlpf.config.search.schema import HypertuneConfig, SearchedKeys, full_conditions, same_value
from mlpf.config.search.space import load_space, ready_spaces
from mlpf.search.hyperparameters import build_hyperparameters, decode, import_keras_tuner
from tests.support.child_process import run_without

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.floats(-1e6, 1e6, allow_nan=False),
    st.text(max_size=5),
)
VALUES = st.one_of(
    SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(st.text(max_size=3), SCALARS, max_size=2)
)


def searched(keys):
    return TypeAdapter(SearchedKeys).validate_python(keys)


def distinct(values):
    return all(not same_value(a, b) for i, a in enumerate(values) for b in values[:i])


@st.composite
def entries(draw):
    kind = draw(st.sampled_from(["choice", "whole", "int", "float", "boolean"]))
    if kind == "choice":
        return {"choice": draw(st.lists(VALUES, min_size=1, max_size=4).filter(distinct))}
    if kind == "whole":
        return {"choice": draw(st.lists(st.integers(-999, 999), min_size=1, max_size=4, unique=True))}
    if kind == "boolean":
        return {"boolean": True}
    log = draw(st.booleans())
    if kind == "int":
        low = draw(st.integers(1, 50))
        high, step = low + draw(st.integers(1, 500)), draw(st.sampled_from([None, 2, 3]))
        fits = step is None or (low * step <= high if log else low + step <= high)
        return {"int": [low, high], "log": log, "step": step if fits else None}
    low = draw(st.floats(1e-6, 10.0))
    factor = draw(st.floats(1.5, 100.0))
    step = (
        draw(st.sampled_from([None, 1.1])) if log else draw(st.sampled_from([None, low * (factor - 1) / 3.5]))
    )
    return {"float": [low, low * factor], "log": log, "step": step}


@st.composite
def spaces(draw):
    keys = {f"a.k{i}": draw(entries()) for i in range(draw(st.integers(1, 5)))}
    names = list(keys)
    for i, name in enumerate(names[1:], start=1):
        parent = draw(st.sampled_from(names[:i]))
        values = searched({parent: {**keys[parent], "when": {}}})[parent].values
        if values is not None and draw(st.booleans()):
            # a list in `when` is a list of values
            keys[name]["when"] = {parent: [draw(st.sampled_from(list(values)))]}
    return searched(keys)


def sampled(hyperparameters, seed):
    """Fill in random values, as the oracles of keras-tuner do."""
    filled = hyperparameters.copy()
    filled.values = {}
    for number, hyperparameter in enumerate(filled.space):
        if filled.is_active(hyperparameter):
            filled.values[hyperparameter.name] = hyperparameter.random_sample(seed + number)
    return filled


def allowed(space, value):
    if space.values is None:
        low, high = space.bounds
        return isinstance(value, float) and low <= value <= high
    return any(type(value) is type(v) and value == v for v in space.values)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(spaces(), st.integers(0, 10**6))
def test_what_is_drawn_comes_back_as_a_value_of_the_space(space, seed):
    filled = sampled(build_hyperparameters(space), seed)
    values = decode(space, {**filled.values, "tuner/epochs": 3, "tuner/trial_id": "7"})
    active = {
        key
        for key, needed in full_conditions(space).items()
        if all(k in values and any(same_value(values[k], v) for v in wanted) for k, wanted in needed.items())
    }
    assert values.keys() == active
    assert all(allowed(space[key], value) for key, value in values.items())


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(spaces(), st.integers(0, 10**6))
def test_messages_between_processes_change_nothing(space, seed):
    filled = sampled(build_hyperparameters(space), seed)
    received = type(filled).from_proto(filled.to_proto())
    assert [json.dumps(item) for item in decode(space, received.values).items()] == [
        json.dumps(item) for item in decode(space, filled.values).items()
    ]
    stored = type(filled).from_config(json.loads(json.dumps(filled.get_config())))
    assert decode(space, stored.values) == decode(space, filled.values)


def test_a_gaussian_process_takes_what_comes_back_from_workers(tmp_path):
    """The oracle that looks up in the space what messages bring back."""
    space = searched(
        {
            "a": {"float": [0.1, 0.7], "step": 0.1},
            "b": {"choice": [0.1, 0.3, 0.7]},
            "c": {"float": [1e-4, 1e-1], "log": True},
            "d": {"choice": [None, [1, 2], "x"]},
            "e": {"int": [1, 64], "log": True, "when": {"d": [None, "x"], "b": [0.1, 0.3]}},
        }
    )
    tuner = import_keras_tuner()
    oracle = tuner.oracles.BayesianOptimizationOracle(
        objective=tuner.Objective("score", "min"),
        max_trials=14,
        num_initial_points=5,
        hyperparameters=build_hyperparameters(space),
        allow_new_entries=False,
        tune_new_entries=False,
        seed=1,
    )
    oracle._set_project_dir(tmp_path, "search")
    seen = []
    for _ in range(12):
        trial = oracle.create_trial("worker0")
        received = type(trial).from_proto(trial.to_proto())
        values = decode(space, received.hyperparameters.values)
        assert values == decode(space, trial.hyperparameters.values)
        oracle.update_trial(trial.trial_id, {"score": (values["a"] - 0.4) ** 2 + (values["b"] - 0.7) ** 2})
        received.status = "COMPLETED"
        oracle.end_trial(received)
        seen.append(values)
    assert len({json.dumps(values, sort_keys=True) for values in seen}) == 12


@pytest.mark.parametrize("name", ready_spaces())
def test_all_values_of_a_space_are_drawn(name):
    space = load_space(HypertuneConfig(space=name))
    hyperparameters = build_hyperparameters(space)
    drawn = {key: set() for key in space}
    for seed in range(200):
        for key, value in decode(space, sampled(hyperparameters, seed * 100).values).items():
            drawn[key].add(value)
    for key, entry in space.items():
        if entry.values is not None:
            assert drawn[key] == set(entry.values), key


def test_the_last_value_of_a_range_with_step_is_drawn():
    # keras-tuner alone stops at 0.2, because (0.3 - 0.1) // 0.1 is 1
    space = searched({"a": {"float": [0.1, 0.3], "step": 0.1}})
    hyperparameters = build_hyperparameters(space)
    found = {decode(space, sampled(hyperparameters, seed).values)["a"] for seed in range(40)}
    assert found == {0.1, 0.2, 0.3}


def test_equal_shares_for_equal_factors():
    space = searched({"a": {"float": [1e-4, 1e-2], "log": True}})
    (hyperparameter,) = build_hyperparameters(space).space
    drawn = [hyperparameter.prob_to_value(random.Random(seed).random()) for seed in range(400)]
    # half of them below the geometric mean: 200 +- 10
    assert 160 < sum(value < 1e-3 for value in drawn) < 240


def test_two_independent_conditions_hold_together():
    space = searched(
        {
            "a": {"choice": ["x", "y"]},
            "b": {"boolean": True},
            "c": {"int": [1, 4], "when": {"a": "x", "b": True}},
        }
    )
    hyperparameters = build_hyperparameters(space)
    for seed in range(40):
        values = decode(space, sampled(hyperparameters, seed * 10).values)
        assert ("c" in values) == (values["a"] == "x" and values["b"] is True)


@pytest.mark.parametrize(
    ("values", "message"),
    [({}, "a: the trial has no value of it"), ({"a": 3}, "a: 3 is none of its values")],
)
def test_values_of_another_space_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        decode(searched({"a": {"choice": [1, 2]}}), values)


def test_keras_tuner_that_is_not_installed_is_named(repo_root):
    said = run_without(
        repo_root,
        "keras_tuner",
        """
import json
from mlpf.errors import MissingDependency
from mlpf.search.hyperparameters import import_keras_tuner
try:
    import_keras_tuner()
except MissingDependency as error:
    print(json.dumps(str(error)))
""",
    )
    assert "pip install -e '.[hypertune]'" in said
