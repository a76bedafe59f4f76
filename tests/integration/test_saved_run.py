"""A run that an earlier version saved: its network still gives the same numbers, and its training goes on.

``tests/data/saved_run`` was written by ``write`` below in November 2026, before the rooms of the package
moved. It stays as it is: what it proves is that later code reads it.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.support.fake_split import FakeSplit
from tests.support.fake_training import open_fake, tiny_config

SAVED = Path(__file__).resolve().parents[1] / "data" / "saved_run"
# Sums of other instruction sets; outputs are of order 1.
TOLERANCE = 1e-4


def inputs():
    """Three events of the same length, (3, 8, F)."""
    split = FakeSplit(3, seed=5, min_elements=8, max_elements=8)
    return split.fetch(range(3))["X"].reshape(3, 8, -1)


def network(run_dir, weights):
    """Load the network of a run."""
    from mlpf.runs.trained import load_run_config, load_trained_model

    return load_trained_model(run_dir, load_run_config(run_dir), weights)[0]


def write(run_dir):
    """Train two of four epochs and note what the network gives; how the fixture was made."""
    from mlpf.runs import data as training_data
    from mlpf.workflows import train

    training_data.open_split = open_fake
    train.run(tiny_config(), run_dir, stop_after=2)
    shutil.rmtree(run_dir / "logs", ignore_errors=True)
    outputs = network(run_dir, "latest").predict_on_batch(inputs())
    np.savez_compressed(run_dir / "outputs.npz", **outputs)


@pytest.mark.parametrize("weights", ["latest", "best"])
def test_weights_are_read(weights):
    outputs = network(SAVED, weights).predict_on_batch(inputs())
    with np.load(SAVED / "outputs.npz") as saved:  # epoch 2 is the best and the latest
        assert set(saved.files) == set(outputs)
        for name in saved.files:
            np.testing.assert_allclose(outputs[name], saved[name], rtol=0, atol=TOLERANCE)


def test_the_training_goes_on(tmp_path, monkeypatch):
    from mlpf.runs import data as training_data
    from mlpf.workflows import train

    monkeypatch.setattr(training_data, "open_split", open_fake)
    run_dir = tmp_path / "run"
    shutil.copytree(SAVED, run_dir)
    whole = train.run(tiny_config(), tmp_path / "whole").history
    history = train.run(tiny_config(), run_dir, resume=True).history
    assert [record["epoch"] for record in history] == [1, 2, 3, 4]
    # The fixture may come from another instruction set than this machine's.
    assert history[-1]["val_loss"] == pytest.approx(whole[-1]["val_loss"], rel=1e-2)
