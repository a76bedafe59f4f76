import json
import os
import subprocess
import sys
from itertools import chain

import pytest

TRAIN_TWICE = """
import json
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from mlpf.config.schema import LossConfig, OptimizerConfig, SetupConfig
from mlpf.data.input_pipeline import BatchLoader, EventPool, length_buckets
from mlpf.training.distribution import Mirrored, SingleDevice
from mlpf.training.losses import MLPFLoss
from mlpf.training.optimizers import build_optimizer
from mlpf.training.trainer import Trainer
from tests.support.fake_split import FakeSplit
from tests.support.tiny_model import tiny_model

def losses(distribution):
    pool = EventPool([(FakeSplit(22, seed=1), None)])
    edges = length_buckets([pool], 8, 1.3)
    train = BatchLoader(pool, [(pool.events_of(0), 8)], edges, seed=3)
    valid = BatchLoader(pool, [(pool.events_of(0), 8)], edges)
    with distribution.scope():
        model = tiny_model()
        optimizer = build_optimizer(SetupConfig(lr=1e-2), OptimizerConfig(), 20)
    trainer = Trainer(model, MLPFLoss(LossConfig()), optimizer, distribution, clipnorm=10.0)
    return [[r["loss"], r["val_loss"]] for r in trainer.fit(train, valid, 2)]

print(json.dumps([losses(SingleDevice()), losses(Mirrored(["CPU:0", "CPU:1"]))]))
"""


def test_two_replicas_train_like_one_device(repo_root):
    done = subprocess.run(
        [sys.executable, "-c", TRAIN_TWICE],
        cwd=repo_root,
        env=os.environ | {"PYTHONPATH": str(repo_root), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    single, mirrored = json.loads(done.stdout.splitlines()[-1])

    for expected, found in zip(chain(*single), chain(*mirrored), strict=True):
        # float32 sums in another order; losses are of order 100.
        assert found == pytest.approx(expected, rel=1e-5)
