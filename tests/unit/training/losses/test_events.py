"""Event losses: values by hand, an independent float64 form, and what must not change them."""

import math

import numpy as np
import pytest
import tensorflow as tf

from mlpf.config.loss_schema import LossConfig
from mlpf.models.interface import element_mask
from mlpf.physics.features import NUM_CLIC_FEATURES, TARGETS
from mlpf.physics.schemas import SCHEMAS
from mlpf.training.losses.events import (
    EventLosses,
    momentum_cells,
    pair_events,
    particle_weight,
    sliced_wasserstein,
    unit_directions,
)
from mlpf.training.losses.targets import split_targets
from mlpf.training.losses.total import MLPFLoss
from tests.support.event_losses_float64 import event_losses_float64
from tests.support.fake_split import fake_event

TERMS = ("sliced_wasserstein", "gen_jet_mse", "gen_jet_logcosh", "hist_2d", "met")
KINEMATICS = ("pt", "eta", "sin_phi", "cos_phi", "energy")
NUM_DIRECTIONS = 7


OFF = {f"{name}_loss_coef": 0 for name in ("classification", "charge", *KINEMATICS)}


def config(*names, **settings):
    """Loss section in which only the event losses called ``names`` are on."""
    return LossConfig.model_validate(
        {**OFF, "event_loss": {name: {"coef": 1.0, **settings} for name in names}}
    )


ALL = LossConfig.model_validate(
    {
        **OFF,
        "event_loss": {
            **{name: {"coef": 1.0} for name in TERMS},
            "sliced_wasserstein": {"coef": 1.0, "num_projections": NUM_DIRECTIONS},
        },
    }
)


def batch_of(events):
    """Put events side by side: lists of (class, true (pt, eta, phi, E), jet, class, predicted (...))."""
    X = np.zeros((len(events), max(len(e) for e in events), NUM_CLIC_FEATURES), np.float32)
    y = np.zeros((*X.shape[:2], len(TARGETS)), np.float32)
    outputs = {name: np.zeros((*X.shape[:2], 1), np.float32) for name in KINEMATICS}
    outputs["cls"] = np.zeros((*X.shape[:2], 6), np.float32)
    for i, event in enumerate(events):
        for j, (cls, true, jet, pred_cls, pred) in enumerate(event):
            X[i, j, 0] = 1
            rows = [
                dict(zip(("pt", "eta", "sin_phi", "cos_phi", "energy"), kinematics, strict=True))
                for kinematics in ((p[0], p[1], math.sin(p[2]), math.cos(p[2]), p[3]) for p in (true, pred))
            ]
            y[i, j, TARGETS.index("cls")], y[i, j, TARGETS.index("jet_idx")] = cls, jet
            for name in KINEMATICS:
                y[i, j, TARGETS.index(name)] = rows[0][name]
                outputs[name][i, j] = rows[1][name]
            outputs["cls"][i, j, pred_cls] = 10.0  # 1 - softmax is 1 within e^-100
    return X, y, outputs


def paired(X, y, outputs):
    return pair_events(split_targets(element_mask(X), y), outputs)


def numbers(config, batch, training=False):
    loss = MLPFLoss(config)
    sums = loss.sums(*batch, training=training)
    return loss.components(sums.values, sums.weights)


NOTHING = (0.0, 0.0, 0.0, 0.0)
UP = math.pi / 2
# One jet of (3, 0) and (0, 4) GeV; both are predicted with twice their pt. The third element carries nothing,
# and is predicted so, whatever its momentum.
DOUBLED = [
    (1, (3.0, 0.0, 0.0, 3.0), 1, 1, (6.0, 0.0, 0.0, 6.0)),
    (3, (4.0, 0.0, UP, 4.0), 1, 2, (8.0, 0.0, UP, 8.0)),
    (0, NOTHING, 0, 0, (50.0, 0.0, 1.0, 50.0)),
]
# Two jets of 3 and 4 GeV, off by 1 and -2; one particle in no jet, predicted to be nothing.
TWO_JETS = [
    (1, (3.0, 0.0, 0.0, 3.0), 2, 1, (4.0, 0.0, 0.0, 3.0)),
    (1, (4.0, 0.0, UP, 4.0), 1, 1, (2.0, 0.0, UP, 4.0)),
    (2, (7.0, 0.0, UP, 9.0), 0, 0, (7.0, 0.0, UP, 9.0)),
]
NO_PARTICLE = [(0, NOTHING, 0, 1, (5.0, 0.0, 0.0, 5.0))]


def test_jets_by_hand():
    found = numbers(config("gen_jet_mse", "gen_jet_logcosh"), batch_of([DOUBLED, TWO_JETS, NO_PARTICLE]))

    # The jet of 5 GeV has 10; the others are off by 1 and 2. Means over the two events with jets.
    root = (5.0 + math.sqrt((1 + 4) / 2)) / 2
    log_cosh = (math.log(math.cosh(5)) + (math.log(math.cosh(1)) + math.log(math.cosh(2))) / 2) / 2
    assert found["gen_jet_mse_loss"] == pytest.approx(root, abs=1e-5)
    assert found["gen_jet_logcosh_loss"] == pytest.approx(log_cosh, abs=1e-5)


def test_missing_momentum_by_hand():
    batch = batch_of([DOUBLED, TWO_JETS, NO_PARTICLE])

    # True |(3, 4)| = 5 and |(3, 11)|; predicted 10 and |(4, 2)|.
    differences = np.array([5.0, math.hypot(3, 11) - math.hypot(4, 2)])
    huber = numbers(config("met", delta=2.0), batch)["met_loss"]
    assert huber == pytest.approx(np.mean(2 * (differences - 1)), abs=1e-5)
    absolute = numbers(config("met", type="MeanAbsoluteError"), batch)["met_loss"]
    assert absolute == pytest.approx(np.mean(differences), abs=1e-5)


def test_sliced_wasserstein_by_hand():
    one = [(1, (3.0, 0.5, 0.0, 5.0), 1, 1, (4.0, 1.0, 0.0, 7.0))]
    # The same particles on other elements: nothing to move.
    swapped = [
        (1, (3.0, 0.5, 0.0, 5.0), 1, 2, (4.0, 1.0, 0.0, 7.0)),
        (2, (4.0, 1.0, 0.0, 7.0), 1, 1, (3.0, 0.5, 0.0, 5.0)),
    ]
    events = paired(*batch_of([one, swapped]))

    # Along the axes pt, E and eta differ by 1, 2 and 1/2.
    found = np.asarray(sliced_wasserstein(events, np.eye(5, dtype=np.float32)))
    np.testing.assert_allclose(found, [math.sqrt((1 + 4 + 0.25) / 5), 0.0], rtol=0, atol=1e-6)
    # The mean of (d . v)^2 over all directions d is v^2 / 5.
    many = np.random.default_rng(0).normal(size=(5, 40_000)).astype(np.float32)
    found = np.asarray(sliced_wasserstein(events, unit_directions(many)))
    assert found[0] == pytest.approx(math.sqrt(5.25 / 5), rel=0.01)  # 40,000 directions: 0.5 %


def test_cells_by_hand():
    # Centres in eta -1 and 1, in phi -3/4, -1/4, 1/4 and 3/4 pi.
    event = [
        (1, (2.0, 0.0, math.pi / 4, 2.0), 1, 1, (2.0, 1.0, math.pi / 4, 2.0)),
        # Beyond the last centre in eta, and half-way between the last and the first in phi.
        (1, (4.0, 9.0, math.pi, 2.0), 1, 1, (4.0, -9.0, math.pi, 2.0)),
    ]
    batch = batch_of([event])
    events = paired(*batch)

    gen, pred = (np.asarray(momentum_cells(p, 2, 4, 2.0))[0] for p in (events.gen, events.pred))

    np.testing.assert_allclose(gen, [[0, 0, 1, 0], [2, 0, 1, 2]], rtol=0, atol=1e-5)
    np.testing.assert_allclose(pred, [[2, 0, 0, 2], [0, 0, 2, 0]], rtol=0, atol=1e-5)
    found = numbers(config("hist_2d", num_eta_bins=2, num_phi_bins=4, max_eta=2.0), batch)
    assert found["hist_2d_loss"] == pytest.approx(math.sqrt((4 * 4 + 2 * 1) / 8), abs=1e-5)


@pytest.mark.parametrize(
    ("term", "setting"),
    [
        ("hist_2d", {"num_eta_bins": 5}),
        ("hist_2d", {"num_phi_bins": 5}),
        ("hist_2d", {"max_eta": 3.0}),
        ("met", {"type": "LogCosh"}),
        ("met", {"kwargs": {"delta": 3.0}}),
        ("sliced_wasserstein", {"num_projections": 3}),
    ],
)
def test_every_setting_changes_its_term(term, setting, rng):
    batch = random_batch(rng)
    plain, changed = (numbers(config(term, **s), batch)[f"{term}_loss"] for s in ({}, setting))
    assert abs(changed - plain) > 1e-4 * plain


def test_the_weight_of_a_prediction_is_the_probability_of_a_particle(rng):
    logits = rng.normal(size=(2, 3, 6)).astype(np.float32)
    sharp = np.exp(10 * logits.astype(np.float64))
    np.testing.assert_allclose(
        np.asarray(particle_weight(logits)), 1 - sharp[..., 0] / sharp.sum(axis=-1), rtol=0, atol=1e-5
    )
    assert float(particle_weight(np.zeros((1, 1, 6), np.float32))[0, 0]) == pytest.approx(5 / 6, abs=1e-6)


def random_batch(rng, num_events=3, num_elements=14, schema="clic"):
    """Events of the fake dataset and predictions near their targets, of undecided classes."""
    events = [fake_event(rng, num_elements, schema=schema) for _ in range(num_events)]
    X, y = (np.stack([event[name] for event in events]) for name in ("X", "ygen"))
    outputs = {
        name: y[..., TARGETS.index(name), None] + rng.normal(0, 0.3, (*X.shape[:2], 1)).astype(np.float32)
        for name in KINEMATICS
    }
    outputs["cls"] = rng.normal(0, 0.2, (*X.shape[:2], 6)).astype(np.float32)
    return X, y, {name: values.astype(np.float32) for name, values in outputs.items()}


def test_all_agree_with_their_definitions_in_float64(rng):
    batch = random_batch(rng, num_events=5)
    losses = EventLosses(ALL.event_loss)

    found = numbers(ALL, batch)

    for name, value in event_losses_float64(*batch, losses._fixed_directions.astype(np.float64)).items():
        assert found[name] == pytest.approx(value, rel=1e-5)  # float32


def changed(batch, order, length, events):
    """The same batch with elements in another order, more padding, and empty events (-1) among the others."""
    X, y, outputs = batch

    def move(array):
        out = np.zeros((len(events), length, array.shape[-1]), np.float32)
        for i, event in enumerate(events):
            if event >= 0:
                out[i, : len(order)] = array[event, order]
        return out

    outputs = {name: move(values) for name, values in outputs.items()}
    for values in outputs.values():
        values[:, len(order) :] = 3.0  # whatever the model says about padding
    return move(X), move(y), outputs


def test_order_and_padding_do_not_matter(rng):
    batch = random_batch(rng)
    first = numbers(ALL, batch)
    second = numbers(ALL, changed(batch, rng.permutation(14), 40, [2, -1, 0, 1, -1]))
    for name, value in first.items():
        assert second[name] == pytest.approx(value, rel=1e-6)  # float32 order of sums


def test_sums_of_parts_add_up(rng):
    X, y, outputs = random_batch(rng, num_events=4)
    loss = MLPFLoss(ALL)
    whole = loss.sums(X, y, outputs)
    parts = [loss.sums(X[s], y[s], {n: v[s] for n, v in outputs.items()}) for s in (slice(1), slice(1, 4))]
    for name in ("values", "weights"):
        total = sum(np.asarray(getattr(part, name)) for part in parts)
        np.testing.assert_allclose(np.asarray(getattr(whole, name)), total, rtol=1e-6, atol=0)


def gradients_of(config, X, y, outputs, training=False):
    loss = MLPFLoss(config)
    outputs = {name: tf.constant(values) for name, values in outputs.items()}
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        sums = loss.sums(X, y, outputs, training=training)
        total = loss.total(sums.values, sums.weights)
    return float(total), {n: g.numpy() for n, g in tape.gradient(total, outputs).items() if g is not None}


def empty(num_events, num_elements):
    return batch_of([[(0, NOTHING, 0, 0, NOTHING)] * num_elements] * num_events)


@pytest.mark.parametrize("case", ["padding", "no particles", "all outputs zero", "exactly right", "no event"])
@pytest.mark.parametrize("term", TERMS)
def test_values_and_gradients_are_finite(term, case, rng):
    X, y, outputs = random_batch(rng, num_events=2)
    if case == "padding":
        X, y = X * 0, y * 0
    if case == "no particles":
        y = y * 0
    if case == "all outputs zero":
        outputs = {name: values * 0 for name, values in outputs.items()}
    if case == "exactly right":
        outputs = {n: y[..., TARGETS.index(n), None] for n in KINEMATICS} | {"cls": outputs["cls"] * 0}
        outputs["cls"][..., 0] = np.where(y[..., 0] > 0, -20.0, 20.0)
    if case == "no event":
        X, y, outputs = X[:0], y[:0], {name: values[:0] for name, values in outputs.items()}

    value, gradients = gradients_of(config(term), X, y, outputs, training=True)

    assert math.isfinite(value)
    assert set(gradients) >= {"pt", "cls"}
    assert all(np.isfinite(g).all() for g in gradients.values())
    if case not in ("all outputs zero",):
        assert value == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("term", TERMS)
def test_gradients_agree_with_differences(term, rng):
    X, y, outputs = random_batch(rng, num_events=2)
    _, gradients = gradients_of(config(term), X, y, outputs)
    step = 2e-3
    for name, gradient in gradients.items():
        direction = np.sign(gradient)  # the derivative is then the sum of the absolute gradients
        ends = [
            numbers(config(term), (X, y, {**outputs, name: outputs[name] + sign * step * direction}))["loss"]
            for sign in (1, -1)
        ]
        # float32 values of order 10 and steps of 2e-3; kinks of the sort and of the shares of cells.
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(np.abs(gradient).sum(), rel=0.02)


# Which outputs a term looks at.
REACHED = {
    "sliced_wasserstein": {"cls", *KINEMATICS},
    "gen_jet_mse": {"cls", "pt", "sin_phi", "cos_phi"},
    "gen_jet_logcosh": {"cls", "pt", "sin_phi", "cos_phi"},
    "hist_2d": {"cls", "pt", "eta", "sin_phi", "cos_phi"},
    "met": {"cls", "pt", "sin_phi", "cos_phi"},
}


@pytest.mark.parametrize("term", TERMS)
def test_gradients_reach_what_a_term_is_about(term, rng):
    _, gradients = gradients_of(config(term), *random_batch(rng))
    assert {name for name, g in gradients.items() if np.abs(g).max() > 1e-6} == REACHED[term]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_graphs_give_the_same(jit_compile, rng):
    batch = random_batch(rng, num_elements=9)
    loss = MLPFLoss(ALL)
    names = [*KINEMATICS, "cls"]

    def step(*arrays):
        outputs = dict(zip(names, arrays[2:], strict=True))
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            sums = loss.sums(*arrays[:2], outputs)
            total = loss.total(sums.values, sums.weights)
        gradients = tape.gradient(total, outputs)
        return total, [gradients[name] for name in names]

    open_axes = [tf.TensorSpec((None, None, a.shape[-1])) for a in (*batch[:2], *map(batch[2].get, names))]
    signature = {} if jit_compile else {"input_signature": open_axes}
    compiled = tf.function(step, autograph=False, jit_compile=jit_compile, **signature)
    # Another shape for the same graph; XLA would compile again.
    for events in ([0, 1, 2],) if jit_compile else ([0, 1, 2], [0, 1, 2, -1]):
        X, y, outputs = changed(batch, np.arange(9), 9 + len(events), events)
        total, gradients = compiled(X, y, *[outputs[name] for name in names])
        value, eager = gradients_of(ALL, X, y, outputs)
        assert float(total) == pytest.approx(value, rel=1e-5)
        for name, gradient in zip(names, gradients, strict=True):
            np.testing.assert_allclose(gradient, eager.get(name, 0 * outputs[name]), rtol=1e-3, atol=1e-5)


def test_training_draws_new_directions_and_validation_does_not(rng):
    batch = random_batch(rng)
    loss = MLPFLoss(config("sliced_wasserstein"), seed=3)

    def value(training):
        return float(loss.sums(*batch, training=training).values[0])

    (state,) = loss.random_states
    start = state.numpy().copy()
    fixed, first, second = value(False), value(True), value(True)

    assert len({fixed, first, second}) == 3
    assert value(False) == fixed
    state.assign(start)
    assert value(True) == first
    assert (
        float(MLPFLoss(config("sliced_wasserstein"), seed=4).sums(*batch, training=True).values[0]) != first
    )
    assert MLPFLoss(LossConfig()).random_states == []


@pytest.mark.parametrize("schema", SCHEMAS)
def test_events_of_every_schema(schema, rng):
    X, y, outputs = random_batch(rng, schema=schema)
    found = numbers(ALL, (X, y, outputs))
    assert all(value > 0 for value in found.values())
    # No jets: those losses have no event to compare.
    y[..., TARGETS.index("jet_idx")] = 0
    without = numbers(ALL, (X, y, outputs))
    assert without["gen_jet_mse_loss"] == without["gen_jet_logcosh_loss"] == 0
    assert without["hist_2d_loss"] == found["hist_2d_loss"]
