import itertools
import json
import time

import keras
import numpy as np
import pytest

from mlpf.config.loss_schema import LossConfig
from mlpf.config.training_schema import OptimizerConfig, SetupConfig
from mlpf.data.feeding.batch_loader import BatchLoader, EventPool, length_buckets
from mlpf.training.checkpoints.run_state import RunState
from mlpf.training.loop.distribution import SingleDevice
from mlpf.training.loop.hooks import TrainingDiverged
from mlpf.training.loop.interruption import SavePolicy, TrainingStopped
from mlpf.training.loop.trainer import Trainer
from mlpf.training.losses.total import MLPFLoss
from mlpf.training.optimizers.build import build_optimizer
from tests.support.fake_split import FakeSplit
from tests.support.models import tiny_model as tiny_network
from tests.support.number_formats import skip_if_it_aborts
from tests.support.tiny_model import tiny_model


def loaders(batch_size=8, growth=1.3):
    pool, valid = EventPool([(FakeSplit(40, seed=1), None)]), EventPool([(FakeSplit(15, seed=2), None)])
    edges = length_buckets([pool, valid], 8, growth)
    return (
        BatchLoader(pool, [(pool.events_of(0), batch_size)], edges, seed=3),
        BatchLoader(valid, [(valid.events_of(0), batch_size)], edges),
    )


def trainer(dropout=0.0, jit_compile=False, clock=time.perf_counter, **setup):
    section = SetupConfig(lr_schedule="none", **({"lr": 1e-2} | setup))
    model = tiny_model(seed=0, dropout=dropout)
    optimizer = build_optimizer(section, OptimizerConfig(), 10)
    return Trainer(model, MLPFLoss(LossConfig()), optimizer, SingleDevice(jit_compile), seed=4, clock=clock)


def clock_of(seconds):
    """A clock that advances by ``seconds`` each time it is read, however fast the machine is."""
    return itertools.count(step=seconds).__next__


def weights(built):
    return [np.array(w) for w in built.model.get_weights()]


def test_training_lowers_the_loss_with_one_graph_per_kind_of_step():
    built = trainer()
    train, valid = loaders()

    history = built.fit(train, valid, 4)

    assert [record["epoch"] for record in history] == [1, 2, 3, 4]
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["val_loss"] < history[0]["val_loss"]
    assert len({batch.length for batch in train.plan(1).batches}) > 1
    assert built.num_traces == 2


def test_an_end_before_the_last_epoch():
    train, valid = loaders()
    asked = []

    def is_over(history):
        asked.append(len(history))
        return len(history) == 2

    assert len(trainer().fit(train, valid, 4, is_over=is_over)) == 2
    assert asked == [0, 1, 2]


def test_the_first_process_decides_about_the_end():
    class Second(SingleDevice):
        rank = 1

        def largest(self, number):
            assert number == 0
            return 1  # what the first says

    built = trainer()
    built._distribution = Second()
    train, valid = loaders()
    assert built.fit(train, valid, 4, is_over=lambda _: pytest.fail("is not asked")) == []


def test_a_step_of_training_draws_directions_and_an_epoch_of_validation_does_not():
    section = LossConfig.model_validate({"event_loss": {"sliced_wasserstein": {"coef": 1.0}}})
    model = tiny_model(seed=0)
    loss = MLPFLoss(section)
    optimizer = build_optimizer(SetupConfig(lr_schedule="none", lr=1e-2), OptimizerConfig(), 10)
    built = Trainer(model, loss, optimizer, SingleDevice(), seed=4)
    train, valid = loaders()
    (state,) = loss.random_states

    history = built.fit(train, valid, 1)

    assert "sliced_wasserstein_loss" in history[0]
    assert "val_sliced_wasserstein_loss" in history[0]
    after = state.numpy().copy()
    assert built.evaluate(valid) == built.evaluate(valid)
    assert (state.numpy() == after).all()
    # One draw per step, from a start that follows from (seed, epoch).
    built.random_states.reseed(1)
    assert after[1] - state.numpy()[1] == len(train.plan(1).batches)


def shapes(loader):
    return {(len(batch.indices), batch.length) for epoch in (1, 2, 3) for batch in loader.plan(epoch).batches}


def test_xla_gives_the_same_losses_with_one_graph_per_shape():
    compiled, plain = trainer(jit_compile=True, clipnorm=10.0), trainer(clipnorm=10.0)
    train, valid = loaders(growth=2.0)

    found, expected = compiled.fit(train, valid, 3), plain.fit(train, valid, 3)

    for a, b in zip(found, expected, strict=True):
        for key in ("loss", "val_loss", "energy_loss"):
            assert a[key] == pytest.approx(b[key], rel=1e-4)  # float32 sums in another order
    assert len(shapes(train)) > 1
    assert [record["num_traces"] for record in found] == [len(shapes(train)) + len(shapes(valid))] * 3


def test_the_same_seed_gives_the_same_numbers():
    runs = [trainer(dropout=0.2) for _ in range(2)]
    losses = [[r["loss"] for r in run.fit(*loaders(), 2)] for run in runs]

    assert losses[0] == losses[1]


def test_validation_does_not_depend_on_the_batch_size():
    built = trainer()

    small, large = (built.evaluate(loaders(size)[1]) for size in (4, 15))

    for name, value in small.items():
        assert large[name] == pytest.approx(value, abs=1e-5 * max(1, abs(value)))  # float32 order of sums


def variables(built):
    return [np.array(v) for v in [*built.model.variables, *built.optimizer.variables]]


def test_a_training_stopped_at_any_step_continues_bit_by_bit():
    straight = trainer(dropout=0.2)
    history = straight.fit(*loaders(), 3)
    steps = len(loaders()[0].plan(1))
    kept = {}
    for stop_after in (1, 2, steps - 2, steps, 2):
        built = trainer(dropout=0.2)  # a new process, so to speak
        state = RunState()
        if kept:
            state = RunState.from_json(json.loads(kept["state"]))
            for variable, value in zip(
                [*built.model.variables, *built.optimizer.variables], kept["variables"], strict=True
            ):
                variable.assign(value)
            built.random_states.restore(kept["random"])

        def save(now, built=built):
            kept["state"] = json.dumps(now.to_json())
            kept["variables"] = variables(built)
            kept["random"] = built.random_states.read()

        with pytest.raises(TrainingStopped, match=r"FAKE, after .* continue with --resume"):
            built.fit(
                *loaders(),
                3,
                state=state,
                save_policy=SavePolicy(save, StopAfter(stop_after)),
                on_epoch_end=[lambda _, s=state, f=save: f(s)],
            )
    last = trainer(dropout=0.2)
    for variable, value in zip(
        [*last.model.variables, *last.optimizer.variables], kept["variables"], strict=True
    ):
        variable.assign(value)
    resumed = last.fit(*loaders(), 3, state=RunState.from_json(json.loads(kept["state"])))

    for a, b in zip(variables(straight), variables(last), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(history, resumed, strict=True):
        same = {name: a[name] for name in a if name.endswith("loss") or name in ("learning_rate", "epoch")}
        assert same == {name: b[name] for name in same}


class StopAfter:
    """A request to stop that comes after so many looks at it."""

    def __init__(self, looks):
        self._left = looks + 1

    @property
    def reason(self):
        self._left -= 1
        return "FAKE" if self._left < 0 else None


def test_a_diverging_loss_names_epoch_step_and_terms():
    built = trainer()
    built.model.get_layer("decode").heads["energy"].bias.assign([np.nan])

    with pytest.raises(TrainingDiverged, match=r"epoch 1, step 1: .*energy"):
        built.fit(*loaders(), 1)


def test_a_network_that_became_nan_is_noticed_though_its_heads_give_zeros():
    model = tiny_network()
    model.cg_id[0].messages[0].theta.assign(np.full(model.cg_id[0].messages[0].theta.shape, np.nan))
    optimizer = build_optimizer(SetupConfig(lr_schedule="none"), OptimizerConfig(), 10)
    built = Trainer(model, MLPFLoss(LossConfig()), optimizer, SingleDevice())

    with pytest.raises(TrainingDiverged, match=r"epoch 1, step 1: the loss or its gradients are not finite"):
        built.fit(*loaders(), 1)


def test_hooks_may_add_metrics_for_later_hooks():
    seen = []
    built = trainer()

    built.fit(
        *loaders(), 1, on_epoch_end=[lambda h: h[-1].update(extra=1.0), lambda h: seen.append(h[-1]["extra"])]
    )

    assert seen == [1.0]


def test_step_hooks_hear_of_the_loss_and_the_record_of_elements():
    seen = []
    train, valid = loaders()
    built = trainer(clock=clock_of(0.001))

    history = built.fit(train, valid, 2, on_step=[lambda step, record: seen.append((step, record))])

    steps = len(train.plan(1))
    assert [step for step, _ in seen] == [steps, 2 * steps]  # less than 5 s per epoch: only its end
    for (_, record), expected in zip(seen, history, strict=True):
        assert record["epoch"] == expected["epoch"]
        assert record["loss"] == pytest.approx(expected["loss"], rel=1e-6)  # float32 sums
        assert record["learning_rate"] == pytest.approx(1e-2)
    assert history[0]["num_elements"] == int(FakeSplit(40, seed=1).lengths.sum())
    assert history[0]["elements_per_second"] * history[0]["seconds"] == pytest.approx(
        history[0]["num_elements"]
    )


def test_reports_within_an_epoch_are_means_since_the_last_one():
    seen = []
    train, valid = loaders()

    trainer(clock=clock_of(6.0)).fit(
        train, valid, 2, on_step=[lambda step, record: seen.append((step, record["loss"]))]
    )

    assert [step for step, _ in seen] == list(range(1, 2 * len(train.plan(1)) + 1))
    assert len({loss for _, loss in seen}) == len(seen)


def test_clipnorm_changes_the_weights():
    free, clipped = trainer(optimizer="sgd", lr=1e-4), trainer(optimizer="sgd", lr=1e-4, clipnorm=1e-3)
    free.fit(*loaders(), 1)
    clipped.fit(*loaders(), 1)

    assert max(np.abs(a - b).max() for a, b in zip(weights(free), weights(clipped), strict=True)) > 1e-6


def test_averages_are_validated_and_do_not_change_the_training():
    plain, averaged = trainer(), trainer(ema=0.9)
    expected, found = plain.fit(*loaders(), 2), averaged.fit(*loaders(), 2)

    assert [r["loss"] for r in found] == [r["loss"] for r in expected]
    assert all(abs(a["val_loss"] - b["val_loss"]) > 1e-3 for a, b in zip(found, expected, strict=True))
    for a, b in zip(weights(plain), weights(averaged), strict=True):
        np.testing.assert_array_equal(a, b)


def test_mixed_precision_trains_with_float32_weights():
    skip_if_it_aborts("mixed_bfloat16")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        built = trainer()
        history = built.fit(*loaders(), 1)
    finally:
        keras.config.set_dtype_policy("float32")

    assert np.isfinite(history[0]["loss"])
    assert {w.dtype for w in built.model.trainable_weights} == {"float32"}
