import json
from contextlib import contextmanager

import numpy as np
import pytest
import yaml

from mlpf.config.schema import Config
from mlpf.errors import CheckpointError, DataError, OutputExists
from mlpf.workflows import train, training_data
from tests.support.fake_split import FakeSplit
from tests.support.models import TINY_NETWORK


def tiny_config(**overrides):
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


@pytest.fixture(autouse=True)
def _fake_data(monkeypatch):
    seeds = {("a", "train"): 1, ("b", "train"): 2, ("a", "valid"): 3}

    def open_fake(name, source, split, schema):
        return FakeSplit(12, seed=seeds[name, split], max_elements=20)

    monkeypatch.setattr(training_data, "open_split", open_fake)


def weights_of(folder):
    import h5py

    found = {}
    with h5py.File(folder / "model.weights.h5") as file:
        file.visititems(lambda n, d: found.update({n: d[()]}) if isinstance(d, h5py.Dataset) else None)
    return found


def test_a_run_writes_its_directory_and_refuses_to_overwrite_it(tmp_path):
    config = tiny_config(**{"setup.num_epochs": 2, "callbacks.tensorboard": True})
    summary = train.run(config, tmp_path / "run", ntrain=10, ntest=5)

    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert names == {
        "config.resolved.yaml",
        "environment.json",
        "history.json",
        "checkpoints",
        "logs",
        "validation_reference.json",
    }
    assert [r["num_events"] for r in summary.history] == [20, 20]
    assert json.loads((tmp_path / "run" / "history.json").read_text()) == summary.history
    assert (
        Config.model_validate(yaml.safe_load((tmp_path / "run" / "config.resolved.yaml").read_text()))
        == config
    )
    with pytest.raises(OutputExists, match="not empty"):
        train.run(config, tmp_path / "run")


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    config = tiny_config()
    straight = train.run(config, tmp_path / "straight")

    class Killed(Exception):
        pass

    @contextmanager
    def kill_after_two(*args):
        def kill(history):
            if len(history) == 2:
                raise Killed

        with training_hooks(*args) as hooks:
            hooks.epoch.append(kill)
            yield hooks

    training_hooks = train.training_hooks
    monkeypatch.setattr(train, "training_hooks", kill_after_two)
    with pytest.raises(Killed):
        train.run(config, tmp_path / "halves")
    monkeypatch.setattr(train, "training_hooks", training_hooks)
    resumed = train.run(config, tmp_path / "halves", resume=True)

    assert [r["epoch"] for r in resumed.history] == [1, 2, 3, 4]
    for a, b in zip(straight.history, resumed.history, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-6)
    first = weights_of(tmp_path / "straight" / "checkpoints" / "epoch_4")
    second = weights_of(tmp_path / "halves" / "checkpoints" / "epoch_4")
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_allclose(values, second[name], rtol=0, atol=1e-6, err_msg=name)


def test_weights_of_another_model_are_refused(tmp_path):
    train.run(tiny_config(**{"setup.num_epochs": 1}), tmp_path / "one")
    wider = tiny_config(**{"parameters.node_encoding_hidden_dim": 9})

    with pytest.raises(CheckpointError, match="another model"):
        train.run(wider, tmp_path / "two", weights=tmp_path / "one")


def test_a_split_without_events_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(training_data, "open_split", lambda *_: FakeSplit(0))

    with pytest.raises(DataError, match="split train has no events"):
        train.run(tiny_config(), tmp_path / "run")
