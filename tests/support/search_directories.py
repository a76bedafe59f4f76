"""Directories of searches as chief and workers leave them: configuration, oracle.json, histories of runs."""

import json
import math

import numpy as np

from mlpf.config.loading import write_resolved
from mlpf.config.schema import Config
from mlpf.files.run_directory import RESOLVED_CONFIG, RunDirectory
from mlpf.search.state import ORACLE_FILE, TrialRecord
from mlpf.search.trial_files import TrialFiles
from tests.support.configs import SMALL

SPACE = {
    "setup.lr": {"float": [1e-4, 1e-1], "log": True},
    "parameters.num_graph_layers_id": {"int": [1, 4]},
    "parameters.combined_graph_layer.bin_size": {"choice": [8, 16, 32, 64]},
    "setup.optimizer": {"choice": ["adam", "adamw", "lion"]},
    "optimizer.adamw.weight_decay": {"float": [1e-4, 0.1], "log": True, "when": {"setup.optimizer": "adamw"}},
    "parameters.use_normalizer": {"boolean": True},
}
FAILURES = {
    "0005": ("nan", "val_loss is not finite in epoch 1, step 12"),
    "0013": ("memory", "out of memory: 4 x 2048 elements need 17.2 GiB, <b>there</b> are 16 GiB"),
    "0021": ("crash", "exit code -11: Segmentation fault"),
}
START = 1_760_000_000.0
RUNGS = (1, 3, 9)
SECONDS_PER_EPOCH = 40.0


def search_config(space=None, **section):
    """A configuration with a section hypertune."""
    section = {"space": space or SPACE, "num_trials": 27, **section}
    return Config.model_validate(SMALL | {"setup": {"num_epochs": RUNGS[-1]}, "hypertune": section})


def write_search(folder, trials, histories=None, *, config=None, finished=True, problem=""):
    """Write a search directory; histories: run -> records."""
    folder.mkdir(parents=True, exist_ok=True)
    write_resolved(config or search_config(), folder / RESOLVED_CONFIG)
    records = {trial.trial_id: trial.to_json() for trial in trials}
    content = {"records": records, "finished": finished, "problem": problem}
    (folder / ORACLE_FILE).write_text(json.dumps(content), encoding="utf-8")
    for run, history in (histories or {}).items():
        write_history(folder, run, history)
    return folder


def write_history(folder, run, history):
    """Write the history of a run; text is written as it is."""
    path = RunDirectory(TrialFiles(folder, run).run_dir).history
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(history if isinstance(history, str) else json.dumps(history), encoding="utf-8")


def epoch_record(epoch, val_loss):
    """What a training records after an epoch, in part."""
    return {
        "epoch": epoch,
        "loss": 0.95 * val_loss,
        "val_loss": val_loss,
        "val_jet_response_iqr": 0.05 + 0.05 * val_loss,
        "learning_rate": 1e-3,
        "seconds": SECONDS_PER_EPOCH,
    }


def completed(trial_id, objective, **fields):
    """A completed trial."""
    fields = {"run": trial_id, "epochs": RUNGS[-1], "best_epoch": 1} | fields
    return TrialRecord(trial_id, status="completed", objective=objective, **fields)


def confirmation(of, seed, objective, **fields):
    """A completed training with another seed."""
    name = f"confirm_{of}_seed_{seed}"
    return completed(name, objective, purpose="confirm", of=of, seed=seed, **fields)


class FakeSearch:
    """An asynchronous successive halving of configurations with a loss in closed form.

    Args:
        seed: of values and noise.
        num_configurations: of the first rung.
        num_workers: each runs one trial at a time.
    """

    def __init__(self, seed=1, num_configurations=27, num_workers=3):
        self._rng = np.random.default_rng(seed)
        self._free = [START] * num_workers
        self.trials = []
        self.histories = {}
        for _ in range(num_configurations):
            self._train(self._random_values())
        for rung in range(1, len(RUNGS)):
            done = [t for t in self.trials if t.rung == rung - 1 and t.status == "completed"]
            for parent in sorted(done, key=lambda t: t.objective)[: max(1, len(done) // 3)]:
                self._train(parent.values, parent.run, rung)

    def confirm(self, top=2, seeds=(2, 3, 4)):
        """Train the best and the default configuration with other seeds."""
        last = [t for t in self.trials if t.rung == len(RUNGS) - 1 and t.status == "completed"]
        best = sorted(last, key=lambda t: t.objective)[:top]
        default = {"setup.lr": 1e-3, "parameters.num_graph_layers_id": 1, "setup.optimizer": "adam"}
        for seed in seeds:
            shift = self._rng.normal(0, 0.01)
            for of, values in [*((t.run, t.values) for t in best), ("default", default)]:
                run = f"confirm_{of}_seed_{seed}"
                kept = values if of != "default" else {}
                self._train(values, run, len(RUNGS) - 1, shift=shift, of=of, seed=seed, shown=kept)
        return self

    def write(self, folder, **state):
        """Write the search into a directory."""
        return write_search(folder, self.trials, self.histories, **state)

    def _random_values(self):
        rng = self._rng
        values = {
            "setup.lr": float(10 ** rng.uniform(-4, -1)),
            "parameters.num_graph_layers_id": int(rng.integers(1, 5)),
            "parameters.combined_graph_layer.bin_size": int(rng.choice([8, 16, 32, 64])),
            "setup.optimizer": str(rng.choice(["adam", "adamw", "lion"])),
        }
        if values["setup.optimizer"] == "adamw":
            values["optimizer.adamw.weight_decay"] = float(10 ** rng.uniform(-4, -1))
        return values | {"parameters.use_normalizer": bool(rng.integers(2))}

    def _train(self, values, run="", rung=0, *, shift=0.0, of="", seed=None, shown=None):
        trial_id = f"{len(self.trials):04d}"
        run = run or trial_id
        before = 0 if of or not rung else RUNGS[rung - 1]
        distance = abs(math.log10(values["setup.lr"]) + 2)
        limit = 0.6 + 0.5 * distance + 0.08 / values["parameters.num_graph_layers_id"] + shift
        history = list(self.histories.get(run, []))
        for epoch in range(before + 1, RUNGS[rung] + 1):
            noise = self._rng.normal(0, 0.01)
            history.append(epoch_record(epoch, limit + 1.2 * epoch**-0.7 + noise))
        self.histories[run] = history
        best = min(history, key=lambda r: r["val_loss"])
        worker = int(np.argmin(self._free))
        started = self._free[worker]
        seconds = (RUNGS[rung] - before) * SECONDS_PER_EPOCH * self._rng.uniform(0.8, 1.3) + 10
        trial = TrialRecord(
            trial_id, run, purpose="confirm" if of else "search", of=of, seed=seed, rung=0 if of else rung,
            initial_epoch=before, epochs=RUNGS[rung], values=values if shown is None else shown,
            worker=f"node{worker}-0", started=started, ended=started + seconds, seconds=seconds, devices=1,
        )  # fmt: skip
        self._free[worker] = trial.ended
        self.trials.append(trial)
        if trial_id in FAILURES:
            trial.status, (trial.failure_kind, trial.failure) = "failed", FAILURES[trial_id]
            self.histories[run] = []
        else:
            trial.status, trial.objective = "completed", best["val_loss"]
            trial.best_epoch = best["epoch"]
            own = {"trained_epochs": len(history), "num_parameters": 12345, "inference_ms": 2.5}
            trial.metrics = {k: v for k, v in best.items() if k != "epoch"} | own
