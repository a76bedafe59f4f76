"""Every loss in a training from the configuration to the history, for every kind of event."""

import numpy as np
import pytest

from mlpf.config.schema import Config
from mlpf.errors import DataError
from mlpf.physics.features import TARGETS
from mlpf.physics.schemas import SCHEMAS
from mlpf.runs import data as training_data
from mlpf.workflows import train
from tests.support.fake_split import FakeSplit
from tests.support.models import TINY_NETWORK

TERMS = ("sliced_wasserstein", "gen_jet_mse", "gen_jet_logcosh", "hist_2d", "met")
EVENT_LOSS = {name: {"coef": 0.5} for name in TERMS}
EXPONENTIAL = {"pt_as_correction": "exponential", "energy_as_correction": "exponential"}


def config(schema="clic", **loss):
    decoding = {**TINY_NETWORK["output_decoding"], **EXPONENTIAL}
    return Config.model_validate(
        {
            "dataset": {"schema": schema},
            "loss": loss,
            "setup": {"num_epochs": 2, "lr_schedule": "none", "lr": 1e-3},
            "parameters": {**TINY_NETWORK, "output_decoding": decoding},
            "callbacks": {"tensorboard": False, "checkpoint": {"monitor": "val_met_loss"}},
            "train_test_datasets": {"physical": {"batch_per_gpu": 8, "datasets": ["a"]}},
            "validation_dataset": "a",
            "validation_batch_size": 8,
            "evaluation_datasets": {},
            "datasets": {"a": {"version": "1.0.0"}},
        }
    )


def use(monkeypatch, with_jets=True):
    """Train on events in memory."""

    def open_fake(name, source, split, schema, detector):
        fake = FakeSplit(20, seed=1, max_elements=60, schema=schema.name)
        for event in fake._events:
            event["ygen"][:, TARGETS.index("jet_idx")] *= with_jets
        return fake

    monkeypatch.setattr(training_data, "open_split", open_fake)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_all_losses_are_trained_and_recorded(schema, tmp_path, monkeypatch):
    use(monkeypatch)
    logarithms = {"pt_target": "log_ratio", "energy_target": "log_ratio"}
    section = config(schema, event_loss=EVENT_LOSS, charge_loss_coef=0, **logarithms)

    history = train.run(section, tmp_path / "run").history

    for record in history:
        for name in TERMS:
            assert record[f"{name}_loss"] > 0
            assert record[f"val_{name}_loss"] > 0
        assert "charge_loss" not in record
        assert all(np.isfinite(value) for value in record.values())
    assert history[1]["loss"] < history[0]["loss"]


def test_losses_of_jets_need_jets(tmp_path, monkeypatch):
    use(monkeypatch, with_jets=False)
    section = config(event_loss=EVENT_LOSS)
    message = (
        r"loss\.event_loss\.gen_jet_mse and loss\.event_loss\.gen_jet_logcosh: 20 training events .* "
        "no target is in a jet .* set coef to 0"
    )
    with pytest.raises(DataError, match=message):
        train.run(section, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_events_without_jets_can_have_the_other_losses(tmp_path, monkeypatch):
    use(monkeypatch, with_jets=False)
    others = {name: section for name, section in EVENT_LOSS.items() if not name.startswith("gen_jet")}
    history = train.run(config(event_loss=others), tmp_path / "run").history
    assert np.isfinite(history[-1]["loss"])
