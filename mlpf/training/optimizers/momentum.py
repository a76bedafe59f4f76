"""Keras optimizers with a momentum schedule.

They have the names of Keras: without a schedule, state and results are the same.
"""

from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule


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
