"""Workers as processes, whose trials are pretended, and a chief in a thread."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from mlpf.config.loading import RESOLVED_FILE, write_resolved
from mlpf.errors import ConfigError
from mlpf.tuning import chief as chief_module
from mlpf.tuning import worker as worker_module
from mlpf.tuning.options import TrialOptions
from tests.support.search import search_config, state_of


@pytest.fixture
def search(tmp_path, repo_root, monkeypatch):
    """A chief that listens; ``start`` starts a worker."""
    monkeypatch.setattr(chief_module, "_TICK_S", 0.02)

    class Search:
        directory = tmp_path / "search"

        def __init__(self):
            self.workers = []

        def begin(self, plans=None, **section):
            self.directory.mkdir()
            (tmp_path / "fake.json").write_text(json.dumps(plans or {}))
            config = search_config(**{"algorithm": "random", "num_trials": 2, "num_epochs": 3, **section})
            write_resolved(config, self.directory / RESOLVED_FILE)
            TrialOptions(ntrain=7).write(self.directory)
            self.chief = threading.Thread(
                target=chief_module.run, args=(self.directory, "127.0.0.1"), daemon=True
            )
            self.chief.start()
            deadline = time.monotonic() + 30
            while not (self.directory / "chief.json").exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)

        def start(self, name="w0", launcher="here"):
            command = [sys.executable, "-m", "tests.support.search_cli", "hypertune", "worker"]
            command += [str(self.directory), "--id", name, "--launcher", launcher, "--num-cpus", "2"]
            worker = subprocess.Popen(
                command,
                cwd=repo_root,
                env=os.environ | {"PYTHONPATH": str(repo_root), "MLPF_TEST_TRIALS": "pretend"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            self.workers.append(worker)
            return worker

        def wait_for(self, *path):
            deadline = time.monotonic() + 60
            while not self.directory.joinpath(*path).exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)

    search = Search()
    yield search
    for worker in search.workers:
        worker.kill()
        worker.communicate()


def test_a_worker_runs_all_trials_and_leaves_when_told(search):
    search.begin()
    worker = search.start()
    assert worker.wait(60) == 0, worker.communicate()[0]
    search.chief.join(20)
    assert not search.chief.is_alive()
    records = state_of(search.directory).values()
    assert [(r.status, r.worker, r.devices) for r in records] == [("completed", "w0", 2)] * 2
    assert all(r.seconds > 0 for r in records)
    # Trials train: the worker itself has keras-tuner on NumPy.
    starts = (search.directory / "starts.txt").read_text().splitlines()
    assert {line.split()[3] for line in starts} == {"tensorflow"}


def test_sigterm_saves_the_trial_and_gives_it_back(search):
    search.begin({"*": {"seconds": 0.3}}, num_trials=1)
    worker = search.start()
    search.wait_for("runs", "0000", "history.json")
    worker.send_signal(signal.SIGTERM)
    output = worker.communicate(timeout=60)[0]
    assert worker.returncode == 75, output
    assert "stopped: w0: asked to stop" in output
    assert state_of(search.directory)["0000"].status == "waiting"
    assert json.loads((search.directory / "runs/0000.outcome.json").read_text())["state"] == "stopped"
    worker = search.start("w1")
    assert worker.wait(60) == 0
    record = state_of(search.directory)["0000"]
    assert (record.status, record.worker, record.losses) == ("completed", "w1", 0)


def test_a_name_that_is_taken_is_refused(search):
    search.begin({"*": {"seconds": 30.0}}, lease_seconds=1)
    search.start("w0", "one")
    search.wait_for("starts.txt")
    second = search.start("w0", "two")
    output = second.communicate(timeout=60)[0]
    assert second.returncode == 2
    assert "a worker w0 of another launcher is at work; choose another name" in output


def test_an_id_that_keras_tuner_takes_for_the_chief(tmp_path):
    with pytest.raises(ConfigError, match="must not contain 'chief'"):
        worker_module.run(tmp_path, "kerchief-0", "here")
