"""Schedules of learning rate and momentum, and the Keras optimizers that follow a schedule of momentum.

They only depend on the number of updates, so a resumed run continues them without saved state.
The optimizers have the names of Keras: without a schedule of momentum, state and results are the same.
"""

from typing import Any

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from mlpf.config.training_schema import OptimizerConfig, SetupConfig


@keras.saving.register_keras_serializable(package="mlpf")
class WarmUp(LearningRateSchedule):
    """Learning rate that rises linearly, then follows another schedule from its beginning.

    Args:
        after: schedule or constant rate after the warm-up.
        peak: rate at the end of the warm-up.
        warmup_steps: updates of the warm-up; the first update has rate ``peak / warmup_steps``.
    """

    def __init__(self, after: LearningRateSchedule | float, peak: float, warmup_steps: int):
        super().__init__()
        self.after = after
        self.peak = peak
        self.warmup_steps = warmup_steps

    def __call__(self, step: Any) -> Any:
        """Return the rate of update ``step``, counted from 0."""
        step = ops.cast(step, "float32")
        rising = self.peak * (step + 1) / self.warmup_steps
        later = step - self.warmup_steps
        after = self.after(ops.maximum(later, 0.0)) if callable(self.after) else self.after
        return ops.where(later < 0, rising, after)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments."""
        return {"after": self.after, "peak": self.peak, "warmup_steps": self.warmup_steps}


@keras.saving.register_keras_serializable(package="mlpf")
class OneCycle(LearningRateSchedule):
    """Half a cosine from ``first`` to ``middle``, another one from there to ``last``.

    Smith, Topin, arXiv:1708.07120, with cosines in place of lines. With c(x) = (1 - cos(pi x)) / 2 and
    W = ``turn`` x T: first + (middle - first) c(t / W) for t < W, from there on
    middle + (last - middle) c((t - W) / (T - W)).

    Args:
        first: value at t = 0.
        middle: value at t = W.
        last: value at t = T and after.
        total_steps: T, updates of the run.
        turn: share of T before the middle, between 0 and 1.
    """

    def __init__(self, first: float, middle: float, last: float, total_steps: int, turn: float):
        super().__init__()
        self.first = first
        self.middle = middle
        self.last = last
        self.total_steps = total_steps
        self.turn = turn

    def __call__(self, step: Any) -> Any:
        """Return the value at update ``step``, counted from 0."""
        step = ops.cast(step, "float32")
        turn = self.turn * self.total_steps
        before = _ease(self.first, self.middle, step / turn)
        after = _ease(self.middle, self.last, (step - turn) / (self.total_steps - turn))
        return ops.where(step < turn, before, after)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments."""
        return {
            "first": self.first,
            "middle": self.middle,
            "last": self.last,
            "total_steps": self.total_steps,
            "turn": self.turn,
        }


def _ease(start: float, end: float, x: Any) -> Any:
    """Return the value at share ``x`` (cut to 0 ... 1) of half a cosine from ``start`` to ``end``."""
    share = (1 - ops.cos(np.pi * ops.clip(x, 0.0, 1.0))) / 2
    # A sum of two products ends exactly at ``end``, though it may be 1e-5 of ``start``.
    return start * (1 - share) + end * share


def build_schedule(
    setup: SetupConfig, optimizer: OptimizerConfig, total_steps: int
) -> LearningRateSchedule | float:
    """Return the learning rate as a function of the update.

    Args:
        setup: section ``setup``; names the schedule, its peak, its warm-up and the number of epochs.
        optimizer: section ``optimizer``; settings of the schedules.
        total_steps: updates of the whole run, where the cosine reaches 0 and one-cycle its last rate.
    """
    schedule: LearningRateSchedule | float = setup.lr
    if setup.lr_schedule == "cosinedecay":
        decay_steps = max(1, total_steps - setup.lr_warmup_steps)
        schedule = keras.optimizers.schedules.CosineDecay(setup.lr, decay_steps)
    elif setup.lr_schedule == "exponentialdecay":
        section = optimizer.exponentialdecay
        per_epoch = max(1, total_steps // setup.num_epochs)
        interval = per_epoch if section.decay_steps == "epoch" else section.decay_steps
        schedule = keras.optimizers.schedules.ExponentialDecay(
            setup.lr, interval, section.decay_rate, staircase=section.staircase
        )
    elif setup.lr_schedule == "onecycle":
        cycle = optimizer.onecycle
        first, last = setup.lr / cycle.div_factor, setup.lr / cycle.final_div
        schedule = OneCycle(first, setup.lr, last, total_steps, cycle.warmup_ratio)
    if setup.lr_warmup_steps:
        schedule = WarmUp(schedule, setup.lr, setup.lr_warmup_steps)
    return schedule


def build_momentum(setup: SetupConfig, optimizer: OptimizerConfig, total_steps: int) -> OneCycle | None:
    """Return the schedule of momentum or beta_1; None if the learning-rate schedule does not change it.

    Args:
        setup: section ``setup``.
        optimizer: section ``optimizer``.
        total_steps: updates of the whole run.
    """
    if setup.lr_schedule != "onecycle":
        return None
    cycle = optimizer.onecycle
    return OneCycle(
        cycle.momentum_high, cycle.momentum_low, cycle.momentum_high, total_steps, cycle.warmup_ratio
    )


class _ScheduledMomentum:
    """Mixin with ``momentum_schedule``: momentum as a function of ``iterations``; None = constant."""

    momentum_schedule: LearningRateSchedule | None = None

    def __init__(self, *args: Any, momentum_schedule: LearningRateSchedule | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.momentum_schedule = momentum_schedule

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments."""
        config = {**super().get_config(), "momentum_schedule": None}  # type: ignore[misc]  # the class beside it in the bases has it
        if self.momentum_schedule is not None:
            config["momentum_schedule"] = keras.saving.serialize_keras_object(self.momentum_schedule)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Any:
        """Return the optimizer that ``get_config`` describes."""
        schedule = config["momentum_schedule"]
        if schedule is not None:
            schedule = keras.saving.deserialize_keras_object(schedule, custom_objects=custom_objects)
        rest = {**config, "momentum_schedule": schedule}
        return super().from_config(rest, custom_objects=custom_objects)  # type: ignore[misc]  # the class beside it in the bases has it


class _ScheduledBeta(_ScheduledMomentum):
    """Mixin for optimizers whose momentum is ``beta_1``. Keras reads it in each step."""

    iterations: Any

    @property
    def beta_1(self) -> Any:
        """Decay of the first moment in the next update."""
        if self.momentum_schedule is None:
            return self._beta_1
        return self.momentum_schedule(self.iterations)

    @beta_1.setter
    def beta_1(self, value: float) -> None:
        self._beta_1 = value

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments."""
        return {**super().get_config(), "beta_1": self._beta_1}


@keras.saving.register_keras_serializable(package="mlpf")
class Adam(_ScheduledBeta, keras.optimizers.Adam):
    """Adam."""


@keras.saving.register_keras_serializable(package="mlpf")
class AdamW(_ScheduledBeta, keras.optimizers.AdamW):
    """Adam with decoupled weight decay."""


@keras.saving.register_keras_serializable(package="mlpf")
class Lamb(_ScheduledBeta, keras.optimizers.Lamb):
    """LAMB."""


@keras.saving.register_keras_serializable(package="mlpf")
class Lion(_ScheduledBeta, keras.optimizers.Lion):
    """Lion."""


@keras.saving.register_keras_serializable(package="mlpf")
class SGD(_ScheduledMomentum, keras.optimizers.SGD):
    """Gradient descent. With a schedule, ``momentum`` must not be 0, so that Keras creates the velocities."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Move one variable: v <- m v - r g, w <- w + v, or w + m v - r g with Nesterov."""
        if self.momentum_schedule is None:
            super().update_step(gradient, variable, learning_rate)
            return
        # Not the method of Keras, which checks for momentum 0 while it makes the graph.
        velocity = self.momentums[self._get_variable_index(variable)]
        momentum = ops.cast(self.momentum_schedule(self.iterations), variable.dtype)
        step = ops.cast(learning_rate, variable.dtype) * ops.cast(gradient, variable.dtype)
        self.assign(velocity, momentum * velocity - step)
        self.assign_add(variable, momentum * velocity - step if self.nesterov else velocity)
