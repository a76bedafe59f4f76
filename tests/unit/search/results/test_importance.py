import math

import pytest

from mlpf.config.search.schema import ParameterSpace
from mlpf.errors import DataError
from mlpf.search.results.importance import MIN_TRIALS, comparable_trials, importance
from mlpf.search.state import TrialRecord
from tests.support.child_process import run_without
from tests.support.search_directories import completed

SPACE = {
    name: ParameterSpace.model_validate(space)
    for name, space in {
        "lr": {"float": [1e-4, 1.0], "log": True},
        "optimizer": {"choice": ["adam", "adamw", "lion"]},
        "layers": {"int": [1, 6]},
        "dropout": {"float": [0.0, 0.5]},
        "normalise": {"boolean": True},
    }.items()
}


def random_trials(rng, objective, number=60, **extra):
    trials = []
    for i in range(number):
        values = {
            "lr": float(10 ** rng.uniform(-4, 0)),
            "optimizer": str(rng.choice(["adam", "adamw", "lion"])),
            "layers": int(rng.integers(1, 7)),
            "dropout": float(rng.uniform(0, 0.5)),
            "normalise": bool(rng.integers(2)),
        }
        for key, make in extra.items():
            if values["optimizer"] == "adamw":
                values[key] = make(rng)
        trials.append(completed(f"{i:04d}", objective(values), values=values, epochs=1))
    return trials


def test_keys_that_matter_win_and_the_others_agree_with_zero(rng):
    def objective(values):
        return abs(math.log10(values["lr"]) + 2) + 1.2 * (values["optimizer"] == "adam")

    result = importance(random_trials(rng, objective), SPACE)
    first, second, *others = result.keys

    assert {first.key, second.key} == {"lr", "optimizer"}
    assert min(first.mean - first.std, second.mean - second.std) > 0.05
    for key in others:
        assert abs(key.mean) <= key.std, key
        assert key.mean < 0.03
    assert (result.epochs, result.num_trials) == (1, 60)


def test_one_key_that_decides_all_has_importance_near_one(rng):
    result = importance(random_trials(rng, lambda values: values["lr"], 100), SPACE)

    assert result.keys[0].key == "lr"
    assert result.keys[0].mean == pytest.approx(1.0, abs=0.2)


def test_whether_a_conditional_key_is_there_belongs_to_its_condition(rng):
    space = SPACE | {
        "decay": ParameterSpace.model_validate({"float": [0, 1], "when": {"optimizer": "adamw"}})
    }
    trials = random_trials(
        rng, lambda v: float(v["optimizer"] == "adamw"), decay=lambda r: float(r.uniform(0, 1))
    )
    found = {key.key: key for key in importance(trials, space).keys}

    assert found["optimizer"].mean > 0.2
    assert abs(found["decay"].mean) <= max(found["decay"].std, 1e-3)


def test_a_trial_that_diverged_does_not_decide(rng):
    def objective(values):
        return values["lr"]

    trials = random_trials(rng, objective, 40)
    trials[3].objective = 1e9
    found = importance(trials, SPACE).keys[0]

    assert found.key == "lr"
    assert found.mean > 0.5


def test_the_same_seed_gives_the_same_numbers(rng):
    trials = random_trials(rng, lambda values: values["lr"], 10)
    assert importance(trials, SPACE, seed=3) == importance(trials, SPACE, seed=3)


def test_too_few_trials_are_refused(rng):
    trials = random_trials(rng, lambda values: values["lr"], MIN_TRIALS - 1)
    with pytest.raises(DataError, match=f"{MIN_TRIALS - 1}, at least {MIN_TRIALS}"):
        importance(trials, SPACE)


def test_equal_objectives_are_refused():
    trials = [completed(f"{i}", 1.0, values={"lr": 0.1}, epochs=1) for i in range(MIN_TRIALS)]
    with pytest.raises(DataError, match="all 8 trials are equal"):
        importance(trials, SPACE)


def test_keys_that_no_trial_has_or_varies_have_no_importance():
    trials = [completed(f"{i}", float(i), values={"lr": 0.1}, epochs=1) for i in range(MIN_TRIALS)]
    result = importance(trials, SPACE)
    assert len(result.keys) == len(SPACE)
    assert all(abs(key.mean) < 1e-12 and key.std < 1e-12 for key in result.keys)


def test_trials_of_the_fullest_rung_compare():
    trials = [completed(f"a{i}", 1.0, epochs=1) for i in range(3)]
    trials += [completed(f"b{i}", 1.0, epochs=3) for i in range(3)]
    trials += [completed("c", 1.0, epochs=9), completed("d", 1.0, epochs=9, purpose="confirm")]
    trials += [TrialRecord(f"e{i}", "e", status="failed", epochs=9) for i in range(9)]

    assert [t.trial_id for t in comparable_trials(trials)] == ["b0", "b1", "b2"]
    assert comparable_trials([]) == []


def test_a_missing_package_is_named(repo_root):
    said = run_without(
        repo_root,
        "sklearn",
        """
import json
from mlpf.errors import MissingDependency
from mlpf.search.results.importance import importance
try:
    importance([], {})
except MissingDependency as error:
    print(json.dumps(str(error)))
""",
    )
    assert "pip install -e '.[hypertune]'" in said
