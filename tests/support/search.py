"""Searches without trainings: configurations, and an objective in closed form."""

import math
import random

from mlpf.search.state import read_search
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


def complete(oracle, record, objective=quality):
    """End a trial with its objective."""
    oracle.complete(record.trial_id, objective(record), record.epochs, {}, 1.0)


def drive(oracle, *, num_slots=1, seed=0, objective=quality, on_step=None, fails=lambda _: False):
    """Let trials end in random order until the search is over; return ids in the order of their start."""
    generator = random.Random(seed)
    running, order = [], []
    while True:
        while len(running) < num_slots and (record := oracle.next_trial()) is not None:
            running.append(record)
            order.append(record.trial_id)
        if not running:
            assert oracle.finished
            return order
        record = running.pop(generator.randrange(len(running)))
        if fails(record):
            oracle.fail(record.trial_id, "it cannot be trained", "nan", 1.0)
        else:
            complete(oracle, record, objective)
        if on_step:
            on_step(oracle)


def state_of(directory):
    """The trials of a search directory by id."""
    return {record.trial_id: record for record in read_search(directory).trials}
