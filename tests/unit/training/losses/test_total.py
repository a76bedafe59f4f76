import math

import numpy as np
import pytest
import tensorflow as tf

from mlpf.config.loss_schema import LossConfig
from mlpf.data.feeding.batch_loader import EventPool
from mlpf.models.interface import OUTPUT_NAMES
from mlpf.physics.features import NUM_CLIC_FEATURES, TARGETS, TRACK_FEATURES
from mlpf.training.losses.total import MLPFLoss, charge_loss, focal_loss
from tests.support.fake_split import FakeSplit


def numbers(config, X, y, outputs):
    loss = MLPFLoss(config)
    sums = loss.sums(X, y, outputs)
    return loss.components(sums.values, sums.weights)


def hand_event():
    """Two elements (pt 1 and 3 GeV), one padding; the second element carries a particle of class 1."""
    X = np.zeros((1, 3, NUM_CLIC_FEATURES), np.float32)
    X[0, :2, TRACK_FEATURES.index("elemtype")] = 1
    X[0, :2, TRACK_FEATURES.index("pt")] = [1.0, 3.0]
    y = np.zeros((1, 3, len(TARGETS)), np.float32)
    y[0, 1, TARGETS.index("cls")] = 1
    y[0, 1, TARGETS.index("charge")] = -1
    y[0, 1, TARGETS.index("pt")] = 3.0
    y[0, 1, TARGETS.index("energy")] = 10.0
    outputs = {name: np.zeros((1, 3, 1), np.float32) for name in OUTPUT_NAMES}
    outputs["cls"] = np.zeros((1, 3, 6), np.float32)
    outputs["charge"] = np.zeros((1, 3, 3), np.float32)
    outputs["pt"][0, 1] = 2.5
    outputs["energy"][0, :, 0] = [7.0, 6.0, 9.0]  # only the second one counts
    return X, y, outputs


def test_focal_loss_by_hand():
    # Logits 0: p = 1/2 for every class; true 0.25 * 0.25 ln 2, five others 0.75 * 0.25 ln 2 each.
    value = np.array(focal_loss(np.array([[2]]), np.zeros((1, 1, 6), np.float32), 2.0, 0.25))

    assert value[0, 0] == pytest.approx((0.25 + 5 * 0.75) * 0.25 * math.log(2), abs=1e-6)  # float32


def test_focal_loss_stays_finite_for_large_logits():
    logits = np.array([[[200.0, -200.0, 200.0]]], np.float32)

    value = np.array(focal_loss(np.array([[1]]), logits, 2.0, 0.25))

    # Each of the three is wrong by 200: 0.25 + 2 * 0.75 times 200.
    assert value[0, 0] == pytest.approx(350.0, abs=1e-3)


def test_charge_loss_of_equal_logits_is_ln_3():
    value = np.array(charge_loss(np.array([[0, 2]]), np.zeros((1, 2, 3), np.float32)))

    np.testing.assert_allclose(value, math.log(3), rtol=0, atol=1e-6)


def test_terms_are_means_over_elements_and_particles():
    found = numbers(LossConfig(), *hand_event())

    # Huber with delta 1: 0.5 * 0.5^2 and 4 - 0.5, one particle.
    assert found["pt_loss"] == pytest.approx(0.125, abs=1e-6)
    assert found["energy_loss"] == pytest.approx(3.5, abs=1e-6)
    assert found["charge_loss"] == pytest.approx(math.log(3), abs=1e-6)
    cls = 4 * 0.25 * math.log(2)
    assert found["cls_loss"] == pytest.approx(cls, abs=1e-6)
    # Coefficients 100, 1, 10 for pt and energy.
    assert found["loss"] == pytest.approx(100 * cls + math.log(3) + 1.25 + 35, abs=1e-3)


@pytest.mark.parametrize(
    ("key", "value", "term"),
    [
        ("cls_loss", {"gamma": 0.0}, "cls_loss"),
        ("cls_loss", {"alpha": 0.5}, "cls_loss"),
        ("energy_loss", {"delta": 2.0}, "energy_loss"),
        ("energy_loss", {"type": "MeanAbsoluteError"}, "energy_loss"),
        ("pt_loss", {"type": "MeanSquaredError"}, "pt_loss"),
        ("pt_loss", {"type": "LogCosh"}, "pt_loss"),
        ("pt_loss", {"type": "MeanSquaredLogarithmicError"}, "pt_loss"),
        ("pt_loss", {"type": "MeanAbsolutePercentageError"}, "pt_loss"),
        ("energy_loss", {"kwargs": {"delta": 2.0}}, "energy_loss"),
        ("pt_target", "log_ratio", "pt_loss"),
        ("energy_target", "log_ratio", "energy_loss"),
        ("energy_loss_coef", 3.0, "loss"),
        ("classification_loss_coef", 3.0, "loss"),
        ("charge_loss_coef", 3.0, "loss"),
        ("pt_loss_coef", 3.0, "loss"),
    ],
)
def test_every_key_changes_its_term(key, value, term):
    event = hand_event()
    changed = LossConfig.model_validate({key: value})

    assert abs(numbers(changed, *event)[term] - numbers(LossConfig(), *event)[term]) > 1e-3


def test_weights_by_pt_are_normalised_by_their_sum():
    X, y, outputs = hand_event()
    outputs["cls"][0, 1] = [-9, 9, -9, -9, -9, -9]  # the second element is right, the first is not

    plain = numbers(LossConfig(), X, y, outputs)["cls_loss"]
    weighted = numbers(LossConfig(cls_weight_by_pt=True), X, y, outputs)["cls_loss"]

    # Weights 1 and 3: the wrong element counts a quarter instead of a half.
    assert weighted == pytest.approx(plain / 2, abs=1e-5)


def test_regression_weights_by_pt_favour_hard_elements():
    X, y, outputs = hand_event()
    y[0, 0, TARGETS.index("cls")] = 1
    y[0, 0, TARGETS.index("energy")] = 7.0  # right, and soft

    plain = numbers(LossConfig(), X, y, outputs)["energy_loss"]
    weighted = numbers(LossConfig(reg_weight_by_pt=True), X, y, outputs)["energy_loss"]

    assert plain == pytest.approx(3.5 / 2, abs=1e-6)
    assert weighted == pytest.approx(3.5 * 3 / 4, abs=1e-6)


def test_weights_by_the_root_of_pt():
    X, y, outputs = hand_event()
    X[0, 0, TRACK_FEATURES.index("pt")], X[0, 1, TRACK_FEATURES.index("pt")] = 1.0, 9.0
    outputs["cls"][0, 1] = [-9, 9, -9, -9, -9, -9]
    y[0, 0, TARGETS.index("cls")] = 1
    y[0, 0, TARGETS.index("energy")] = 7.0

    plain = numbers(LossConfig(), X, y, outputs)
    found = numbers(LossConfig(cls_weight_by_pt="sqrt", reg_weight_by_pt="sqrt"), X, y, outputs)

    # Weights 1 and 3 instead of 1 and 1: the first is wrong in class, the second in energy.
    assert found["cls_loss"] == pytest.approx(plain["cls_loss"] / 2, abs=1e-5)
    assert found["energy_loss"] == pytest.approx(3.5 * 3 / 4, abs=1e-6)


def test_log_ratio_targets_by_hand():
    X, y, outputs = hand_event()
    outputs["pt"][0, 1] = 3.0 * math.e
    outputs["energy"][0, 1] = 10.0 * math.exp(-0.5)

    found = numbers(LossConfig(pt_target="log_ratio", energy_target="log_ratio"), X, y, outputs)

    # Huber with delta 1 of ln e = 1 and of -1/2.
    assert found["pt_loss"] == pytest.approx(0.5, abs=1e-6)
    assert found["energy_loss"] == pytest.approx(0.125, abs=1e-6)


EVENT_TERMS = ("sliced_wasserstein", "gen_jet_mse", "gen_jet_logcosh", "hist_2d", "met")
OFF = {"classification_loss_coef": 0, **dict.fromkeys([f"{n}_loss_coef" for n in OUTPUT_NAMES[1:]], 0)}


def with_events(*names, **changes):
    return LossConfig.model_validate({**changes, "event_loss": {name: {"coef": 1.0} for name in names}})


def test_terms_without_coefficient_are_neither_computed_nor_recorded():
    X, y, outputs = hand_event()
    config = LossConfig.model_validate({**OFF, "energy_loss_coef": 2.0})

    # Any access to another output would raise.
    found = numbers(config, X, y, {"energy": outputs["energy"]})

    assert MLPFLoss(config).term_names == ("energy",)
    assert found == {"loss": pytest.approx(7.0), "energy_loss": pytest.approx(3.5)}


def graph_of(config, event):
    loss = MLPFLoss(config)
    step = tf.function(lambda *batch: loss.sums(*batch, training=True).values, autograph=False)
    return [operation.type for operation in step.get_concrete_function(*event).graph.get_operations()]


def test_terms_without_coefficient_are_not_in_the_graph():
    event = hand_event()
    plain = graph_of(LossConfig(), event)

    assert not {"TopKV2", "UnsortedSegmentSum", "Atan2", "StatelessRandomNormalV2"} & set(plain)
    assert "TopKV2" in graph_of(with_events("sliced_wasserstein"), event)
    assert "UnsortedSegmentSum" in graph_of(with_events("gen_jet_mse"), event)
    assert "Atan2" in graph_of(with_events("hist_2d"), event)
    assert len(graph_of(LossConfig(charge_loss_coef=0), event)) < len(plain)


def test_outputs_without_a_term_get_no_gradient():
    X, y, outputs = hand_event()
    outputs = {name: tf.constant(values) for name, values in outputs.items()}
    loss = MLPFLoss(LossConfig(charge_loss_coef=0))
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        sums = loss.sums(X, y, outputs)
        total = loss.total(sums.values, sums.weights)

    gradients = tape.gradient(total, outputs)

    assert gradients.pop("charge") is None
    assert all(gradient is not None for gradient in gradients.values())


def test_event_losses_enter_the_total_with_their_coefficients():
    event = hand_event()
    _, y, outputs = event
    y[0, 1, TARGETS.index("cos_phi")] = 1
    outputs["cos_phi"][0, 1] = 1
    plain = numbers(LossConfig(), *event)
    config = LossConfig.model_validate({"event_loss": {"met": {"coef": 4.0}, "hist_2d": {"coef": 2.0}}})

    found = numbers(config, *event)

    assert set(found) - set(plain) == {"met_loss", "hist_2d_loss"}
    # True 3 GeV; predicted 5/6 of 2.5 GeV, since all classes are equally likely.
    assert found["met_loss"] == pytest.approx((3 - 2.5 * 5 / 6) ** 2 / 2, abs=1e-5)
    added = 4 * found["met_loss"] + 2 * found["hist_2d_loss"]
    assert found["loss"] == pytest.approx(plain["loss"] + added, rel=1e-6)


def test_every_term_alone():
    event = hand_event()
    for name in EVENT_TERMS:
        found = numbers(with_events(name, **OFF), *event)
        assert set(found) == {"loss", f"{name}_loss"}


def test_padding_and_empty_events_change_nothing(rng):
    pool = EventPool([(FakeSplit(4, seed=1), None)])
    tight = pool.fetch_padded(np.arange(4), 40)
    wide = pool.fetch_padded(np.array([0, -1, 1, 2, -1, 3]), 96)

    def outputs(rows, length, random):
        widths = {"cls": 6, "charge": 3}
        made = {n: np.zeros((6, 96, widths.get(n, 1)), np.float32) for n in OUTPUT_NAMES}
        for name, array in made.items():
            array[:4, :40] = random[name]
            array[:4, 40:] = 5.0  # whatever the model says about padding
        return {n: array[rows, :length] for n, array in made.items()}

    random = {n: rng.normal(size=(4, 40, {"cls": 6, "charge": 3}.get(n, 1))) for n in OUTPUT_NAMES}
    config = with_events(*EVENT_TERMS)
    first = numbers(config, tight["X"], tight["ygen"], outputs([0, 1, 2, 3], 40, random))
    second = numbers(config, wide["X"], wide["ygen"], outputs([0, 4, 1, 2, 5, 3], 96, random))

    for name, value in first.items():
        assert second[name] == pytest.approx(value, abs=1e-5 * max(1, abs(value)))  # float32 order of sums


def test_a_batch_without_particles_has_no_regression_loss():
    X, y, outputs = hand_event()

    found = numbers(LossConfig(), X, y * 0, outputs)

    assert found["energy_loss"] == 0
    assert math.isfinite(found["loss"])
