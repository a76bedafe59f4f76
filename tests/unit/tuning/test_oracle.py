import json
import random
from collections import Counter

import pytest

from mlpf.config.loading import RESOLVED_FILE, write_resolved
from mlpf.errors import CheckpointError
from mlpf.tuning.algorithms import build_oracle
from tests.support.search import complete, drive, search_config, state_of


def make(directory, **section):
    config = search_config(**section)
    write_resolved(config, directory / RESOLVED_FILE)
    return build_oracle(directory, config)


def reloaded(directory, **section):
    oracle = make(directory, **section)
    oracle.reload()
    return oracle


def test_every_trial_of_a_random_search_ends_once_with_full_epochs(tmp_path):
    oracle = make(tmp_path, algorithm="random", num_trials=5)
    order = drive(oracle, num_workers=2)
    assert order == ["0000", "0001", "0002", "0003", "0004"]
    assert oracle.end_order == sorted(oracle.end_order) or sorted(oracle.end_order) == order
    assert oracle.finished
    assert {r.epochs for r in oracle.records.values()} == {9}


def test_configurations_follow_from_the_seed_not_from_the_workers(tmp_path):
    found = []
    for name, seed, num_workers in (("a", 1, 1), ("b", 1, 3), ("c", 2, 1)):
        (tmp_path / name).mkdir()
        oracle = make(tmp_path / name, algorithm="random", num_trials=6, seed=seed)
        drive(oracle, num_workers=num_workers)
        found.append([r.values for r in oracle.records.values()])
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_a_seed_of_zero_is_a_seed(tmp_path):
    values = []
    for name in "ab":
        (tmp_path / name).mkdir()
        oracle = make(tmp_path / name, algorithm="random", seed=0)
        oracle.create_trial("w")
        values.append(oracle.records["0000"].values)
    assert values[0] == values[1]


def test_inactive_keys_are_not_among_the_values(tmp_path):
    oracle = make(tmp_path, algorithm="random", num_trials=20)
    drive(oracle)
    kinds = Counter(r.values["setup.optimizer"] for r in oracle.records.values())
    assert min(kinds["adam"], kinds["adamw"]) > 2
    for record in oracle.records.values():
        assert ("optimizer.adamw.weight_decay" in record.values) == (
            record.values["setup.optimizer"] == "adamw"
        )


def test_the_budget_of_epochs_ends_a_search(tmp_path):
    oracle = make(tmp_path, algorithm="random", num_trials=50, max_total_epochs=20)
    drive(oracle)
    assert len(oracle.records) == 3  # 9, 18, 27 >= 20


def test_a_trial_ends_once_whatever_is_reported(tmp_path):
    oracle = make(tmp_path, algorithm="random", num_trials=2)
    trial = oracle.create_trial("w")
    assert complete(oracle, "w", trial)
    assert not complete(oracle, "w", trial)
    assert not oracle.finish_trial("other", trial.trial_id, "FAILED", failure="late")
    assert oracle.end_order == ["0000"]
    assert oracle.records["0000"].status == "completed"


def test_a_worker_that_asks_again_has_the_same_trial(tmp_path):
    oracle = make(tmp_path, algorithm="random")
    trial = oracle.create_trial("w", holder="first")
    assert oracle.create_trial("w", holder="first").trial_id == trial.trial_id
    assert oracle.records[trial.trial_id].losses == 0
    assert oracle.create_trial("w", holder="second").trial_id == trial.trial_id
    assert oracle.records[trial.trial_id].losses == 1
    assert len(oracle.records) == 1


def test_a_trial_lost_too_often_fails_and_the_search_goes_on(tmp_path):
    oracle = make(tmp_path, algorithm="random", num_trials=2, max_losses=2)
    for holder in "abc":
        assert oracle.create_trial("w", holder=holder).trial_id == "0000"
    assert oracle.create_trial("w", holder="d").trial_id == "0001"
    lost = state_of(tmp_path)["0000"]
    assert (lost.status, lost.failure_kind, lost.losses) == ("failed", "lost", 3)


def test_a_crash_is_repeated_and_then_counts_as_failed(tmp_path):
    oracle = make(tmp_path, algorithm="random", num_trials=1, max_retries=1)
    for attempt in (1, 2):
        trial = oracle.create_trial("w")
        assert trial.trial_id == "0000"
        oracle.finish_trial("w", "0000", "INVALID", failure="exit code 1", seconds=3.0 * attempt)
    record = state_of(tmp_path)["0000"]
    assert (record.status, record.crashes, record.failure, record.seconds) == (
        "failed",
        2,
        "exit code 1",
        6.0,
    )
    assert oracle.create_trial("w").status == "STOPPED"


def test_memory_and_nan_are_not_repeated(tmp_path):
    oracle = make(tmp_path, algorithm="random", num_trials=9, max_retries=3, max_consecutive_failures=2)
    for kind in ("memory", "nan", "limit", "memory"):
        trial = oracle.create_trial("w")
        oracle.finish_trial("w", trial.trial_id, "FAILED", failure="no", kind=kind)
    assert len(oracle.records) == 4
    assert not oracle.problem


def test_crashes_in_a_row_end_the_search(tmp_path):
    oracle = make(tmp_path, algorithm="random", num_trials=9, max_retries=0, max_consecutive_failures=3)
    for _ in range(3):
        trial = oracle.create_trial("w")
        oracle.finish_trial("w", trial.trial_id, "INVALID", failure="no such dataset")
    assert oracle.create_trial("w").status == "STOPPED"
    assert oracle.finished
    assert oracle.problem == "3 trials in a row failed, the last: no such dataset"


def test_a_released_trial_goes_to_whoever_asks_first(tmp_path):
    oracle = make(tmp_path, algorithm="random", num_trials=3)
    first = oracle.create_trial("a")
    oracle.create_trial("b")
    oracle.give_back("a")
    assert oracle.records[first.trial_id].status == "waiting"
    assert oracle.create_trial("c").trial_id == first.trial_id
    assert oracle.records[first.trial_id].losses == 0


def test_idle_while_others_run(tmp_path):
    oracle = make(tmp_path, algorithm="random", num_trials=1)
    trial = oracle.create_trial("a")
    assert oracle.create_trial("b").status == "IDLE"
    complete(oracle, "a", trial)
    assert oracle.create_trial("b").status == "STOPPED"


def test_confirmation_trains_best_and_default_with_other_seeds(tmp_path):
    oracle = make(tmp_path, algorithm="random", num_trials=4, confirm={"top": 2, "seeds": 3})
    drive(oracle, num_workers=2)
    search = [r for r in oracle.records.values() if r.purpose == "search"]
    confirm = [r for r in oracle.records.values() if r.purpose == "confirm"]
    best = sorted(search, key=lambda r: r.objective)[:2]
    assert Counter(r.of for r in confirm) == {best[0].run: 3, best[1].run: 3, "default": 3}
    assert {r.seed for r in confirm} == {2, 3, 4}  # setup.seed is 1
    assert all(r.values == {} for r in confirm if r.of == "default")
    assert all(r.values == best[0].values for r in confirm if r.of == best[0].run)
    assert len({r.run for r in confirm}) == 9


def test_nothing_completed_nothing_to_confirm(tmp_path):
    oracle = make(tmp_path, algorithm="random", num_trials=1, confirm={"top": 1, "seeds": 2})
    trial = oracle.create_trial("w")
    oracle.finish_trial("w", trial.trial_id, "FAILED", failure="x", kind="nan")
    assert oracle.create_trial("w").status == "STOPPED"


@pytest.mark.parametrize("algorithm", ["random", "bayesian", "hyperband", "asha"])
def test_a_search_reloaded_after_each_call_is_the_same_search(tmp_path, algorithm):
    section = {
        "algorithm": algorithm,
        "num_trials": 5,
        "initial_points": 3,
        "confirm": {"top": 1, "seeds": 2},
    }
    for name in ("at_once", "reloaded"):
        (tmp_path / name).mkdir()
    oracle = make(tmp_path / "at_once", **section)
    drive(oracle)
    other = make(tmp_path / "reloaded", **section)
    other.save()
    while True:
        trial = (other := reloaded(tmp_path / "reloaded", **section)).create_trial("w")
        if trial.status == "STOPPED":
            break
        other = reloaded(tmp_path / "reloaded", **section)
        complete(other, "w", other.create_trial("w"))
    wanted = {i: (r.values, r.epochs, r.objective, r.run) for i, r in oracle.records.items()}
    assert {i: (r.values, r.epochs, r.objective, r.run) for i, r in other.records.items()} == wanted


@pytest.mark.parametrize("algorithm", ["random", "hyperband", "asha"])
@pytest.mark.parametrize("seed", range(8))
def test_deaths_at_random_lose_and_repeat_nothing(tmp_path, algorithm, seed):
    """Workers and chief die at random moments; every trial ends exactly once, with the result it had."""
    generator = random.Random(seed)
    section = {"algorithm": algorithm, "num_trials": 8, "max_losses": 1000, "max_retries": 100}
    oracle = make(tmp_path, **section)
    oracle.save()
    running, holders, results = {}, Counter(), Counter()
    for _ in range(3000):
        worker = f"w{generator.randrange(3)}"
        event = generator.random()
        if event < 0.1:  # the chief dies
            oracle = reloaded(tmp_path, **section)
        elif event < 0.2:  # the worker dies; the next process of that name begins
            running.pop(worker, None)
            holders[worker] += 1
        elif event < 0.25 and worker in oracle.ongoing_trials:  # silent too long
            oracle.lose(worker)
        elif event < 0.3 and worker in running:  # the process of a trial crashes
            oracle.finish_trial(worker, running.pop(worker).trial_id, "INVALID", failure="crash")
        elif worker in running:
            trial = running.pop(worker)
            results[trial.trial_id] += complete(oracle, worker, trial)
        else:
            trial = oracle.create_trial(worker, holder=f"{worker}/{holders[worker]}")
            if trial.status == "STOPPED":
                break
            if trial.status == "RUNNING":
                running[worker] = trial
    assert oracle.finished
    assert set(results) == set(oracle.records)
    assert set(results.values()) == {1}
    assert sorted(oracle.end_order) == sorted(oracle.records)
    assert {r.status for r in state_of(tmp_path).values()} == {"completed"}


def test_a_damaged_state_is_named(tmp_path):
    oracle = make(tmp_path)
    oracle.save()
    file = tmp_path / "oracle.json"
    file.write_text(json.dumps({"trials": {}}))
    with pytest.raises(CheckpointError, match=r"oracle\.json: damaged"):
        oracle.reload()


def test_checkpoints_are_kept_of_what_runs_and_of_the_best(tmp_path):
    oracle = make(tmp_path, algorithm="random", num_trials=6, confirm={"top": 2, "seeds": 2})
    for _ in range(4):
        complete(oracle, "w", oracle.create_trial("w"))
    oracle.create_trial("w")
    best = sorted((r for r in oracle.records.values() if r.status == "completed"), key=lambda r: r.objective)
    assert oracle.runs_to_keep() == {best[0].run, best[1].run, "0004"}
