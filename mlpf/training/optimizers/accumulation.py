"""Gradient accumulation: the mean gradient of several batches makes one update.

Keras has the option ``gradient_accumulation_steps``, but with it schedules and averages of the weights
advance with every batch, and it fails under MirroredStrategy (Keras 3.15).
"""

from typing import Any

import keras
import tensorflow as tf
from keras import ops


@keras.saving.register_keras_serializable(package="mlpf")
class Accumulated(keras.optimizers.Optimizer):
    """Sums gradients and passes their mean to another optimizer at every ``steps``-th call.

    The inner optimizer (clipping, weight decay, schedules, averages) works once per update, and
    ``iterations`` counts updates. ``variables`` includes the sums.

    Args:
        inner_optimizer: makes the updates.
        steps: calls of ``apply`` per update, at least 2.
        name: name of the optimizer.

    Attributes:
        num_steps: calls of ``apply`` so far.
    """

    def __init__(self, inner_optimizer: keras.optimizers.Optimizer, steps: int, name: str | None = None):
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = inner_optimizer
        self.steps = steps

    def build(self, variables: list[Any]) -> None:
        """Create the sums and the state of the inner optimizer."""
        if self.built:
            return
        self.num_steps = self.add_variable((), dtype="int", name="num_steps")
        self.gradient_sums = self.add_optimizer_variables(variables, "gradient_sum")
        self.inner_optimizer.build(variables)
        super().build(variables)

    def apply(self, grads: list[Any], trainable_variables: Any = None) -> None:  # noqa: ARG002 - the signature of Keras
        """Add gradients, equal on every replica, and update after ``steps`` calls. Must be built before."""
        for total, gradient in zip(self.gradient_sums, grads, strict=True):
            total.assign_add(gradient)
        self.num_steps.assign_add(1)
        if tf.__internal__.distribute.strategy_supports_no_merge_call():
            self._update_if_full()
        else:
            # MirroredStrategy needs branches outside of replicas.
            tf.distribute.get_replica_context().merge_call(self._update_if_full)

    def _update_if_full(self, strategy: Any = None) -> None:
        """Update after every ``steps``-th step; ``strategy`` is given outside of replicas."""

        def update() -> None:
            if strategy is None:
                self._update()
            else:
                strategy.extended.call_for_each_replica(self._update)

        ops.cond(ops.equal(self.num_steps % self.steps, 0), update, lambda: None)

    def _update(self) -> None:
        """Pass on the mean gradients and set the sums to zero."""
        self.inner_optimizer.apply([total / self.steps for total in self.gradient_sums])
        for total in self.gradient_sums:
            total.assign(ops.zeros_like(total))

    @property
    def variables(self) -> list[Any]:
        """Own variables, then those of the inner optimizer."""
        return self._variables + self.inner_optimizer.variables

    @property
    def iterations(self) -> Any:
        """Updates so far."""
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self) -> Any:
        """Learning rate of the next update."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.inner_optimizer.learning_rate = learning_rate

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments."""
        inner = keras.saving.serialize_keras_object(self.inner_optimizer)
        return {"name": self.name, "inner_optimizer": inner, "steps": self.steps}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Any:
        """Return the optimizer that ``get_config`` describes."""
        inner = keras.saving.deserialize_keras_object(
            config["inner_optimizer"], custom_objects=custom_objects
        )
        return cls(inner, config["steps"], config["name"])


def innermost(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Return the innermost optimizer, inside of loss scaling and gradient accumulation."""
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    return optimizer
