import json
from itertools import chain

import numpy as np
import pytest
import tensorflow as tf

from mlpf.errors import ConfigError
from mlpf.training.loop.distribution import build_distribution
from tests.support.child_process import run_code

TRAIN_TWICE = """
import json
import sys
import keras
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from mlpf.config.loss_schema import LossConfig
from mlpf.config.training_schema import OptimizerConfig, SetupConfig
from mlpf.data.feeding.batch_loader import BatchLoader, EventPool, length_buckets
from mlpf.training.loop.distribution import Mirrored, SingleDevice
from mlpf.training.losses.total import MLPFLoss
from mlpf.training.optimizers.build import build_optimizer
from mlpf.training.loop.trainer import Trainer
from tests.support.fake_split import FakeSplit
from tests.support.tiny_model import tiny_model

def losses(distribution, dtype, scale, loss_section):
    keras.config.set_dtype_policy(dtype)
    pool = EventPool([(FakeSplit(22, seed=1), None)])
    edges = length_buckets([pool], 8, 1.3)
    train = BatchLoader(pool, [(pool.events_of(0), 8)], edges, seed=3)
    valid = BatchLoader(pool, [(pool.events_of(0), 8)], edges)
    with distribution.scope():
        model = tiny_model()
        optimizer = build_optimizer(SetupConfig(lr=1e-2, dtype=dtype, clipnorm=10.0), OptimizerConfig(), 20)
        optimizer.initial_scale = scale
        loss = MLPFLoss(LossConfig.model_validate(loss_section))
    trainer = Trainer(model, loss, optimizer, distribution)
    records = trainer.fit(train, valid, 2)
    return [[r["loss"], r["val_loss"], r["skipped_steps"], r.get("loss_scale", 1.0)] for r in records]

arguments = sys.argv[1], float(sys.argv[2]), json.loads(sys.argv[3])
print(json.dumps([losses(SingleDevice(), *arguments), losses(Mirrored(["CPU:0", "CPU:1"]), *arguments)]))
"""


def train_twice(repo_root, dtype="float32", scale=1.0, loss=None):
    """Records of two epochs on one device and on two: loss, val_loss, skipped steps, loss scale."""
    return run_code(repo_root, TRAIN_TWICE, dtype, str(scale), json.dumps(loss or {}))


# Every loss but that of the charge, whose head then has no gradient. Directions must agree on both replicas.
ALL_LOSSES = {
    "event_loss": {
        name: {"coef": 1.0}
        for name in ("sliced_wasserstein", "gen_jet_mse", "gen_jet_logcosh", "hist_2d", "met")
    },
    "pt_target": "log_ratio",
    "charge_loss_coef": 0,
}


# float32 sums in another order; losses are of order 100. float16 has 11 bits.
@pytest.mark.parametrize(
    ("dtype", "tolerance", "loss"),
    [
        ("float32", 1e-5, ALL_LOSSES),
        pytest.param("float32", 1e-5, {}, marks=pytest.mark.slow),
        pytest.param("mixed_float16", 1e-2, {}, marks=pytest.mark.slow),
    ],
    ids=["all losses", "float32", "float16"],
)
def test_two_replicas_train_like_one_device(repo_root, dtype, tolerance, loss):
    single, mirrored = train_twice(repo_root, dtype, 2.0**6, loss)
    for expected, found in zip(chain(*single), chain(*mirrored), strict=True):
        assert found == pytest.approx(expected, rel=tolerance)


@pytest.mark.slow
def test_two_replicas_skip_a_step_together(repo_root):
    _, mirrored = train_twice(repo_root, "mixed_float16", scale=2.0**60)
    assert [record[2:] for record in mirrored] == [[3, 2.0**57], [3, 2.0**54]]  # halved once per step
    assert mirrored[0][0] == pytest.approx(mirrored[1][0], rel=1e-6)


def test_xla_is_refused_on_several_gpus(monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda *_: ["GPU:0", "GPU:1"])
    with pytest.raises(
        ConfigError, match=r"setup\.jit_compile: true trains on one device, but there are 2 GPUs"
    ):
        build_distribution(jit_compile=True)


def test_xla_is_asked_of_one_device():
    def of_shape(distribution):
        seen = []

        def double(batch):
            seen.append(batch["X"].shape)
            return 2 * batch["X"]

        spec = {"X": tf.TensorSpec((None, None), tf.float32)}
        compiled = distribution.compile(double, spec)
        for n in (2, 3, 2):
            np.testing.assert_array_equal(compiled({"X": np.ones((n, n), np.float32)}), np.full((n, n), 2.0))
        return [tuple(shape) for shape in seen]

    assert of_shape(build_distribution()) == [(None, None)]
    assert of_shape(build_distribution(jit_compile=True)) == [(2, 2), (3, 3)]
