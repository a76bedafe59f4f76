"""Optimizers and learning-rate schedules out of the configuration."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mlpf.config.training_schema import OptimizerConfig, SetupConfig


@keras.saving.register_keras_serializable(package="mlpf")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate that rises linearly, then follows another schedule from its beginning.

    Args:
        after: schedule or constant rate after the warm-up.
        peak: rate at the end of the warm-up.
        warmup_steps: steps of the warm-up; the first step has rate ``peak / warmup_steps``.
    """

    def __init__(
        self, after: keras.optimizers.schedules.LearningRateSchedule | float, peak: float, warmup_steps: int
    ):
        super().__init__()
        self.after = after
        self.peak = peak
        self.warmup_steps = warmup_steps

    def __call__(self, step: Any) -> Any:
        """Return the rate of ``step``, counted from 0."""
        step = ops.cast(step, "float32")
        rising = self.peak * (step + 1) / self.warmup_steps
        later = step - self.warmup_steps
        after = self.after(ops.maximum(later, 0.0)) if callable(self.after) else self.after
        return ops.where(later < 0, rising, after)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"after": self.after, "peak": self.peak, "warmup_steps": self.warmup_steps}


def build_schedule(
    setup: SetupConfig, optimizer: OptimizerConfig, total_steps: int
) -> keras.optimizers.schedules.LearningRateSchedule | float:
    """Return the learning rate against the step.

    Args:
        setup: section ``setup``; names the schedule, its peak and its warm-up.
        optimizer: section ``optimizer``; settings of the exponential decay.
        total_steps: steps of the whole run, where the cosine reaches 0.
    """
    schedule: keras.optimizers.schedules.LearningRateSchedule | float = setup.lr
    if setup.lr_schedule == "cosinedecay":
        decay_steps = max(1, total_steps - setup.lr_warmup_steps)
        schedule = keras.optimizers.schedules.CosineDecay(setup.lr, decay_steps)
    elif setup.lr_schedule == "exponentialdecay":
        section = optimizer.exponentialdecay
        schedule = keras.optimizers.schedules.ExponentialDecay(
            setup.lr, section.decay_steps, section.decay_rate, staircase=section.staircase
        )
    if setup.lr_warmup_steps:
        schedule = WarmUp(schedule, setup.lr, setup.lr_warmup_steps)
    return schedule


def build_optimizer(
    setup: SetupConfig, optimizer: OptimizerConfig, total_steps: int
) -> keras.optimizers.Optimizer:
    """Return the optimizer that ``setup.optimizer`` names, with its schedule.

    For ``setup.dtype: mixed_float16`` it is wrapped in a dynamic loss scale (Micikevicius et al., ICLR 2018):
    gradients below 6e-8 would vanish otherwise. The others have the exponents of float32 and need none.

    Args:
        setup: section ``setup``.
        optimizer: section ``optimizer``.
        total_steps: steps of the whole run.
    """
    inner = _build_inner(setup, optimizer, build_schedule(setup, optimizer, total_steps))
    if setup.dtype == "mixed_float16":
        return keras.optimizers.LossScaleOptimizer(inner)
    return inner


def _build_inner(
    setup: SetupConfig,
    optimizer: OptimizerConfig,
    schedule: keras.optimizers.schedules.LearningRateSchedule | float,
) -> keras.optimizers.Optimizer:
    if setup.optimizer == "sgd":
        return keras.optimizers.SGD(
            schedule, momentum=optimizer.sgd.momentum, nesterov=optimizer.sgd.nesterov
        )
    if setup.optimizer == "adamw":
        return keras.optimizers.AdamW(schedule, **optimizer.adamw.model_dump())
    return keras.optimizers.Adam(schedule, **optimizer.adam.model_dump())


def loss_scale(optimizer: keras.optimizers.Optimizer) -> Any:
    """Return what ``optimizer.scale_loss`` multiplies the loss by: a scalar tensor, None without a scale."""
    scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return ops.convert_to_tensor(optimizer.dynamic_scale) if scaled else None


def clip_gradients(gradients: Sequence[Any], clipnorm: float | None, scale: Any = None) -> list[Any]:
    """Scale all gradients by one factor so that their global norm is at most ``clipnorm``.

    Done here and not by the Keras optimizer, which would clip each replica's share before the sum.

    Args:
        gradients: one tensor per variable; one that is not finite stays so.
        clipnorm: largest norm; None leaves the gradients as they are.
        scale: the gradients are those of the loss times this, and so are those returned; None = 1.
    """
    if clipnorm is None:
        return list(gradients)
    unscaled = [ops.cast(g, "float32") / (1.0 if scale is None else scale) for g in gradients]
    norm = ops.sqrt(sum(ops.sum(ops.square(g)) for g in unscaled))
    factor = clipnorm / ops.maximum(norm, clipnorm)
    return [g * ops.cast(factor, g.dtype) for g in gradients]
