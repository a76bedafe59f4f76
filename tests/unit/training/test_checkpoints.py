import json

import keras
import numpy as np
import pytest
from keras import ops

from mlpf.config.training_schema import CheckpointConfig
from mlpf.errors import CheckpointError
from mlpf.training.checkpoints import (
    CheckpointWriter,
    best_epoch,
    find_checkpoint,
    load_optimizer,
    load_weights,
    read_state,
    save_checkpoint,
)
from tests.support.tiny_model import tiny_model


def built(seed=0, optimizer=None):
    model = tiny_model(seed)
    optimizer = optimizer or keras.optimizers.Adam(1e-2)
    optimizer.build(model.trainable_variables)
    return model, optimizer


def step(model, optimizer):
    optimizer.apply([ops.ones(v.shape) for v in model.trainable_variables])


def records(*values):
    return [{"epoch": i + 1, "val_loss": value} for i, value in enumerate(values)]


def test_weights_and_optimizer_come_back(tmp_path):
    model, optimizer = built(seed=0)
    step(model, optimizer)
    save_checkpoint(tmp_path / "epoch_1", model, optimizer, records(1.0))
    other, other_optimizer = built(seed=1)

    load_weights(tmp_path / "epoch_1", other)
    load_optimizer(tmp_path / "epoch_1", other_optimizer)
    step(model, optimizer)
    step(other, other_optimizer)

    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert read_state(tmp_path / "epoch_1")["history"] == records(1.0)
    assert [p.name for p in tmp_path.iterdir()] == ["epoch_1"]


def test_a_checkpoint_of_another_model_names_the_first_weight(tmp_path):
    save_checkpoint(tmp_path / "epoch_1", *built(), records(1.0))
    other = keras.Sequential([keras.Input((17,)), keras.layers.Dense(3, name="head")])

    with pytest.raises(CheckpointError, match=r"another model: weight 0 is .*expected head/kernel \(17, 3\)"):
        load_weights(tmp_path / "epoch_1", other)


def test_damaged_files_are_reported(tmp_path):
    model, optimizer = built()
    save_checkpoint(tmp_path / "epoch_1", model, optimizer, records(1.0))
    (tmp_path / "epoch_1" / "model.weights.h5").write_bytes(b"no")
    (tmp_path / "epoch_1" / "optimizer.npz").write_bytes(b"no")

    with pytest.raises(CheckpointError, match="damaged"):
        load_weights(tmp_path / "epoch_1", model)
    with pytest.raises(CheckpointError, match="damaged"):
        load_optimizer(tmp_path / "epoch_1", optimizer)


def test_state_of_another_optimizer_is_refused(tmp_path):
    save_checkpoint(tmp_path / "epoch_1", *built(), records(1.0))
    _, sgd = built(optimizer=keras.optimizers.SGD(0.1))

    with pytest.raises(CheckpointError, match=r"Adam, but section setup asks for SGD"):
        load_optimizer(tmp_path / "epoch_1", sgd)


def test_the_newest_and_the_best_are_kept(tmp_path):
    write = CheckpointWriter(tmp_path, CheckpointConfig(keep_last=2), *built())
    values = (3.0, 1.0, 2.0, 4.0, float("nan"))

    for epoch in range(1, 6):
        write(records(*values[:epoch]))

    kept = sorted(p.name for p in (tmp_path / "checkpoints").glob("epoch_*"))
    assert kept == ["epoch_2", "epoch_4", "epoch_5"]
    assert find_checkpoint(tmp_path, "best").name == "epoch_2"
    assert find_checkpoint(tmp_path, "latest").name == "epoch_5"
    assert json.loads((tmp_path / "checkpoints" / "best.json").read_text())["value"] == 1.0


def test_the_monitor_ranks_checkpoints():
    history = [{"a": 1.0, "b": 2.0}, {"a": 2.0, "b": 1.0}]

    assert best_epoch(history, "a") == 1
    assert best_epoch(history, "b") == 2


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("[]", "epoch is 'None', expected int"),
        ('{"epoch": 1}', "optimizer is 'None', expected str"),
        ('{"epoch": 1, "optimizer": "Adam", "weights": {}, "history": []}', "weights is '{}', expected list"),
        ("{", "missing or damaged"),
    ],
)
def test_a_malformed_state_is_refused(tmp_path, state, reason):
    (tmp_path / "state.json").write_text(state)

    with pytest.raises(CheckpointError, match=reason):
        read_state(tmp_path)


def test_a_missing_checkpoint_says_where_it_was_sought(tmp_path):
    with pytest.raises(CheckpointError, match=r"best\.json"):
        find_checkpoint(tmp_path, "best")
    with pytest.raises(CheckpointError, match="no such file"):
        load_weights(tmp_path / "x.weights.h5", built()[0])


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(tmp_path / "epoch_1", *built(), records(1.0))

    assert list(tmp_path.iterdir()) == []
