"""Searches without trainings: configurations, an objective in closed form, and workers that may die."""

import math
import random

from mlpf.tuning.state import read_search
from tests.support.fake_training import tiny_config

SPACE = {
    "setup.lr": {"float": [1e-4, 1e-1], "log": True},
    "parameters.num_graph_layers_id": {"int": [1, 4]},
    "setup.optimizer": {"choice": ["adam", "adamw"]},
    "optimizer.adamw.weight_decay": {"float": [0.0, 0.1], "when": {"setup.optimizer": "adamw"}},
}


def search_config(**section):
    """A small configuration with a section hypertune."""
    epochs = section.pop("num_epochs", 9)
    section = {"space": SPACE, "confirm": {"top": 0}, **section}
    return tiny_config(**{"setup.num_epochs": epochs, "hypertune": section})


def quality(record):
    """Objective of a record: smallest at lr 0.01, smaller after more epochs; no two are equal."""
    values = record.values
    distance = abs(math.log10(values.get("setup.lr", 1e-3)) + 2)
    layers = values.get("parameters.num_graph_layers_id", 1)
    return (1 + distance) / record.epochs**0.3 + 0.01 * layers


def complete(oracle, worker, trial, objective=quality):
    """End a trial with its objective."""
    record = oracle.records[trial.trial_id]
    return oracle.finish_trial(
        worker,
        trial.trial_id,
        "COMPLETED",
        metrics={"objective": objective(record)},
        best_epoch=record.epochs,
    )


def drive(oracle, *, num_workers=1, seed=0, objective=quality, on_step=None, max_steps=10_000):
    """Let workers run trials in random order until the search is over; return what each got, in order."""
    generator = random.Random(seed)
    running, order = {}, []
    for _ in range(max_steps):
        worker = f"w{generator.randrange(num_workers)}"
        if worker in running:
            complete(oracle, worker, running.pop(worker), objective)
        else:
            trial = oracle.create_trial(worker, holder=worker)
            if trial.status == "STOPPED":
                break
            if trial.status == "RUNNING":
                running[worker] = trial
                order.append(trial.trial_id)
        if on_step:
            on_step(oracle)
    return order


def state_of(directory):
    """The trials of a search directory by id."""
    return {record.trial_id: record for record in read_search(directory).trials}
