"""Optimizers out of the configuration."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from mlpf.config.training_schema import OptimizerConfig, SetupConfig
from mlpf.training import cycled
from mlpf.training.schedules import build_momentum, build_schedule

_CLASSES = {
    "adam": cycled.Adam,
    "adamw": cycled.AdamW,
    "sgd": cycled.SGD,
    "lamb": cycled.Lamb,
    "lion": cycled.Lion,
}


def build_optimizer(
    setup: SetupConfig,
    optimizer: OptimizerConfig,
    total_steps: int,
    schedule: LearningRateSchedule | None = None,
) -> keras.optimizers.Optimizer:
    """Return the optimizer that ``setup.optimizer`` names, with its schedule.

    Call it in the scope of the devices. For ``setup.dtype: mixed_float16`` it is wrapped in a dynamic loss
    scale (Micikevicius et al., ICLR 2018): gradients below 6e-8 would vanish otherwise. The others have the
    exponents of float32 and need none.

    Args:
        setup: section ``setup``.
        optimizer: section ``optimizer``.
        total_steps: training batches of the whole run.
        schedule: learning rate against the update in place of the one configured; the momentum is constant.
    """
    inner = _build_inner(setup, optimizer, total_steps, schedule)
    if setup.dtype == "mixed_float16":
        return keras.optimizers.LossScaleOptimizer(inner)
    return inner


def _build_inner(
    setup: SetupConfig, optimizer: OptimizerConfig, total_steps: int, schedule: LearningRateSchedule | None
) -> keras.optimizers.Optimizer:
    """Return the optimizer that changes the weights."""
    momentum = None
    if schedule is None:
        schedule = build_schedule(setup, optimizer, total_steps)
        momentum = build_momentum(setup, optimizer, total_steps)
    arguments: dict[str, Any] = getattr(optimizer, setup.optimizer).model_dump()
    if momentum is not None:
        arguments["momentum" if setup.optimizer == "sgd" else "beta_1"] = momentum.first
    if setup.clipnorm is not None:
        # Keras clips what each replica hands it, before it sums: an equal share of the complete gradient.
        num_shares = tf.distribute.get_strategy().num_replicas_in_sync
        arguments["global_clipnorm"] = setup.clipnorm / num_shares
    return _CLASSES[setup.optimizer](schedule, momentum_schedule=momentum, **arguments)


def loss_scale(optimizer: keras.optimizers.Optimizer) -> Any:
    """Return what ``optimizer.scale_loss`` multiplies the loss by: a scalar tensor, None without a scale."""
    scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return ops.convert_to_tensor(optimizer.dynamic_scale) if scaled else None
