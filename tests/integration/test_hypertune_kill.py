"""A search whose processes are killed at random moments ends as if they had not been."""

import json
import random
import signal
import time
from collections import Counter

import pytest

from mlpf.tuning.state import ORACLE_FILE
from tests.support.run_results import assert_same, result
from tests.support.search import state_of
from tests.support.search_process import SearchProcess

TARGETS = ("worker", "trial", "driver", "group", "everything")
DEADLINE_S = 300
HERE = ("--workers", "2", "--cpus-per-trial", "1")
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


@pytest.mark.parametrize("whom", ["driver", "group"])
def test_a_search_that_is_asked_to_stop_goes_on_to_the_same_numbers(repo_root, tmp_path, whom):
    """Real trainings: what was stopped in the middle of an epoch has lost no step."""
    section = {"algorithm": "random", "num_trials": 2, "num_epochs": 6, "setup.deterministic": True}
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = SearchProcess(repo_root, tmp_path / "whole", **section)
    whole.start(*HERE)
    parts = SearchProcess(repo_root, tmp_path / "parts", pause=0.2, **section)
    parts.start(*HERE)
    parts.wait_for_epoch("0000", 2)
    if whom == "driver":
        parts.driver.send_signal(signal.SIGTERM)
    else:
        parts.signal_group(signal.SIGTERM)
    assert parts.driver.wait(DEADLINE_S) == 75, parts.said()[-3000:]
    parts.wait_until_gone()
    waiting = state_of(parts.directory)
    assert {(r.status, r.losses, r.crashes) for r in waiting.values()} == {("waiting", 0, 0)}
    saved = [
        json.loads(f.read_text(encoding="utf-8"))["folder"]
        for f in parts.directory.glob("runs/*/checkpoints/latest.json")
    ]
    assert len(saved) == 2
    parts.start(*HERE)
    assert parts.driver.wait(DEADLINE_S) == 0, parts.said()[-3000:]
    assert whole.driver.wait(DEADLINE_S) == 0, whole.said()[-3000:]
    for record in state_of(whole.directory).values():
        again = state_of(parts.directory)[record.trial_id]
        assert (again.values, again.objective) == (record.values, record.objective)
        assert_same(*(result(search.directory / "runs" / record.run) for search in (parts, whole)))
    parts.wait_until_gone()
