"""Build the optimizer of a configuration."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from mlpf.config.training_schema import OptimizerConfig, SetupConfig
from mlpf.training.optimizers import schedules
from mlpf.training.optimizers.accumulation import Accumulated, innermost

_CLASSES = {
    "adam": schedules.Adam,
    "adamw": schedules.AdamW,
    "sgd": schedules.SGD,
    "lamb": schedules.Lamb,
    "lion": schedules.Lion,
}


def build_optimizer(
    setup: SetupConfig, optimizer: OptimizerConfig, total_steps: int
) -> keras.optimizers.Optimizer:
    """Return the optimizer that ``setup.optimizer`` names, with its schedule.

    Call it in the scope of the devices. With ``setup.dtype: mixed_float16`` the loss is scaled dynamically
    (Micikevicius et al., ICLR 2018), because gradients below 6e-8 would vanish. Other formats have the
    exponent range of float32 and need no scale.

    Args:
        setup: section ``setup``.
        optimizer: section ``optimizer``.
        total_steps: training batches of the whole run.
    """
    steps_per_update = setup.gradient_accumulation_steps
    inner = _build_inner(setup, optimizer, max(1, total_steps // steps_per_update))
    if steps_per_update > 1:
        inner = Accumulated(inner, steps_per_update)
    if setup.dtype == "mixed_float16":
        return keras.optimizers.LossScaleOptimizer(inner)
    return inner


def _build_inner(
    setup: SetupConfig, optimizer: OptimizerConfig, num_updates: int
) -> keras.optimizers.Optimizer:
    """Return the optimizer that changes the weights."""
    schedule = schedules.build_schedule(setup, optimizer, num_updates)
    momentum = schedules.build_momentum(setup, optimizer, num_updates)
    arguments: dict[str, Any] = getattr(optimizer, setup.optimizer).model_dump()
    if momentum is not None:
        arguments["momentum" if setup.optimizer == "sgd" else "beta_1"] = momentum.first
    if setup.clipnorm is not None:
        # Keras clips the gradient of each replica before it sums: here an equal share of the whole gradient.
        num_shares = tf.distribute.get_strategy().num_replicas_in_sync
        arguments["global_clipnorm"] = setup.clipnorm / num_shares
    if setup.ema is not None:
        arguments |= {"use_ema": True, "ema_momentum": setup.ema}
    return _CLASSES[setup.optimizer](schedule, momentum_schedule=momentum, **arguments)


def loss_scale(optimizer: keras.optimizers.Optimizer) -> Any:
    """Return the factor of ``optimizer.scale_loss``, a scalar tensor; None without a scale."""
    scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return ops.convert_to_tensor(optimizer.dynamic_scale) if scaled else None


def num_steps(optimizer: keras.optimizers.Optimizer) -> int:
    """Return the number of gradients used so far, including those that wait for an update."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    counter = optimizer.num_steps if isinstance(optimizer, Accumulated) else optimizer.iterations
    return int(ops.convert_to_numpy(counter))


def describe(optimizer: keras.optimizers.Optimizer) -> str:
    """Return a text that identifies the kind of state of an optimizer."""
    inner = innermost(optimizer)
    parts = {
        "loss scale": isinstance(optimizer, keras.optimizers.LossScaleOptimizer),
        "gradient sums": isinstance(getattr(optimizer, "inner_optimizer", None), Accumulated)
        or isinstance(optimizer, Accumulated),
        "averages": inner.use_ema,
    }
    extras = " and ".join(name for name, has in parts.items() if has)
    return f"{type(inner).__name__} with {extras}" if extras else type(inner).__name__
