"""A training that goes wrong leaves the batch behind, with exactly the events that were in it."""

import json

import numpy as np
import pytest

from mlpf.data.feeding.batch_plan import EMPTY_EVENT
from mlpf.runs import data as training_data
from mlpf.runs import divergence
from mlpf.runs.divergence import bad_outputs, bad_weights
from mlpf.training.loop.hooks import TrainingDiverged
from mlpf.workflows import train
from tests.support.events import one_by_one
from tests.support.fake_split import FakeSplit
from tests.support.fake_training import tiny_config
from tests.support.models import tiny_model


def some_config(**overrides):
    settings = {"setup.num_epochs": 2, "parameters.use_normalizer": False, "callbacks.physics.every": 0}
    return tiny_config(**(settings | overrides))


@pytest.fixture(autouse=True)
def splits(monkeypatch):
    """The training splits by name."""
    found = {"a": FakeSplit(13, seed=1, max_elements=20), "b": FakeSplit(12, seed=2, max_elements=20)}
    valid = FakeSplit(5, seed=3)

    def open_fake(name, source, split, schema, detector):
        return found[name] if split == "train" else valid

    monkeypatch.setattr(training_data, "open_split", open_fake)
    return found


def test_a_learning_rate_that_is_too_large_leaves_the_batch(tmp_path, splits):
    config = some_config(**{"setup.lr": 1e38, "setup.optimizer": "sgd"})
    with pytest.raises(
        TrainingDiverged, match=r"; the batch is in .*/diverged/epoch_1_step_\d\.npz$"
    ) as caught:
        train.run(config, tmp_path / "run")

    error = caught.value
    file = tmp_path / "run" / "diverged" / f"epoch_{error.epoch}_step_{error.step}.npz"
    planned = training_data.build_loaders(config, 1)[0].plan(error.epoch).batches[error.step - 1]
    with np.load(file, allow_pickle=False) as saved:
        assert str(saved["split"]) == "train"
        assert saved["X"].shape == (8, planned.length, 17)
        for row, pool_index in enumerate(planned.indices):
            if pool_index == EMPTY_EVENT:
                assert (saved["dataset"][row], saved["index"][row], saved["event"][row]) == ("", -1, "")
                assert not saved["X"][row].any()
                continue
            name, index = ("a", pool_index) if pool_index < 13 else ("b", pool_index - 13)
            assert (saved["dataset"][row], saved["index"][row]) == (name, index)
            (event,) = one_by_one(splits[name].fetch([index], ("X", "ygen", "event")))
            assert saved["event"][row] == str(event["event"])
            number = len(event["X"])
            np.testing.assert_array_equal(saved["X"][row, :number], event["X"])
            np.testing.assert_array_equal(saved["ygen"][row, :number], event["ygen"])
            assert not saved["X"][row, number:].any()
    report = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    assert (report["epoch"], report["step"]) == (error.epoch, error.step)
    assert report["learning_rate"] == pytest.approx(1e38)
    assert report["weights_not_finite"]
    assert report["loss_terms"].keys() >= {"loss", "cls_loss", "energy_loss"}
    assert "nan" in report["loss_terms"].values()


def test_a_batch_is_filled_with_empty_events(splits):
    config = some_config()
    loader = training_data.build_loaders(config, 1)[0]
    (short,) = (batch for batch in loader.plan(1).batches if EMPTY_EVENT in batch.indices)
    events = divergence.describe_events(config, loader, short)
    empty = short.indices == EMPTY_EVENT
    np.testing.assert_array_equal(events["index"][empty], -1)
    np.testing.assert_array_equal(events["dataset"] == "", empty)
    np.testing.assert_array_equal(events["event"] == "", empty)


def test_checkpoints_of_before_stay(tmp_path, monkeypatch):
    run = tmp_path / "run"
    train.run(some_config(**{"setup.num_epochs": 1}), run)
    restore = train.restore

    def damaged(trainer, *rest):
        state = restore(trainer, *rest)
        theta = trainer.model.cg_id[0].messages[0].theta
        theta.assign(np.full(theta.shape, np.nan))
        return state

    monkeypatch.setattr(train, "restore", damaged)
    with pytest.raises(TrainingDiverged, match=r"epoch 2, step 1: .*/diverged/epoch_2_step_1\.npz"):
        train.run(some_config(), run, resume=True)
    assert (run / "checkpoints" / "epoch_1" / "model.weights.h5").is_file()
    report = json.loads((run / "diverged" / "epoch_2_step_1.json").read_text(encoding="utf-8"))
    assert any("theta" in path for path in report["weights_not_finite"])
    assert report["layers_not_finite"]


def test_a_full_disk_does_not_hide_why_the_training_stopped(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(divergence, "save_batch", full)
    with pytest.raises(
        TrainingDiverged, match=r"not finite .*; the batch could not be saved \(.*No space left"
    ):
        train.run(some_config(**{"setup.lr": 1e38, "setup.optimizer": "sgd"}), tmp_path / "run")


def batch():
    X = FakeSplit(1, seed=1, min_elements=16, max_elements=16).fetch([0], ("X",))["X"]
    return X[None]


def test_a_sound_network_has_nothing_to_report():
    network = tiny_model()
    assert bad_weights(network) == {}
    assert bad_outputs(network, batch()) == ({}, {})


def test_the_first_layer_named_is_the_one_that_is_broken():
    network = tiny_model()
    message = network.cg_id[0].messages[0]
    theta = np.array(message.theta)
    theta[0, 0] = np.nan
    message.theta.assign(theta)

    (path,) = bad_weights(network)
    assert path == message.theta.path
    assert bad_weights(network)[path] == {"not_finite": 1, "size": theta.size}
    layers, _ = bad_outputs(network, batch())
    assert next(iter(layers)) == message.path
    assert layers[message.path]["not_finite"] > 0


def test_the_network_is_left_as_it_was():
    network, X = tiny_model(), batch()
    before = network(X)
    bad_outputs(network, X)
    assert not any("call" in layer.__dict__ for layer in network._flatten_layers())
    for name, values in network(X).items():
        np.testing.assert_array_equal(values, before[name])
