import statistics
from collections import Counter

import pytest

from mlpf.config.loading import write_resolved
from mlpf.files.run_directory import RESOLVED_CONFIG
from mlpf.search.algorithms import build_oracle
from tests.support.search import drive, search_config

LR = "setup.lr"


def make(directory, **section):
    config = search_config(**section)
    write_resolved(config, directory / RESOLVED_CONFIG)
    return build_oracle(directory, config)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        # Brackets of 9, 5 and 3 configurations; of each round the best third goes on.
        ({}, {(0, 1): 9, (1, 3): 3 + 0, (2, 9): 1, (0, 3): 5, (1, 9): 2, (0, 9): 3}),
        ({"min_epochs": 3}, {(0, 3): 5, (1, 9): 2, (0, 9): 3}),
        ({"factor": 9}, {(0, 1): 9, (1, 9): 1, (0, 9): 2}),
        ({"min_epochs": 3, "iterations": 2}, {(0, 3): 10, (1, 9): 4, (0, 9): 6}),
    ],
)
def test_hyperband_has_the_brackets_of_its_settings(tmp_path, settings, wanted):
    oracle = make(tmp_path, algorithm="hyperband", **settings)
    drive(oracle, num_slots=3)
    assert Counter((r.rung, r.epochs) for r in oracle.records.values()) == wanted


def test_hyperband_promotes_the_best_of_a_round(tmp_path):
    oracle = make(tmp_path, algorithm="hyperband")
    drive(oracle)
    first = [r for r in oracle.records.values() if (r.rung, r.epochs) == (0, 1)]
    second = [r for r in oracle.records.values() if (r.rung, r.epochs) == (1, 3)]
    best = sorted(first, key=lambda r: r.objective)[:3]
    assert {r.run for r in second} == {r.run for r in best}
    assert {r.initial_epoch for r in second} == {1}


@pytest.mark.parametrize("seed", range(6))
def test_hyperband_keeps_the_checkpoints_it_needs(tmp_path, seed):
    removed = set()

    def look(oracle):
        assert not {r.run for r in oracle.records.values() if r.status == "running"} & removed
        removed.update({r.run for r in oracle.records.values()} - oracle.runs_to_keep())

    drive(make(tmp_path, algorithm="hyperband"), num_slots=1 + seed % 3, seed=seed, on_step=look)
    assert removed


@pytest.mark.parametrize("seed", range(4))
def test_hyperband_promotes_as_many_when_trials_fail(tmp_path, seed):
    """Of nine, two fail: the best three of the other seven go on all the same."""
    oracle = make(tmp_path, algorithm="hyperband")
    drive(oracle, num_slots=1 + seed % 3, seed=seed, fails=lambda r: r.trial_id in ("0001", "0004"))
    records = oracle.records.values()
    assert sum(r.status == "failed" for r in records) == 2
    wanted = {(0, 1): 9, (1, 3): 3, (2, 9): 1, (0, 3): 5, (1, 9): 2, (0, 9): 3}
    assert Counter((r.rung, r.epochs) for r in records) == wanted


def test_hyperband_goes_on_when_all_of_a_round_fail(tmp_path):
    oracle = make(tmp_path, algorithm="hyperband")
    drive(oracle, fails=lambda r: r.epochs == 1)
    assert Counter((r.rung, r.epochs) for r in oracle.records.values()) == {
        (0, 1): 9,
        (0, 3): 5,
        (1, 9): 2,
        (0, 9): 3,
    }


def test_hyperband_promotes_in_a_space_smaller_than_its_first_round(tmp_path):
    space = {"setup.optimizer": {"choice": ["adam", "adamw", "sgd"]}}
    oracle = make(tmp_path, algorithm="hyperband", space=space)
    drive(oracle)
    assert Counter((r.rung, r.epochs) for r in oracle.records.values()) == {(0, 1): 3, (1, 3): 3, (2, 9): 1}


def test_bayesian_guesses_are_better_than_its_random_trials(tmp_path):
    """The objective is smallest at a learning rate of 0.01."""
    oracle = make(
        tmp_path,
        algorithm="bayesian",
        num_trials=16,
        initial_points=8,
        space={LR: {"float": [1e-4, 1e-1], "log": True}},
    )
    drive(oracle)
    objectives = [r.objective for r in oracle.records.values()]
    assert len(objectives) == 16
    assert statistics.median(objectives[8:]) < statistics.median(objectives[:8])
    assert min(objectives[8:]) < min(objectives[:8])


def test_fewer_initial_points_are_other_guesses(tmp_path):
    found = []
    for points in (3, 6):
        folder = tmp_path / str(points)
        folder.mkdir()
        oracle = make(folder, algorithm="bayesian", num_trials=7, initial_points=points)
        drive(oracle)
        found.append([r.values for r in oracle.records.values()])
    assert found[0][:3] == found[1][:3]
    assert found[0][3] != found[1][3]
