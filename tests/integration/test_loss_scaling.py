"""setup.dtype: the number formats train alike; float16, and only float16, scales the loss."""

import keras
import numpy as np
import pytest
from keras import ops

from mlpf.config.loss_schema import LossConfig
from mlpf.config.training_schema import OptimizerConfig, SetupConfig
from mlpf.data.feeding.batch_loader import BatchLoader, EventPool, length_buckets
from mlpf.errors import CheckpointError
from mlpf.training.checkpoints.checkpoint import load_optimizer, load_weights, save_checkpoint
from mlpf.training.checkpoints.run_state import RunState
from mlpf.training.loop.distribution import SingleDevice
from mlpf.training.loop.hooks import TrainingDiverged
from mlpf.training.loop.trainer import Trainer
from mlpf.training.losses.total import MLPFLoss
from mlpf.training.optimizers.build import build_optimizer, loss_scale
from tests.support.fake_split import FakeSplit
from tests.support.layer_contract import under_policy
from tests.support.models import TINY_NETWORK
from tests.support.models import tiny_model as graph_network
from tests.support.number_formats import skip_if_it_aborts
from tests.support.tiny_model import tiny_model

POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")
TOO_LARGE = 2.0**60  # gradients of order one overflow with this scale


def loaders():
    pool, valid = EventPool([(FakeSplit(40, seed=1), None)]), EventPool([(FakeSplit(15, seed=2), None)])
    edges = length_buckets([pool, valid], 16, 1.3)
    return (
        BatchLoader(pool, [(pool.events_of(0), 8)], edges, seed=3),
        BatchLoader(valid, [(valid.events_of(0), 8)], edges),
    )


def trainer(dtype="mixed_float16", make=tiny_model, scale=None, **setup):
    section = SetupConfig(dtype=dtype, **({"lr_schedule": "none", "lr": 1e-2} | setup))
    optimizer = build_optimizer(section, OptimizerConfig(), 100)
    if scale is not None:
        optimizer.initial_scale = scale
    model = under_policy(dtype, make)
    return Trainer(model, MLPFLoss(LossConfig()), optimizer, SingleDevice(), seed=4)


def weights(built):
    return [np.array(w) for w in built.model.get_weights()]


@pytest.mark.parametrize("dtype", POLICIES)
def test_the_loss_is_scaled_for_float16_only(dtype):
    skip_if_it_aborts(dtype)
    built = trainer(dtype)
    scale = loss_scale(built.optimizer)
    assert (scale is not None) == (dtype == "mixed_float16")
    assert float(built.optimizer.scale_loss(ops.array(2.0))) == (2.0 if scale is None else 2.0 * 2**15)
    record = built.fit(*loaders(), 1)[0]
    assert ("loss_scale" in record) == (dtype == "mixed_float16")
    if dtype != "mixed_float16":
        assert record["skipped_steps"] == 0


def graph_network_without_dropout():
    return graph_network(output_decoding={**TINY_NETWORK["output_decoding"], "dropout": 0.0})


@pytest.mark.parametrize(
    ("make", "num_epochs"),
    [(tiny_model, 12), pytest.param(graph_network_without_dropout, 15, marks=pytest.mark.slow)],
)
def test_all_formats_reach_the_same_loss(make, num_epochs):
    """From the same weights; the first steps of float16 are skipped, until its scale fits."""
    skip_if_it_aborts("mixed_bfloat16")
    histories = {dtype: trainer(dtype, make).fit(*loaders(), num_epochs) for dtype in POLICIES}
    final = {dtype: history[-1]["val_loss"] for dtype, history in histories.items()}
    assert final["float32"] < 0.5 * histories["float32"][0]["val_loss"]
    skipped = sum(record["skipped_steps"] for record in histories["mixed_float16"])
    assert 0 < skipped < 0.25 * num_epochs * len(loaders()[0].plan(1))
    assert final["mixed_bfloat16"] == pytest.approx(final["float32"], rel=0.03)
    assert final["mixed_float16"] == pytest.approx(final["float32"], rel=0.15)


def test_a_step_that_overflows_is_skipped_and_recorded():
    built = trainer(scale=TOO_LARGE, lr_warmup_steps=10)
    before = weights(built)
    first = built.fit(*loaders(), 1)
    steps = len(loaders()[0].plan(1))
    assert first[0]["skipped_steps"] == steps
    assert first[0]["loss_scale"] == TOO_LARGE / 2**steps
    assert np.isfinite(first[0]["loss"])
    for a, b in zip(before, weights(built), strict=True):
        np.testing.assert_array_equal(a, b)
    # Warm-up counts updates: the next epoch begins with its first step.
    assert built.fit(*loaders(), 2, state=RunState(first))[1]["learning_rate"] == pytest.approx(1e-3)


def test_the_scale_does_not_change_an_update():
    """A power of two only moves exponents: float32 weights get the same gradients without underflow."""
    results = []
    for scale in (1.0, 2.0**6):
        built = trainer(scale=scale, clipnorm=1e-2, optimizer="sgd", make=lambda: tiny_model(seed=3))
        built.fit(*loaders(), 1)
        results.append(weights(built))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def clipped_step(gradients):
    """Move two weights from 0 with loss scale 1024, clipnorm 1 and learning rate 1."""
    variables = [keras.Variable(np.zeros(1, np.float32)) for _ in gradients]
    section = SetupConfig(dtype="mixed_float16", clipnorm=1.0, optimizer="sgd", lr=1.0, lr_schedule="none")
    optimizer = build_optimizer(section, OptimizerConfig(), 1)
    optimizer.initial_scale = 1024.0
    optimizer.build(variables)
    optimizer.apply([ops.array([g * 1024.0]) for g in gradients])
    return [float(v.numpy()[0]) for v in variables], float(optimizer.dynamic_scale)


def test_clipping_sees_unscaled_gradients():
    found, scale = clipped_step([3.0, 4.0])
    np.testing.assert_allclose(found, [-0.6, -0.8], rtol=0, atol=1e-6)
    assert scale == 1024.0


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_clipping_does_not_hide_what_is_not_finite(bad):
    assert clipped_step([bad, 4.0]) == ([0.0, 0.0], 512.0)


def test_gradients_that_fit_no_scale_stop_the_training(monkeypatch):
    total = MLPFLoss.total

    def without_slope(self, values, weights):
        return total(self, values, weights) + ops.sqrt(0.0 * values[0])  # 0, with slope 0 x inf

    built = trainer(scale=2.0**-8)
    monkeypatch.setattr(MLPFLoss, "total", without_slope)
    with pytest.raises(
        TrainingDiverged, match="gradients are not finite in float16 even with the loss scaled"
    ):
        built.fit(*loaders(), 2)


@pytest.mark.slow
def test_a_resumed_training_has_the_scale_and_its_counter(tmp_path):
    straight, first = (trainer(scale=TOO_LARGE, make=lambda: tiny_model(dropout=0.2)) for _ in range(2))
    for built in (straight, first):  # grows within the test
        built.optimizer.dynamic_growth_steps = 7
    expected = straight.fit(*loaders(), 12)
    history = first.fit(*loaders(), 6)
    save_checkpoint(tmp_path / "epoch_6", first.model, first.optimizer, RunState(history))

    second = trainer(make=lambda: tiny_model(dropout=0.2))
    second.optimizer.dynamic_growth_steps = 7
    load_weights(tmp_path / "epoch_6", second.model)
    load_optimizer(tmp_path / "epoch_6", second.optimizer)
    found = second.fit(*loaders(), 12, state=RunState(history))

    keys = ("loss", "val_loss", "skipped_steps", "loss_scale")
    assert [[r[k] for k in keys] for r in found] == [[r[k] for k in keys] for r in expected]
    assert len({r["loss_scale"] for r in expected[6:]}) > 1
    for a, b in zip(straight.optimizer.variables, second.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_state_without_a_scale_is_refused(tmp_path):
    built, plain = trainer(), trainer("float32")
    save_checkpoint(tmp_path / "epoch_1", plain.model, plain.optimizer, RunState())
    with pytest.raises(CheckpointError, match="Adam with loss scale"):
        load_optimizer(tmp_path / "epoch_1", built.optimizer)
