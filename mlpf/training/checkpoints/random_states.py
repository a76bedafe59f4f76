"""The random numbers of a training: dropout masks of the model, directions of the loss."""

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from mlpf.training.loop.distribution import Distribution


class RandomStates:
    """States of all random generators of a training.

    What a model draws differs from process to process, for the events do; what the loss draws is the same.

    Args:
        model: its variables that are no weights are states of generators.
        loss_states: those of the loss.
        distribution: processes.
        seed: states of an epoch follow from (seed, epoch, process).
    """

    def __init__(self, model: keras.Model, loss_states: list[Any], distribution: Distribution, seed: int):
        weights = {id(weight) for weight in model.weights}
        self._of_model = [v for v in model.variables if id(v) not in weights]
        self._of_loss = list(loss_states)
        self._distribution = distribution
        self._seed = seed

    def reseed(self, epoch: int) -> None:
        """Set the states of the beginning of an epoch, so that one that is done again draws the same."""
        rank = self._distribution.rank
        of_model = np.random.default_rng([self._seed, epoch, *([rank] if rank else [])])
        of_loss = np.random.default_rng([self._seed, epoch, 0, 1])
        for states, rng in ((self._of_model, of_model), (self._of_loss, of_loss)):
            for state in states:
                state.assign(rng.integers(0, 2**31, state.shape).astype(state.dtype))

    def read(self) -> npt.NDArray[np.int64]:
        """Return the states [P processes, V generators, 2]; all processes must call it."""
        variables = [*self._of_model, *self._of_loss]
        states = [np.asarray(keras.ops.convert_to_numpy(state), np.int64) for state in variables]
        return self._distribution.gather(np.stack(states) if states else np.zeros((0, 2), np.int64))

    def restore(self, states: npt.NDArray[np.int64]) -> None:
        """Set what ``read`` returned.

        Raises:
            ValueError: the training has other generators.
        """
        own = states[self._distribution.rank % len(states)]
        for variable, state in zip([*self._of_model, *self._of_loss], own, strict=True):
            variable.assign(state.astype(variable.dtype))
