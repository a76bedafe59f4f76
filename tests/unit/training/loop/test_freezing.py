import re

import numpy as np
import pytest

from mlpf.config.loss_schema import LossConfig
from mlpf.config.training_schema import OptimizerConfig, SetupConfig
from mlpf.data.feeding.batch_loader import BatchLoader, EventPool, length_buckets
from mlpf.training.checkpoints.checkpoint import load_weights, save_checkpoint
from mlpf.training.checkpoints.run_state import RunState
from mlpf.training.loop.distribution import SingleDevice
from mlpf.training.loop.freezing import freeze
from mlpf.training.loop.trainer import Trainer
from mlpf.training.losses.total import MLPFLoss
from mlpf.training.optimizers.build import build_optimizer
from tests.support.fake_split import FakeSplit
from tests.support.models import TINY_TRANSFORMER, tiny_model, tiny_transformer
from tests.support.tiny_model import tiny_model as without_stacks

CLASS_HEADS = r"output_decoding/(ffn_id|ffn_charge|layernorm)/"
REGRESSION_HEADS = r"output_decoding/ffn_(pt|eta|phi|energy)/"
TRAINED = {
    "classification": rf"(cg_id_|id_\d|token_id)|{CLASS_HEADS}",
    "regression": rf"(cg_reg_|reg_\d|token_reg)|{REGRESSION_HEADS}",
    "heads": rf"{CLASS_HEADS}|{REGRESSION_HEADS}",
}
# Random directions: not trained, those of a transformer are drawn anew here, but not in frozen blocks.
DRAWN = "codebook|binning|projection$|/step$"
CHECKPOINTED = {"gradient_checkpointing": True}
REDRAWN = {"block": {**TINY_TRANSFORMER["block"], "redraw_interval": 1}}
MODELS = {
    "graph": lambda: tiny_model(use_normalizer=True),
    "transformer": lambda: tiny_transformer(use_normalizer=True, streams="queries", **REDRAWN),
}


def trainer(model, trainable):
    freeze(model, trainable)
    section = SetupConfig(optimizer="adamw", lr=1e-2, lr_schedule="none")
    sections = OptimizerConfig.model_validate({"adamw": {"weight_decay": 0.5}})
    return Trainer(model, MLPFLoss(LossConfig()), build_optimizer(section, sections, 10), SingleDevice())


def loader():
    pool = EventPool([(FakeSplit(8, seed=1), None)])
    return BatchLoader(pool, [(pool.events_of(0), 4)], length_buckets([pool], 16, 9.0), seed=3)


@pytest.mark.parametrize("trainable", list(TRAINED))
@pytest.mark.parametrize("name", list(MODELS))
def test_frozen_weights_stay_and_the_others_move(name, trainable):
    model = MODELS[name]()
    built = trainer(model, trainable)
    before = [np.array(w) for w in model.weights]
    record = built.fit(loader(), loader(), 1)[0]

    moved = {w.path for w, old in zip(model.weights, before, strict=True) if (np.array(w) != old).any()}
    of_parts = {w.path for w in model.weights if re.search(TRAINED[trainable], w.path)}
    trained = {path for path in of_parts if not re.search(DRAWN, path)}
    assert {w.path for w in model.trainable_variables} == trained
    assert trained <= moved <= of_parts
    assert all(np.isfinite(record[f"{term}_loss"]) for term in LossConfig().term_names)


@pytest.mark.slow
@pytest.mark.parametrize("make", [tiny_model, tiny_transformer])
def test_gradient_checkpointing_keeps_them_frozen(make):
    found = []
    for changes in ({}, CHECKPOINTED):
        model = make(**changes)
        trainer(model, "regression").fit(loader(), loader(), 1)
        found.append(model.get_weights())
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_checkpoints_of_frozen_and_free_models_are_alike(tmp_path):
    free = tiny_model()
    built = trainer(free, "all")
    save_checkpoint(tmp_path / "epoch_1", free, built.optimizer, RunState())
    frozen = tiny_model(seed=2)
    freeze(frozen, "heads")

    load_weights(tmp_path / "epoch_1", frozen)

    for a, b in zip(free.get_weights(), frozen.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_model_without_stacks_is_refused():
    freeze(without_stacks(), "all")
    with pytest.raises(TypeError, match="Functional has no stacks"):
        freeze(without_stacks(), "heads")
