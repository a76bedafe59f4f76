import json

import keras
import numpy as np
import pytest

from mlpf.config.training_schema import CheckpointConfig
from mlpf.errors import CheckpointError
from mlpf.training.checkpoints.run_state import EpochProgress, RunState
from mlpf.training.checkpoints.store import CheckpointStore, best_epoch, find_checkpoint
from tests.support.tiny_model import tiny_model


@pytest.fixture
def parts():
    model, optimizer = tiny_model(), keras.optimizers.SGD(1e-2)
    optimizer.build(model.trainable_variables)
    return model, optimizer, lambda: np.zeros((1, 0, 2), np.int64)


def state(*values, step=0):
    """After epochs with these validation losses, and so many steps."""
    history = [{"epoch": i + 1, "val_loss": value} for i, value in enumerate(values)]
    return RunState(history, EpochProgress(step))


def folders(run_dir):
    return sorted(p.name for p in (run_dir / "checkpoints").iterdir() if p.is_dir())


def test_the_newest_and_the_best_are_kept(tmp_path, parts):
    store = CheckpointStore(tmp_path, CheckpointConfig(keep_last=2), *parts)
    values = (3.0, 1.0, 2.0, 4.0, float("nan"))

    for epoch in range(1, 6):
        store.save(state(*values[:epoch]))

    assert folders(tmp_path) == ["epoch_2", "epoch_4", "epoch_5"]
    assert find_checkpoint(tmp_path, "best").name == "epoch_2"
    assert find_checkpoint(tmp_path, "latest").name == "epoch_5"
    assert json.loads((tmp_path / "checkpoints" / "best.json").read_text(encoding="utf-8"))["value"] == 1.0


def test_of_the_middles_of_epochs_only_the_latest_is_kept(tmp_path, parts):
    store = CheckpointStore(tmp_path, CheckpointConfig(keep_last=1), *parts)

    store.save(state(step=10))
    assert (folders(tmp_path), find_checkpoint(tmp_path, "latest").name) == (
        ["epoch_1_step_10"],
        "epoch_1_step_10",
    )
    with pytest.raises(CheckpointError, match=r"best\.json: missing"):
        find_checkpoint(tmp_path, "best")
    store.save(state(1.0))
    store.save(state(1.0, 2.0))
    store.save(state(1.0, 2.0, step=5))
    store.save(state(1.0, 2.0, step=9))
    assert folders(tmp_path) == ["epoch_1", "epoch_2", "epoch_3_step_9"]
    assert find_checkpoint(tmp_path, "best").name == "epoch_1"
    assert json.loads((tmp_path / "checkpoints" / "latest.json").read_text(encoding="utf-8")) == {
        "folder": "epoch_3_step_9",
        "epoch": 3,
        "step": 9,
    }
    store.save(state(1.0, 2.0, 0.5))
    assert folders(tmp_path) == ["epoch_3"]


def test_what_a_killed_process_left_is_removed(tmp_path, parts):
    (tmp_path / "checkpoints" / ".epoch_7.123.part").mkdir(parents=True)

    CheckpointStore(tmp_path, CheckpointConfig(), *parts).save(state(1.0))

    assert folders(tmp_path) == ["epoch_1"]


def test_processes_that_do_not_write_take_part_only(tmp_path, parts):
    calls = []
    store = CheckpointStore(tmp_path, CheckpointConfig(), *parts[:2], lambda: calls.append(1), writes=False)
    store.save(state(1.0))

    assert calls == [1]
    assert list(tmp_path.iterdir()) == []


def test_the_monitor_ranks_checkpoints():
    history = [{"a": 1.0, "b": 2.0}, {"a": 2.0, "b": 1.0}]

    assert best_epoch(history, "a") == 1
    assert best_epoch(history, "b") == 2


def test_a_missing_checkpoint_says_where_it_was_sought(tmp_path):
    with pytest.raises(CheckpointError, match=r"best\.json"):
        find_checkpoint(tmp_path, "best")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        find_checkpoint(tmp_path, "elsewhere")
