"""A search whose processes are killed at random moments ends as if they had not been."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress

import psutil
import pytest

from mlpf.config.loading import write_resolved
from tests.support.search import search_config, state_of

TARGETS = ("worker", "chief", "group", "trial", "everything")
DEADLINE_S = 300


class Search:
    """A search in processes of its own, in one directory."""

    def __init__(self, repo_root, directory, pretend, **section):
        self.directory, self._repo_root = directory / "search", repo_root
        self._config = directory / "config.yaml"
        write_resolved(search_config(**section), self._config)
        self._environment = os.environ | {"PYTHONPATH": str(repo_root), "TF_CPP_MIN_LOG_LEVEL": "3"}
        if pretend:
            self._environment["MLPF_TEST_TRIALS"] = "pretend"
        self.launcher = None

    def start(self, *options):
        with (self.directory.parent / "output.txt").open("ab") as output:
            self.launcher = self._popen(options, output)

    def _popen(self, options, output):
        begun = (self.directory / "config.resolved.yaml").exists()
        resume = ["--resume"] if begun else ["-c", str(self._config)]
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.support.search_cli",
                "hypertune",
                *resume,
                "-o",
                str(self.directory),
                *options,
            ],
            cwd=self._repo_root,
            env=self._environment,
            start_new_session=True,
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def processes(self):
        """All processes of this search that are alive, by kind."""
        found = {}
        for process in psutil.process_iter(["cmdline", "status"]):
            words = process.info["cmdline"] or []
            if str(self.directory) not in words or process.info["status"] == psutil.STATUS_ZOMBIE:
                continue
            after = words[words.index("hypertune") + 1] if "hypertune" in words[:-1] else ""
            found[process.pid] = after if after in ("chief", "worker", "trial") else "launcher"
        return found

    def kill(self, target, generator):
        """Send SIGKILL; return whether the launcher is gone."""
        deadline = time.monotonic() + 60
        while target not in (*(alive := self.processes()).values(), "group", "everything"):
            assert time.monotonic() < deadline, f"no {target} among {alive}\n{self.said()[-3000:]}"
            time.sleep(0.02)
        if target == "group":
            os.killpg(self.launcher.pid, signal.SIGKILL)
            return True
        chosen = [pid for pid, kind in alive.items() if target in (kind, "everything")]
        if target != "everything":
            chosen = generator.sample(chosen, min(1, len(chosen)))
        for pid in chosen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return target == "everything"

    def wait_until_gone(self):
        self.launcher.wait(60)
        deadline = time.monotonic() + 60
        while alive := self.processes():
            assert time.monotonic() < deadline, f"left behind: {alive}"
            time.sleep(0.05)

    def said(self):
        return (self.directory.parent / "output.txt").read_text(errors="replace")


def survive(search, generator, num_kills, shortest, longest):
    """Kill ``num_kills`` times, resume, let the search end; return what was killed."""
    killed = Counter()
    options = ("--workers", "2", "--cpus-per-trial", "1")
    search.start(*options)
    while sum(killed.values()) < num_kills:
        time.sleep(generator.uniform(shortest, longest))
        assert search.launcher.poll() is None, f"ended before all kills: {killed}\n{search.said()[-3000:]}"
        target = TARGETS[sum(killed.values()) % len(TARGETS)]
        killed[target] += 1
        if search.kill(target, generator):
            search.wait_until_gone()
            search.start(*options)
    assert search.launcher.wait(DEADLINE_S) == 0, search.said()[-3000:]
    search.wait_until_gone()
    return killed


def check(directory, num_configurations):
    """Every trial ended exactly once, none was lost."""
    records = state_of(directory)
    oracle = json.loads((directory / "oracle.json").read_text())
    assert oracle["finished"]
    assert sorted(oracle["end_order"]) == sorted(records)
    assert {r.status for r in records.values()} <= {"completed", "failed"}
    assert sum(r.rung == 0 for r in records.values()) == num_configurations
    for record in records.values():
        assert record.objective is not None or record.failure
    return records


def test_pretended_trainings(repo_root, tmp_path):
    search = Search(
        repo_root,
        tmp_path,
        True,
        algorithm="asha",
        num_trials=9,
        lease_seconds=3,
        max_losses=100,
        max_retries=100,
    )
    (tmp_path / "fake.json").write_text(json.dumps({"*": {"seconds": 0.25}}))
    killed = survive(search, random.Random(1), 10, 0.2, 3.0)
    records = check(search.directory, 9)
    assert {r.status for r in records.values()} == {"completed"}
    trained = Counter((search.directory / "trained.txt").read_text().splitlines())
    wanted = {f"{r.run} {epoch}" for r in records.values() for epoch in range(1, r.epochs + 1)}
    assert set(trained) == wanted
    # An epoch is trained again only if it was killed before it was saved.
    assert sum(trained.values()) - len(wanted) <= 2 * sum(killed.values())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_trainings(repo_root, tmp_path, seed):
    """Twenty kills of real trainings."""
    section = {
        "algorithm": "asha",
        "num_trials": 9,
        "lease_seconds": 6,
        "max_losses": 100,
        "max_retries": 100,
    }
    search = Search(repo_root, tmp_path, False, **section)
    survive(search, random.Random(seed), 20, 2.0, 12.0)
    check(search.directory, 9)
