"""Ensembles of real trainings on events in memory: complete, killed, stopped, and with bad members."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pyarrow.parquet as pq
import pytest

from mlpf.config.loading import write_resolved
from mlpf.runs import data as training_data
from mlpf.workflows import train
from tests.support.fake_training import open_fake, tiny_config
from tests.support.run_results import assert_same, result

CONFIG = {
    "setup.num_epochs": 2,
    "setup.deterministic": True,
    "parameters.output_decoding.dropout": 0.2,
    "callbacks.physics.every": 0,
    "callbacks.checkpoint.every_steps": 1,
}
DEADLINE_S = 400


class Ensemble:
    """An ensemble in processes of its own."""

    def __init__(self, repo_root, folder):
        self.directory, self._repo_root = folder / "e", repo_root
        self.config_path = folder / "c.yaml"
        write_resolved(tiny_config(**CONFIG), self.config_path)
        self._log = folder / "output.txt"

    def start(self, *options, pause=0.0):
        words = ["tests.support.ensemble_cli", "train-many", *map(str, options), "-o", str(self.directory)]
        with self._log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", *words],
                cwd=self._repo_root,
                env=os.environ
                | {
                    "PYTHONPATH": str(self._repo_root),
                    "MLPF_TEST_PAUSE": str(pause),
                    "TF_CPP_MIN_LOG_LEVEL": "3",
                },
                start_new_session=True,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def run(self, *options, code=0, **start):
        process = self.start(*options, **start)
        assert process.wait(DEADLINE_S) == code, self.said()[-3000:]
        return self.said()

    def said(self):
        return self._log.read_text(errors="replace", encoding="utf-8")

    def members(self):
        return {
            m["name"]: m
            for m in json.loads((self.directory / "members.json").read_text(encoding="utf-8"))["members"]
        }

    def run_dir(self, name):
        return self.directory / "runs" / name

    def member_processes(self):
        """Process id -> name of the training, of all that are alive."""
        found = {}
        for process in psutil.process_iter(["cmdline", "status"]):
            words = process.info["cmdline"] or []
            if "member" in words and str(self.directory) in words and process.info["status"] != "zombie":
                found[process.pid] = words[words.index("member") + 2]
        return found

    def wait_until(self, what, process):
        deadline = time.monotonic() + DEADLINE_S
        while not (found := what()):
            assert process.poll() is None, self.said()[-3000:]
            assert time.monotonic() < deadline, self.said()[-3000:]
            time.sleep(0.02)
        return found

    def steps(self, name):
        """Checkpoint of a training, empty if there is none."""
        with suppress(OSError, ValueError):
            return json.loads(
                (self.run_dir(name) / "checkpoints" / "latest.json").read_text(encoding="utf-8")
            )["folder"]
        return ""


@pytest.fixture
def ensemble(repo_root, tmp_path):
    return Ensemble(repo_root, tmp_path)


@pytest.fixture
def undisturbed(tmp_path, monkeypatch):
    """Return a function that returns what an ordinary training with a seed leaves."""
    monkeypatch.setattr(training_data, "open_split", open_fake)

    def train_one(seed):
        config = tiny_config(**CONFIG, **{"setup.seed": seed})
        train.run(config, tmp_path / f"ordinary_{seed}", num_cpus=1)
        return result(tmp_path / f"ordinary_{seed}")

    return train_one


def test_seeds_and_growth(ensemble, undisturbed):
    options = ("--workers", "2")
    ensemble.run("-c", ensemble.config_path, "--seeds", "1:2", *options)
    first = result(ensemble.run_dir("seed_2"))
    said = ensemble.run("--resume", "--seeds", "1:3", *options)
    members = ensemble.members()
    assert {name: (m["seed"], m["state"], m["epochs"], m["attempts"]) for name, m in members.items()} == {
        f"seed_{seed}": (seed, "completed", 2, 1) for seed in (1, 2, 3)
    }
    assert_same(result(ensemble.run_dir("seed_2")), first)
    assert_same(result(ensemble.run_dir("seed_3")), undisturbed(3))
    assert "completed 3/3" in said
    table = pq.read_table(ensemble.directory / "members.parquet")
    assert len(set(table["metric.val_loss"].to_pylist())) == 3  # seeds differ
    assert table["best"].to_pylist() == table["metric.val_loss"].to_pylist()
    assert json.loads((ensemble.directory / "status.json").read_text(encoding="utf-8"))["state"] == "finished"


@pytest.mark.slow
def test_kills(ensemble, undisturbed):
    """kill -9 of a training, of a worker, and of the driver."""
    driver = ensemble.start("-c", ensemble.config_path, "--seeds", "1:3", "--workers", "2", pause=0.7)

    def begun():
        return [pid for pid, name in ensemble.member_processes().items() if ensemble.steps(name)]

    killed = ensemble.wait_until(begun, driver)[0]
    name = ensemble.member_processes()[killed]
    os.kill(killed, signal.SIGKILL)
    ensemble.wait_until(lambda: [pid for pid in begun() if pid != killed], driver)
    child = next(pid for pid in begun() if pid != killed)
    worker = psutil.Process(child).parent()
    assert worker.pid != driver.pid
    worker.kill()
    ensemble.wait_until(lambda: child not in ensemble.member_processes(), driver)
    ensemble.wait_until(begun, driver)
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 60
    while ensemble.member_processes():
        assert time.monotonic() < deadline, "processes are left"
        time.sleep(0.05)
    ensemble.run("--resume", "--workers", "2")
    members = ensemble.members()
    assert {m["state"] for m in members.values()} == {"completed"}
    assert members[name]["crashes"] == 1
    for seed in (1, 2, 3):
        assert_same(result(ensemble.run_dir(f"seed_{seed}")), undisturbed(seed))


@pytest.mark.parametrize("how", [pytest.param("time limit", marks=pytest.mark.slow), "SIGTERM"])
def test_stop_and_resume(ensemble, undisturbed, how):
    limit = ("--time-limit", "25s") if how == "time limit" else ()
    driver = ensemble.start(
        "-c", ensemble.config_path, "--seeds", "5", *limit, "--cpus-per-training", 1, pause=10.0
    )
    if how == "SIGTERM":
        ensemble.wait_until(lambda: (ensemble.run_dir("seed_5") / "status.json").exists(), driver)
        driver.terminate()
    assert driver.wait(DEADLINE_S) == 75, ensemble.said()[-3000:]
    assert f"stopped: {how}, after 0 of 1 trainings; everything is saved" in ensemble.said()
    assert ensemble.members()["seed_5"]["state"] == "waiting"
    assert ensemble.member_processes() == {}
    ensemble.run("--resume", "--cpus-per-training", 1)
    assert ensemble.members()["seed_5"]["attempts"] == 2
    assert_same(result(ensemble.run_dir("seed_5")), undisturbed(5))


def test_bad_members_do_not_stop_the_others(ensemble, tmp_path):
    table = tmp_path / "t.yaml"
    graph = "parameters.combined_graph_layer"
    table.write_text(
        "- {name: diverges, setup.lr: 1e30, setup.optimizer: sgd}\n"
        f"- {{name: refused, {graph}.bin_size: 8, {graph}.max_num_bins: 2}}\n"
        f"- {{name: impossible, {graph}.distance_dim: {2**70}}}\n"
        "- {name: good, setup.lr: 1e-4}\n",
        encoding="utf-8",
    )
    said = ensemble.run("-c", ensemble.config_path, "--table", table, "--workers", "2", "--ntrain", 8, code=1)
    members = ensemble.members()
    assert {name: (m["state"], m["kind"], m["attempts"]) for name, m in members.items()} == {
        "diverges": ("failed", "nan", 1),
        "refused": ("failed", "refused", 1),
        "impossible": ("failed", "refused", 1),
        "good": ("completed", "", 1),
    }
    assert members["good"]["values"] == {"setup.lr": 1e-4}
    environment = json.loads((ensemble.run_dir("good") / "environment.json").read_text(encoding="utf-8"))
    assert environment["limits"] == {"ntrain": 8, "ntest": None}
    assert "failed: refused: refused: " in said
    assert "3 (1 nan, 2 refused) of 4 trainings failed" in said
    ensemble.run("--resume", "--max-time", "1s", "--retry-failed", code=1)
    again = ensemble.members()
    assert {name: m["kind"] for name, m in again.items()} == {
        "diverges": "time",
        "refused": "time",
        "impossible": "time",
        "good": "",
    }
    assert again["good"]["attempts"] == 1
