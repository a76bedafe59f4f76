"""The random generators of a training: dropout of the model, random directions of the loss."""

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from mlpf.training.loop.distribution import Distribution


class RandomStates:
    """States of all random generators of a training.

    The model draws different numbers on each rank, since each rank has other events. The loss draws the same.

    Args:
        model: its variables that are not weights are generator states.
        loss_states: generator states of the loss.
        distribution: processes.
        seed: the states at the start of an epoch follow from (seed, epoch, rank).
    """

    def __init__(self, model: keras.Model, loss_states: list[Any], distribution: Distribution, seed: int):
        weights = {id(weight) for weight in model.weights}
        self._of_model = [v for v in model.variables if id(v) not in weights]
        self._of_loss = list(loss_states)
        self._distribution = distribution
        self._seed = seed

    def reseed(self, epoch: int) -> None:
        """Set the states for the start of an epoch: a repeated epoch draws the same numbers."""
        rank = self._distribution.rank
        of_model = np.random.default_rng([self._seed, epoch, *([rank] if rank else [])])
        of_loss = np.random.default_rng([self._seed, epoch, 0, 1])
        for states, rng in ((self._of_model, of_model), (self._of_loss, of_loss)):
            for state in states:
                state.assign(rng.integers(0, 2**31, state.shape).astype(state.dtype))

    def read(self) -> npt.NDArray[np.int64]:
        """Return the states, int64 [P processes, V generators, 2]. All ranks must call it."""
        variables = [*self._of_model, *self._of_loss]
        states = [np.asarray(keras.ops.convert_to_numpy(state), np.int64) for state in variables]
        return self._distribution.gather(np.stack(states) if states else np.zeros((0, 2), np.int64))

    def restore(self, states: npt.NDArray[np.int64]) -> None:
        """Set states that ``read`` returned.

        Raises:
            ValueError: the number of generators differs.
        """
        own = states[self._distribution.rank % len(states)]
        for variable, state in zip([*self._of_model, *self._of_loss], own, strict=True):
            variable.assign(state.astype(variable.dtype))
