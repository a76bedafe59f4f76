import keras
import numpy as np
import pytest
from keras import ops

from mlpf.config.loss_schema import LossConfig
from mlpf.config.training_schema import OptimizerConfig, SetupConfig
from mlpf.data.feeding.batch_loader import BatchLoader, EventPool, length_buckets
from mlpf.training.checkpoints.checkpoint import load_optimizer, load_weights, save_checkpoint
from mlpf.training.checkpoints.run_state import RunState
from mlpf.training.loop.distribution import SingleDevice
from mlpf.training.loop.trainer import Trainer
from mlpf.training.losses.total import MLPFLoss
from mlpf.training.optimizers.build import build_optimizer, num_steps
from tests.support.fake_split import FakeSplit
from tests.support.tiny_model import tiny_model


def optimizer(total_steps=100, optimizer_sections=None, **setup):
    section = SetupConfig(**({"lr_schedule": "none", "lr": 0.1} | setup))
    return build_optimizer(section, OptimizerConfig.model_validate(optimizer_sections or {}), total_steps)


def move(built, gradients):
    """Where two weights are after ``apply`` of each pair of gradients."""
    weights = [keras.Variable(np.array([w], np.float32)) for w in (1.0, -2.0)]
    built.build(weights)
    for pair in gradients:
        built.apply([ops.array([g], "float32") for g in pair])
    return [float(w.numpy()[0]) for w in weights]


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "lamb", "lion"])
@pytest.mark.parametrize("schedule", ["onecycle", "cosinedecay"])
def test_steps_with_the_same_gradient_are_one_update_with_it(name, schedule):
    setup = {"optimizer": name, "lr_schedule": schedule, "clipnorm": 0.5}
    gradients = [(3.0, -0.4), (0.1, 0.2), (-0.3, 0.3), (0.2, 0.9)]
    expected = move(optimizer(4, **setup), gradients)
    repeated = [pair for pair in gradients for _ in range(3)]

    found = move(optimizer(12, **setup, gradient_accumulation_steps=3), repeated)

    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_the_mean_gradient_makes_the_update_and_is_what_is_clipped():
    """Plain descent with rate 0.1; means (0.5, 0) and (6, 8): only the second is longer than 5."""
    built = optimizer(optimizer="sgd", clipnorm=5.0, gradient_accumulation_steps=2)

    found = move(built, [(100.0, -60.0), (-99.0, 60.0), (12.0, 0.0), (0.0, 16.0)])

    # Momentum 0.9: w0 = 1 - 0.05 - (0.9 0.05 + 0.3), w1 = -2 - 0.4.
    np.testing.assert_allclose(found, [0.605, -2.4], rtol=0, atol=1e-5)


def test_schedules_count_updates_and_reach_their_end():
    setup = {"lr": 1.0, "lr_schedule": "onecycle", "optimizer": "sgd", "gradient_accumulation_steps": 3}
    built, rates = optimizer(14, **setup), []
    built.build([keras.Variable(np.zeros(1, np.float32))])
    for _ in range(14):
        rates.append(float(built.learning_rate))
        built.apply([ops.zeros(1)])

    assert len(set(rates[:3])) == 1
    assert len(set(rates)) == 5  # 4 updates; the last two batches wait
    assert float(built.learning_rate) == pytest.approx(1e-5, rel=1e-6)
    assert (int(built.iterations), num_steps(built)) == (4, 14)


def test_averages_advance_once_per_update():
    """Plain descent with rate 0.1 from 1: 0.9, 0.71 (momentum 0.9), with decay 0.5 averages 0.9, 0.805."""
    built = optimizer(optimizer="sgd", ema=0.5, gradient_accumulation_steps=2)
    move(built, [(1.0, 0.0)] * 5)

    average = built.inner_optimizer._model_variables_moving_average[0]
    assert float(average.numpy()[0]) == pytest.approx(0.805, abs=1e-6)


def test_a_step_that_overflows_is_left_out():
    built = optimizer(
        optimizer="sgd", dtype="mixed_float16", gradient_accumulation_steps=2, lr_warmup_steps=2
    )
    built.initial_scale = 4.0

    found = move(built, [(4.0, 0.0), (np.inf, 0.0), (6.0, 0.0)])  # the scale is halved by the second

    assert found[0] == pytest.approx(1.0 - 0.05 * (1.0 + 3.0) / 2, abs=1e-6)
    assert (int(built.iterations), num_steps(built)) == (1, 2)


def test_it_comes_back_from_its_configuration():
    built = optimizer(gradient_accumulation_steps=4, ema=0.9, lr_schedule="onecycle")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(built))

    assert again.get_config() == built.get_config()


def loaders(min_elements=3, batch_size=8, num_events=40):
    pool = EventPool([(FakeSplit(num_events, seed=1, min_elements=min_elements), None)])
    edges = length_buckets([pool], 8, 1.3)
    return BatchLoader(pool, [(pool.events_of(0), batch_size)], edges, seed=3)


def trainer(loss=None, dropout=0.0, **setup):
    model = tiny_model(dropout=dropout)
    built = optimizer(**{"lr": 1e-2, "optimizer": "adamw"} | setup)
    return Trainer(model, MLPFLoss(loss or LossConfig()), built, SingleDevice(), seed=4)


def weights(built):
    return [np.array(w) for w in built.model.get_weights()]


def assert_close(found, expected, atol):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def test_steps_on_the_same_batch_are_one_step_on_it():
    one = trainer(clipnorm=1.0)
    many = trainer(clipnorm=1.0, gradient_accumulation_steps=4)
    batches = list(loaders().epoch(1).batches)[:2]
    for batch in batches:
        one.train_step(batch)
        for _ in range(4):
            many.train_step(batch)

    assert_close(weights(many), weights(one), atol=1e-6)


def test_batches_with_as_many_elements_are_one_large_batch():
    """Loss terms are means over elements, so the mean over equal batches is that of all their events."""
    heads = ("pt", "eta", "sin_phi", "cos_phi", "energy")
    only_elements = LossConfig.model_validate({f"{head}_loss_coef": 0.0 for head in heads})
    whole = next(iter(loaders(min_elements=40, num_events=8).epoch(1).batches))
    halves = [{name: array[rows] for name, array in whole.items()} for rows in (slice(0, 4), slice(4, 8))]
    one = trainer(only_elements, optimizer="sgd")
    many = trainer(only_elements, optimizer="sgd", gradient_accumulation_steps=2)

    one.train_step(whole)
    for half in halves:
        many.train_step(half)

    assert_close(weights(many), weights(one), atol=1e-6)


def test_waiting_gradients_are_carried_over_and_survive_a_resume(tmp_path):
    setup = {"gradient_accumulation_steps": 4, "ema": 0.9, "lr_schedule": "onecycle", "total_steps": 20}
    train, valid = loaders(), loaders()
    assert len(train.plan(1)) % 4 != 0
    straight, first = trainer(dropout=0.2, **setup), trainer(dropout=0.2, **setup)
    expected = straight.fit(train, valid, 3)
    history = first.fit(train, valid, 1)
    sums = first.optimizer.gradient_sums
    assert max(np.abs(np.array(s)).max() for s in sums) > 0
    assert {id(s) for s in sums} <= {id(v) for v in first.optimizer.variables}
    save_checkpoint(tmp_path / "epoch_1", first.model, first.optimizer, RunState(history))

    second = trainer(dropout=0.2, **setup)
    load_weights(tmp_path / "epoch_1", second.model)
    load_optimizer(tmp_path / "epoch_1", second.optimizer)
    found = second.fit(train, valid, 3, state=RunState(history))

    for a, b in zip(found, expected, strict=True):
        assert (a["loss"], a["val_loss"], a["learning_rate"]) == (
            b["loss"],
            b["val_loss"],
            b["learning_rate"],
        )
        assert a["skipped_steps"] == 0
    for a, b in zip(straight.optimizer.variables, second.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)
