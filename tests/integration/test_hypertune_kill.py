"""A search whose processes are killed at random moments ends as if they had not been."""

import json
import random
import signal
import time
from collections import Counter

import pytest

from mlpf.search.state import ORACLE_FILE
from tests.support.run_results import assert_same, result
from tests.support.search import state_of
from tests.support.search_process import SearchProcess

TARGETS = ("worker", "trial", "driver", "group", "everything")
DEADLINE_S = 300
# No number of cores: the machine may have one, or show one.
HERE = ("--workers", "2")
PATIENT = {"algorithm": "asha", "num_trials": 9, "max_losses": 100, "max_retries": 100}


def survive(search, generator, num_kills, shortest, longest):
    """Kill ``num_kills`` times, resume, let the search end; return what was killed."""
    killed = Counter()
    search.start(*HERE)
    while sum(killed.values()) < num_kills:
        time.sleep(generator.uniform(shortest, longest))
        target = TARGETS[sum(killed.values()) % len(TARGETS)]
        if not search.kill(target, generator):
            break
        killed[target] += 1
        if target in ("driver", "group", "everything"):
            search.wait_until_gone()
            search.start(*HERE)
    assert search.driver.wait(DEADLINE_S) == 0, search.said()[-3000:]
    search.wait_until_gone()
    return killed


def check(directory, num_configurations):
    """Every trial ended exactly once, none was lost."""
    records = state_of(directory)
    oracle = json.loads((directory / ORACLE_FILE).read_text(encoding="utf-8"))
    assert oracle["finished"]
    assert sorted(oracle["end_order"]) == sorted(records)
    assert {r.status for r in records.values()} <= {"completed", "failed"}
    assert sum(r.rung == 0 for r in records.values()) == num_configurations
    for record in records.values():
        assert record.objective is not None or record.failure
    return records


def test_pretended_trainings(repo_root, tmp_path):
    search = SearchProcess(repo_root, tmp_path, **PATIENT).pretend({"*": {"seconds": 0.5}})
    killed = survive(search, random.Random(1), 10, 0.2, 2.0)
    assert sum(killed.values()) == 10, killed
    records = check(search.directory, 9)
    assert {r.status for r in records.values()} == {"completed"}
    trained = Counter((search.directory / "trained.txt").read_text(encoding="utf-8").splitlines())
    wanted = {f"{r.run} {epoch}" for r in records.values() for epoch in range(1, r.epochs + 1)}
    assert set(trained) == wanted
    # An epoch is trained again only if it was killed before it was saved.
    assert sum(trained.values()) - len(wanted) <= 2 * sum(killed.values())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_trainings(repo_root, tmp_path, seed):
    """Twenty kills of real trainings."""
    search = SearchProcess(repo_root, tmp_path, **PATIENT)
    killed = survive(search, random.Random(seed), 20, 2.0, 12.0)
    assert sum(killed.values()) == 20, killed
    check(search.directory, 9)


TRAINED = {"algorithm": "random", "num_trials": 2, "num_epochs": 6, "setup.deterministic": True}


@pytest.fixture(scope="module")
def whole(repo_root, tmp_path_factory):
    """A search of real trainings that nobody stopped."""
    search = SearchProcess(repo_root, tmp_path_factory.mktemp("whole"), **TRAINED)
    search.start(*HERE)
    assert search.driver.wait(DEADLINE_S) == 0, search.said()[-3000:]
    return search


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["driver", "group"])
def test_a_search_that_is_asked_to_stop_goes_on_to_the_same_numbers(repo_root, tmp_path, whole, whom):
    """Trials are stopped in the middle of an epoch, and lose no step."""
    search = SearchProcess(repo_root, tmp_path, pause=0.2, **TRAINED)
    search.start(*HERE)
    search.wait_for_epoch("0000", 2)
    if whom == "driver":
        search.driver.send_signal(signal.SIGTERM)
    else:
        search.signal_group(signal.SIGTERM)
    assert search.driver.wait(DEADLINE_S) == 75, search.said()[-3000:]
    search.wait_until_gone()
    waiting = state_of(search.directory)
    assert {(r.status, r.losses, r.crashes) for r in waiting.values()} == {("waiting", 0, 0)}
    saved = json.loads((search.directory / "runs/0000/checkpoints/latest.json").read_text())["folder"]
    search.start(*HERE)
    assert search.driver.wait(DEADLINE_S) == 0, search.said()[-3000:]
    search.wait_until_gone()
    assert_same_search(search, whole)
    said = (search.directory / "logs" / "0000.log").read_text()
    assert saved in said or saved.replace("_", " ") in said, said  # from where it went on


def assert_same_search(search, other):
    """Values, objectives and epochs of all trials are equal, and the weights of the best."""
    records, others = state_of(search.directory), state_of(other.directory)
    assert table(records) == table(others)
    best = min(records.values(), key=lambda r: r.objective)
    assert_same(*(result(s.directory / "runs" / best.run) for s in (search, other)))


def table(records):
    """What a search has found, but for how long it took."""
    return {i: (r.values, r.objective, r.epochs, r.best_epoch, r.failure_kind) for i, r in records.items()}
