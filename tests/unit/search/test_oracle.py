import json
import random
from collections import Counter

import pytest

from mlpf.config.loading import write_resolved
from mlpf.errors import CheckpointError
from mlpf.files.run_directory import RESOLVED_CONFIG
from mlpf.search.algorithms import build_oracle
from tests.support.search import complete, drive, search_config, state_of


def make(directory, **section):
    config = search_config(**section)
    write_resolved(config, directory / RESOLVED_CONFIG)
    return build_oracle(directory, config)


def reloaded(directory, **section):
    oracle = make(directory, **section)
    oracle.reload()
    return oracle


def test_every_trial_of_a_random_search_ends_once_with_full_epochs(tmp_path):
    oracle = make(tmp_path, algorithm="random", num_trials=5)
    order = drive(oracle, num_slots=2)
    assert order == ["0000", "0001", "0002", "0003", "0004"]
    assert sorted(oracle.end_order) == order
    assert oracle.finished
    assert {r.epochs for r in oracle.records.values()} == {9}


def test_configurations_follow_from_the_seed_not_from_the_slots(tmp_path):
    found = []
    for name, seed, num_slots in (("a", 1, 1), ("b", 1, 3), ("c", 2, 1)):
        (tmp_path / name).mkdir()
        oracle = make(tmp_path / name, algorithm="random", num_trials=6, seed=seed)
        drive(oracle, num_slots=num_slots)
        found.append([r.values for r in oracle.records.values()])
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_a_seed_of_zero_is_a_seed(tmp_path):
    values = []
    for name in "ab":
        (tmp_path / name).mkdir()
        oracle = make(tmp_path / name, algorithm="random", seed=0)
        values.append(oracle.next_trial().values)
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


def test_device_hours_end_a_search_and_its_confirmation(tmp_path):
    oracle = make(
        tmp_path, algorithm="random", num_trials=50, max_device_hours=2.5, confirm={"top": 1, "seeds": 2}
    )
    while (record := oracle.next_trial(devices=4)) is not None:
        oracle.complete(record.trial_id, 1.0, 1, {}, seconds=900.0)  # 4 x 0.25 h
    assert len(oracle.records) == 3
    assert oracle.finished
    assert oracle.limit == "hypertune.max_device_hours: 3 of 2.5 h are spent"
    assert {r.purpose for r in oracle.records.values()} == {"search"}


def test_wall_time_ends_a_search_and_a_raised_limit_continues_it(tmp_path):
    section = {"algorithm": "random", "num_trials": 4}
    oracle = make(tmp_path, **section, max_total_hours=1.0)
    complete(oracle, oracle.next_trial())
    running = oracle.next_trial()
    oracle.wall_seconds = 3601.0
    assert oracle.next_trial() is None
    assert not oracle.finished  # what runs may end
    complete(oracle, running)
    assert oracle.next_trial() is None
    assert oracle.finished
    again = reloaded(tmp_path, **section, max_total_hours=1.0)
    again.resume()
    assert again.finished
    more = reloaded(tmp_path, **section, max_total_hours=2.0)
    more.resume()
    assert not more.finished
    drive(more)
    assert len(more.records) == 4


def test_a_trial_lost_too_often_fails_and_the_search_goes_on(tmp_path):
    oracle = make(tmp_path, algorithm="random", num_trials=2, max_losses=2)
    for _ in range(3):
        record = oracle.next_trial()
        assert record.trial_id == "0000"
        oracle.lose("0000", seconds=2.0)
    assert oracle.next_trial().trial_id == "0001"
    lost = state_of(tmp_path)["0000"]
    assert (lost.status, lost.failure_kind, lost.losses, lost.seconds) == ("failed", "lost", 3, 2.0)


def test_a_crash_is_repeated_and_then_counts_as_failed(tmp_path):
    oracle = make(tmp_path, algorithm="random", num_trials=1, max_retries=1)
    for attempt in (1, 2):
        assert oracle.next_trial().trial_id == "0000"
        oracle.crash("0000", "exit code 1", seconds=3.0 * attempt)
    record = state_of(tmp_path)["0000"]
    assert (record.status, record.crashes, record.failure, record.seconds) == (
        "failed",
        2,
        "exit code 1",
        6.0,
    )
    assert oracle.next_trial() is None
    assert oracle.finished


def test_memory_and_nan_do_not_end_a_search(tmp_path):
    oracle = make(tmp_path, algorithm="random", num_trials=9, max_retries=3, max_consecutive_failures=2)
    for kind in ("memory", "nan", "limit", "memory"):
        oracle.fail(oracle.next_trial().trial_id, "no", kind, 1.0)
    assert len(oracle.records) == 4
    assert not oracle.problem


def test_crashes_in_a_row_end_the_search_and_resume_tries_again(tmp_path):
    section = {"algorithm": "random", "num_trials": 9, "max_retries": 0, "max_consecutive_failures": 3}
    oracle = make(tmp_path, **section)
    for _ in range(3):
        oracle.crash(oracle.next_trial().trial_id, "no such dataset", 1.0)
    assert oracle.next_trial() is None
    assert oracle.finished
    assert oracle.problem == "3 trials in a row failed, the last: no such dataset"
    again = reloaded(tmp_path, **section)
    again.resume()
    assert not again.finished
    again.crash(again.next_trial().trial_id, "still", 1.0)
    assert not again.problem  # the three before do not count again
    drive(again)
    assert len(again.records) == 9


def test_a_trial_that_was_stopped_is_the_next(tmp_path):
    oracle = make(tmp_path, algorithm="random", num_trials=3)
    first, _ = oracle.next_trial(), oracle.next_trial()
    oracle.give_back(first.trial_id, 5.0)
    assert oracle.records[first.trial_id].status == "waiting"
    assert oracle.next_trial().trial_id == first.trial_id
    assert (first.losses, first.seconds) == (0, 5.0)


def test_nothing_to_do_while_the_last_trial_runs(tmp_path):
    oracle = make(tmp_path, algorithm="random", num_trials=1)
    record = oracle.next_trial()
    assert oracle.next_trial() is None
    assert not oracle.finished
    complete(oracle, record)
    assert oracle.next_trial() is None
    assert oracle.finished


def test_confirmation_trains_best_and_default_with_other_seeds(tmp_path):
    oracle = make(tmp_path, algorithm="random", num_trials=4, confirm={"top": 2, "seeds": 3})
    drive(oracle, num_slots=2)
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
    oracle.fail(oracle.next_trial().trial_id, "x", "nan", 1.0)
    assert oracle.next_trial() is None
    assert oracle.finished


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
    while (record := (other := reloaded(tmp_path / "reloaded", **section)).next_trial()) is not None:
        other = reloaded(tmp_path / "reloaded", **section)
        complete(other, other.records[record.trial_id])
    wanted = {i: (r.values, r.epochs, r.objective, r.run) for i, r in oracle.records.items()}
    assert {i: (r.values, r.epochs, r.objective, r.run) for i, r in other.records.items()} == wanted


@pytest.mark.parametrize("algorithm", ["random", "hyperband", "asha"])
@pytest.mark.parametrize("seed", range(8))
def test_deaths_at_random_lose_and_repeat_nothing(tmp_path, algorithm, seed):
    """Drivers and workers die at random moments; every trial ends exactly once."""
    generator = random.Random(seed)
    section = {"algorithm": algorithm, "num_trials": 8, "max_losses": 1000, "max_retries": 100}
    oracle = make(tmp_path, **section)
    oracle.save()
    running, completed = [], Counter()
    while not oracle.finished:
        event = generator.random()
        if event < 0.1:  # the driver dies with all that it has given out
            oracle, running = reloaded(tmp_path, **section), []
            oracle.resume()
        elif event < 0.5 and len(running) < 3:
            record = oracle.next_trial()
            running += [] if record is None else [record.trial_id]
        elif running:
            trial_id = running.pop(generator.randrange(len(running)))
            if event < 0.6:
                oracle.lose(trial_id)
            elif event < 0.7:
                oracle.crash(trial_id, "crash", 1.0)
            elif event < 0.75:
                oracle.give_back(trial_id)
            else:
                completed[trial_id] += 1
                complete(oracle, oracle.records[trial_id])
    assert set(completed) == set(oracle.records)
    assert set(completed.values()) == {1}
    assert sorted(oracle.end_order) == sorted(oracle.records)
    assert {r.status for r in state_of(tmp_path).values()} == {"completed"}


def test_a_damaged_state_is_named(tmp_path):
    oracle = make(tmp_path)
    oracle.save()
    file = tmp_path / "oracle.json"
    file.write_text(json.dumps({"trials": {}}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"oracle\.json: damaged"):
        oracle.reload()


def test_checkpoints_are_kept_of_what_runs_and_of_the_best(tmp_path):
    oracle = make(tmp_path, algorithm="random", num_trials=6, confirm={"top": 2, "seeds": 2})
    for _ in range(4):
        complete(oracle, oracle.next_trial())
    oracle.next_trial()
    best = sorted((r for r in oracle.records.values() if r.status == "completed"), key=lambda r: r.objective)
    assert oracle.runs_to_keep() == {best[0].run, best[1].run, "0004"}


@pytest.mark.parametrize("keep", [True, False])
def test_checkpoints_of_confirmed_trainings_go_unless_they_are_wanted(tmp_path, keep):
    confirm = {"top": 1, "seeds": 2, "keep_checkpoints": keep}
    oracle = make(tmp_path, algorithm="random", num_trials=2, confirm=confirm)
    drive(oracle)
    confirmed = {r.run for r in oracle.records.values() if r.purpose == "confirm"}
    assert (confirmed <= oracle.runs_to_keep()) == keep
    assert (confirmed & oracle.runs_to_keep() == set()) != keep
