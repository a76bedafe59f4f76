"""A search on the two nodes of a real Slurm: equal to one on this machine, and safe to kill."""

import json
import random
import time
from collections import Counter

import pytest

from mlpf.search.state import ORACLE_FILE
from tests.support.run_results import assert_same, result
from tests.support.search import state_of
from tests.support.search_process import SearchProcess

SITE = """\
description: two nodes
provider: slurm
cores_per_node: 1
max_minutes: {minutes}
stop_margin: {margin}
"""
TARGETS = ("worker", "manager", "interchange", "driver", "trial", "everything", "block", "node")
# What ends the driver.
FATAL = ("interchange", "driver", "everything")
DEADLINE_S = 900
# No number of cores: the machine may have one, or show one.
HERE = ("--workers", "2")


@pytest.fixture
def nodes(slurm, tmp_path):
    """Variables of this Slurm, and the options of a search there."""
    site = tmp_path / "site.yaml"
    site.write_text(SITE.format(minutes=30, margin=3))
    return {"SLURM_CONF": slurm.environment["SLURM_CONF"]}, ("--site", str(site), "--nodes", "2")


def table(directory):
    """What a search has found, but for how long it took."""
    records = state_of(directory)
    return {i: (r.values, r.objective, r.epochs, r.best_epoch, r.status) for i, r in records.items()}


def finish(search):
    assert search.driver.wait(DEADLINE_S) == 0, search.said()[-3000:]
    search.wait_until_gone()


def test_two_nodes_find_what_this_machine_finds(repo_root, tmp_path, nodes):
    environment, options = nodes
    section = {"algorithm": "random", "num_trials": 3, "num_epochs": 2, "setup.deterministic": True}
    searches = []
    for name, where in (("here", HERE), ("there", options)):
        (tmp_path / name).mkdir()
        searches.append(SearchProcess(repo_root, tmp_path / name, environment=environment, **section))
        searches[-1].start(*where)
        finish(searches[-1])
    here, there = searches
    assert table(there.directory) == table(here.directory)
    records = state_of(there.directory)
    assert {r.worker.split("-")[0] for r in records.values()} == {"n1", "n2"}
    best = min(records.values(), key=lambda r: r.objective)
    assert_same(*(result(search.directory / "runs" / best.run) for search in searches))


def hit(search, target, generator, slurm):
    """End one part of a search; return whether there was one before the search ended."""
    if target not in ("block", "node"):
        return search.kill(target, generator)
    deadline = time.monotonic() + DEADLINE_S
    while not (running := [row for row in slurm.squeue() if row.state == "RUNNING"]):
        if search.driver.poll() is not None:
            return False
        assert time.monotonic() < deadline, search.said()[-3000:]
        time.sleep(0.2)
    chosen = generator.choice(running)
    if target == "block":
        slurm.command("scancel", chosen.job, check=False)
    else:
        slurm.down(chosen.nodes)
        time.sleep(2.0)
        slurm.resume(chosen.nodes)
    return True


def survive(search, slurm, options, generator, targets, longest):
    """Hit each of ``targets``, resume, let the search end; return what was hit."""
    hits = Counter()
    search.start(*options)
    for target in targets:
        time.sleep(generator.uniform(0.5, longest))
        if search.driver.poll() is not None:
            break
        if not hit(search, target, generator, slurm):
            break
        hits[target] += 1
        if target in FATAL:
            code = search.driver.wait(DEADLINE_S)
            assert code == (2 if target == "interchange" else -9), search.said()[-3000:]
            search.start(*options)
    assert search.driver.wait(DEADLINE_S) == 0, search.said()[-3000:]
    slurm.wait_for(lambda: not slurm.squeue(), "an empty queue")
    search.wait_until_gone()
    return hits


def check(search, hits, num_configurations):
    """Every trial ended exactly once, and none was trained twice."""
    records = state_of(search.directory)
    oracle = json.loads((search.directory / ORACLE_FILE).read_text())
    assert oracle["finished"]
    assert sorted(oracle["end_order"]) == sorted(records)
    assert {r.status for r in records.values()} == {"completed"}
    assert sum(r.rung == 0 for r in records.values()) == num_configurations
    trained = Counter((search.directory / "trained.txt").read_text().splitlines())
    wanted = {f"{r.run} {epoch}" for r in records.values() for epoch in range(1, r.epochs + 1)}
    assert set(trained) == wanted
    assert sum(trained.values()) - len(wanted) <= 2 * sum(hits.values())


@pytest.mark.parametrize(("num_hits", "num_trials"), [(8, 9), pytest.param(20, 27, marks=pytest.mark.slow)])
def test_whatever_is_killed_every_trial_ends_once(repo_root, tmp_path, slurm, nodes, num_hits, num_trials):
    environment, options = nodes
    section = {"algorithm": "asha", "num_trials": num_trials, "max_losses": 100, "max_retries": 100}
    search = SearchProcess(repo_root, tmp_path, environment=environment, **section)
    search.pretend({"*": {"seconds": 1.5}})
    targets = [TARGETS[i % len(TARGETS)] for i in range(num_hits)]
    hits = survive(search, slurm, options, random.Random(num_hits), targets, 3.0)
    assert sum(hits.values()) == num_hits, hits
    check(search, hits, num_trials)


@pytest.mark.slow
def test_a_trial_moves_from_one_short_pilot_job_to_the_next(repo_root, tmp_path, nodes):
    """It learns when its pilot job ends, saves, and goes on in another one: no step is lost."""
    environment, _ = nodes
    site = tmp_path / "short.yaml"
    site.write_text(SITE.format(minutes=4, margin=1))
    section = {"algorithm": "random", "num_trials": 1, "num_epochs": 4, "setup.deterministic": True}
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    here = SearchProcess(repo_root, tmp_path / "here", **section)
    here.start(*HERE)
    finish(here)
    # 12 steps take longer than one job of four minutes.
    there = SearchProcess(repo_root, tmp_path / "there", 21.0, environment, **section)
    there.start("--site", str(site), "--nodes", "1")
    finish(there)
    assert table(there.directory) == table(here.directory)
    assert {(r.losses, r.crashes) for r in state_of(there.directory).values()} == {(0, 0)}
    assert_same(*(result(search.directory / "runs" / "0000") for search in (there, here)))
    assert "stopped: SIGTERM" in (there.directory / "logs" / "0000.log").read_text()
