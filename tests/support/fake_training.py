"""A short training on events in memory, through the workflow; also as a process of its own.

``python -m tests.support.fake_training RUN_DIR '{"config": {...}, "options": {...}, "pause": 0.0}'``

With ``"trial": {"run": ..., "epochs": ...}`` in the order, RUN_DIR is a search, and a trial of it is trained.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.support.fake_split import FakeSplit
from tests.support.models import TINY_NETWORK

_SEEDS = {("a", "train"): 1, ("b", "train"): 2, ("a", "valid"): 3}


def tiny_config(**overrides):
    """Four epochs of two datasets of twelve events, three steps each."""
    from mlpf.config.schema import Config

    config = Config.model_validate(
        {
            "setup": {"num_epochs": 4, "lr_schedule": "none"},
            "parameters": {**TINY_NETWORK, "use_normalizer": True},
            "callbacks": {"tensorboard": False},
            "train_test_datasets": {"physical": {"batch_per_gpu": 8, "datasets": ["a", "b"]}},
            "validation_dataset": "a",
            "validation_batch_size": 8,
            "evaluation_datasets": {},
            "datasets": {"a": {"version": "1.0.0"}, "b": {"version": "1.0.0"}},
        }
    )
    return config.with_overrides(overrides)


def open_fake(name, source, split, schema, detector):
    """Stands in for ``open_split``."""
    return FakeSplit(12, seed=_SEEDS[name, split], max_elements=20)


def start(repo_root, run_dir, *, launcher=(), pause=0.0, config=None, trial=None, **options):
    """Start a training in its own process, or in those of a launcher."""
    order = json.dumps({"config": config or {}, "options": options, "pause": pause, "trial": trial})
    return subprocess.Popen(
        [*launcher, sys.executable, "-m", "tests.support.fake_training", str(run_dir), order],
        cwd=repo_root,
        env=os.environ | {"PYTHONPATH": str(repo_root), "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def slow_down(seconds):
    """Let all trainings of this process pause after each step."""
    from mlpf.training.loop.trainer import Trainer

    build = Trainer.__init__

    def slowly(self, *arguments, **options):
        build(self, *arguments, **options)
        step = self._train_step

        def paused(batch):
            time.sleep(seconds)
            return step(batch)

        self._train_step = paused

    Trainer.__init__ = slowly


def main(run_dir, order):
    """Train as the order says."""
    from mlpf.cli import main as command_line
    from mlpf.runs import data as training_data
    from mlpf.workflows import hypertune_trial as trial
    from mlpf.workflows import train

    training_data.open_split = open_fake
    order = json.loads(order)
    if order["pause"]:
        slow_down(order["pause"])

    def run(standalone_mode):
        if order["trial"]:
            trial.run(Path(run_dir), **order["trial"])
            return
        train.run(tiny_config(**order["config"]), Path(run_dir), started=time.monotonic(), **order["options"])

    command_line(run)


if __name__ == "__main__":
    main(*sys.argv[1:])
