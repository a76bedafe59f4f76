"""Which hooks a configuration asks for, in which order, and what is refused before a training."""

import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from mlpf.config.schema import Config
from mlpf.data.feeding.batch_loader import EventPool
from mlpf.errors import ConfigError, MissingDependency
from mlpf.runs import data as training_data
from mlpf.runs import hooks as training_hooks
from mlpf.runs.early_stopping import StopCriterion
from tests.support.configs import SMALL
from tests.support.fake_comet import FakeComet
from tests.support.fake_split import FakeSplit
from tests.support.models import TINY_NETWORK
from tests.support.models import tiny_model as tiny_network


def some_config(**overrides):
    return Config.model_validate({**SMALL, "parameters": TINY_NETWORK}).with_overrides(overrides)


def save(history):
    """Stands in for writing a checkpoint."""


def names(config, run_dir, monkeypatch):
    split = FakeSplit(4)
    monkeypatch.setattr(training_data, "open_split", lambda *_: split)
    trainer = SimpleNamespace(model=tiny_network(), optimizer=None)
    console = Console(quiet=True)
    with training_hooks.training_hooks(
        config, run_dir, trainer, EventPool([(split, None)]), console, save, StopCriterion(config)
    ) as hooks:
        return [getattr(hook, "__name__", type(hook).__name__) for hook in hooks.epoch]


def test_physics_comes_before_the_checkpoint_that_it_ranks(tmp_path, monkeypatch):
    found = names(some_config(), tmp_path, monkeypatch)
    assert found == [
        "record_gpu_memory",
        "judge",
        "save",
        "HistoryWriter",
        "TensorBoardWriter",
    ]


def test_what_is_off_is_not_there(tmp_path, monkeypatch):
    config = some_config(**{"callbacks.physics.every": 0, "callbacks.tensorboard": False})
    assert names(config, tmp_path, monkeypatch) == ["record_gpu_memory", "save", "HistoryWriter"]
    assert list(tmp_path.iterdir()) == []


def test_comet_is_asked_for_before_a_training(monkeypatch):
    monkeypatch.setitem(sys.modules, "comet_ml", None)
    training_hooks.check_callbacks(some_config())
    with pytest.raises(MissingDependency, match="pip install comet-ml"):
        training_hooks.check_callbacks(some_config(**{"callbacks.comet": {"project": "mlpf"}}))


def test_comet_gets_the_configuration(tmp_path, monkeypatch):
    comet = FakeComet()
    monkeypatch.setitem(sys.modules, "comet_ml", comet)
    config = some_config(**{"callbacks.comet": {"project": "mlpf", "offline": True}})
    training_hooks.check_callbacks(config)
    assert names(config, tmp_path, monkeypatch)[-1] == "CometLogger"
    (experiment,) = comet.experiments
    assert experiment.parameters["setup.lr"] == config.setup.lr
    assert experiment.ended


def test_a_monitor_that_is_never_recorded_is_refused():
    config = some_config(**{"callbacks.checkpoint.monitor": "val_los"})
    with pytest.raises(
        ConfigError, match=r"'val_los' is not recorded; choose one of loss, .*val_jet_response_iqr"
    ):
        training_hooks.check_callbacks(config)


def test_a_monitor_of_physics_needs_physics():
    ranked = {"callbacks.checkpoint.monitor": "val_jet_response_iqr"}
    training_hooks.check_callbacks(some_config(**ranked))
    with pytest.raises(
        ConfigError, match=r"val_jet_response_iqr is only recorded with callbacks\.physics\.every above 0"
    ):
        training_hooks.check_callbacks(some_config(**ranked, **{"callbacks.physics.every": 0}))


def test_a_monitor_that_should_not_be_small_is_refused():
    config = some_config(**{"callbacks.checkpoint.monitor": "val_jet_matched_fraction"})
    with pytest.raises(ConfigError, match="a smaller val_jet_matched_fraction is not better; choose one of "):
        training_hooks.check_callbacks(config)


@pytest.mark.parametrize(
    ("monitor", "said"),
    [
        ("val_los", "'val_los' is not recorded; choose one of loss"),
        ("val_jet_response_median", "a smaller val_jet_response_median is not better"),
    ],
)
def test_the_metric_of_early_stopping_is_checked_too(monitor, said):
    config = some_config(**{"callbacks.early_stopping": {"patience": 2, "monitor": monitor}})
    with pytest.raises(ConfigError, match=rf"callbacks\.early_stopping\.monitor: .*{said}"):
        training_hooks.check_callbacks(config)


@pytest.mark.parametrize(("peak", "found"), [(None, {}), (3_000_000, {"gpu_memory_peak_mb": 3.0})])
def test_gpu_memory_is_recorded_where_there_is_a_gpu(monkeypatch, peak, found):
    monkeypatch.setattr(training_hooks.session, "gpu_memory_peak", lambda: peak)
    history = [{"epoch": 1}]
    training_hooks.record_gpu_memory(history)
    assert history == [{"epoch": 1} | found]


def test_a_process_that_does_not_write_only_saves(tmp_path):
    with training_hooks.training_hooks(
        some_config(),
        tmp_path,
        None,
        None,
        Console(quiet=True),
        save,
        StopCriterion(some_config()),
        writes=False,
    ) as hooks:
        assert (hooks.epoch, hooks.step) == ([save], [])
    assert list(tmp_path.iterdir()) == []
