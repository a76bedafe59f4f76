"""Jets of validation events after an epoch: a network that copies the truth reaches the truth."""

import json

import pytest
import tensorflow as tf

from mlpf.config.schema import Config
from mlpf.data.feeding.batch_loader import EventPool
from mlpf.evaluation.inference import predict
from mlpf.evaluation.metrics import evaluate_predictions
from mlpf.evaluation.predictions import make_predictions
from mlpf.physics.features import TRACK_FEATURES
from mlpf.physics.particles import CLASS_INDEX, NUM_CLASSES
from mlpf.runs import data as training_data
from mlpf.runs import physics_validation
from tests.support.configs import SMALL
from tests.support.fake_split import FakeSplit
from tests.support.models import TINY_NETWORK
from tests.support.models import tiny_model as tiny_network

NUM_EVENTS = 20


def some_config(**overrides):
    config = Config.model_validate({**SMALL, "setup": {"num_epochs": 5}, "parameters": TINY_NETWORK})
    return config.with_overrides(overrides)


@pytest.fixture(autouse=True)
def split(monkeypatch):
    """The validation split of every configuration here."""
    events = FakeSplit(NUM_EVENTS, seed=3)
    monkeypatch.setattr(training_data, "open_split", lambda *_: events)
    return events


class Copies:
    """Knows how the fake events were made and gives back their targets, with pt and energy scaled."""

    def __init__(self, scale=1.0):
        self.scale = scale
        self.num_traces = 0

    def __call__(self, X, training):
        assert not training
        self.num_traces += 1
        column = {
            name: X[..., TRACK_FEATURES.index(name)] for name in ("elemtype", "pt", "eta", "p", "omega")
        } | {name: X[..., TRACK_FEATURES.index(name)] for name in ("sin_phi", "cos_phi")}
        track = column["elemtype"] == 1
        photon = (column["elemtype"] == 2) & (column["pt"] >= 2)
        cls = tf.where(track, CLASS_INDEX["charged hadron"], tf.where(photon, CLASS_INDEX["photon"], 0))
        numbers = {
            "pt": self.scale * column["pt"],
            "eta": column["eta"],
            "sin_phi": column["sin_phi"],
            "cos_phi": column["cos_phi"],
            "energy": self.scale * column["p"],
        }
        return {
            "cls": tf.one_hot(cls, NUM_CLASSES),
            "charge": tf.one_hot(1 + tf.cast(tf.where(track, tf.sign(column["omega"]), 0), tf.int32), 3),
            **{name: value[..., None] for name, value in numbers.items()},
        }


def is_last(history):
    return len(history) == 5


def hook(model, tmp_path, split, **overrides):
    pool = EventPool([(split, None)])
    config = some_config(**overrides)
    return physics_validation.build_physics_validation(config, tmp_path, model, pool, is_last)


def test_a_network_that_copies_the_targets_has_response_one(tmp_path, split):
    record = {"epoch": 1}
    hook(Copies(), tmp_path, split)([record])
    assert record["val_jet_response_median"] == pytest.approx(1, abs=1e-6)  # float32 inputs
    assert record["val_jet_response_iqr"] == pytest.approx(0, abs=1e-6)
    assert record["val_jet_matched_fraction"] == 1
    assert record["val_met_response_median"] == pytest.approx(1, abs=1e-5)
    assert record["val_met_response_iqr"] == pytest.approx(0, abs=1e-5)
    assert record["val_physics_seconds"] > 0


def test_scaled_momenta_scale_the_response_and_the_graph_is_traced_once(tmp_path, split):
    model = Copies(0.9)
    built = hook(model, tmp_path, split)
    first, second = {"epoch": 1}, {"epoch": 2}
    built([first])
    built([first, second])
    assert first["val_jet_response_median"] == pytest.approx(
        0.9, abs=1e-3
    )  # the softest jets fall below 5 GeV
    assert first["val_met_response_median"] == pytest.approx(0.9, abs=1e-5)
    assert second["val_jet_response_median"] == first["val_jet_response_median"]
    assert model.num_traces == 1


def test_numbers_are_those_of_evaluate_on_the_same_events(tmp_path, split):
    record = {"epoch": 1}
    hook(Copies(0.8), tmp_path, split, **{"callbacks.physics.num_events": 13})([record])
    forward = physics_validation.graph_forward(Copies(0.8), split.fetch([0], ("X",))["X"].shape[1])
    options = {"batch_size": 8, "bucket_size": 16, "growth": 1.3, "num_events": 13, "fields": split.fields}
    result = predict(forward, split, **options)
    predictions = make_predictions("a", result.events, result.predicted, "ee_genkt")
    expected = evaluate_predictions(predictions, num_resamples=2)["methods"]["pred"]["jet"]
    assert record["val_jet_matched_fraction"] == expected["matched_fraction"]
    assert record["val_jet_response_median"] == pytest.approx(expected["median"], abs=1e-6)  # float32 inputs
    assert record["val_jet_response_iqr"] == pytest.approx(expected["iqr_over_median"], abs=1e-6)


@pytest.mark.parametrize(("every", "epochs"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (10, [5])])
def test_every_n_epochs_and_after_the_last_one(tmp_path, split, every, epochs):
    built = hook(Copies(), tmp_path, split, **{"callbacks.physics.every": every})
    history = []
    for epoch in range(1, 6):
        history.append({"epoch": epoch})
        built(history)
    assert [r["epoch"] for r in history if "val_jet_response_iqr" in r] == epochs


def test_the_reference_holds_what_there_is_to_beat(tmp_path, split):
    built = hook(Copies(), tmp_path, split, **{"callbacks.physics.num_events": 7})
    reference = json.loads((tmp_path / physics_validation.REFERENCE_FILE).read_text(encoding="utf-8"))
    assert reference == built.reference
    assert (reference["dataset"], reference["num_events"]) == ("a", 7)
    # The baseline of fake events is their target.
    assert reference["methods"]["cand"]["jet_response_median"] == pytest.approx(1, abs=1e-9)
    assert "7 events of a; jet response IQR/median: baseline 0.0000" in built.target_line()


def test_no_more_events_than_the_training_validates_on(tmp_path, split):
    pool = EventPool([(split, 4)])
    built = physics_validation.build_physics_validation(some_config(), tmp_path, Copies(), pool, is_last)
    assert built.reference["num_events"] == 4


def test_the_threshold_of_the_evaluation_counts(tmp_path, split):
    network = tiny_network(seed=5)
    free, strict = (
        hook(network, tmp_path, split, evaluation_none_threshold=value).measure()
        for value in (1e-9, 1 - 1e-9)
    )
    assert free != strict


def test_an_epoch_without_jets_has_no_response(tmp_path, split):
    record = {"epoch": 1}
    hook(Copies(0.0), tmp_path, split)([record])
    assert "val_jet_response_iqr" not in record
    assert record["val_jet_matched_fraction"] == 0


def test_few_matched_jets_have_no_width_that_could_win(tmp_path, split):
    """Jets above 5 GeV are few once their momenta are scaled down."""
    record = {"epoch": 1}
    hook(Copies(0.5), tmp_path, split)([record])
    assert 0 < record["val_jet_matched_fraction"] < 0.5
    assert record["val_jet_response_median"] == pytest.approx(
        0.5, abs=0.05
    )  # jets lose what falls out of them
    assert "val_jet_response_iqr" not in record
