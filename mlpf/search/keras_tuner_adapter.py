"""The only file that knows how keras-tuner's oracles work inside (1.4.8): its attributes with an underscore.

An oracle of keras-tuner proposes configurations. Everything else that it can do (files, retries, locks, a
server) is not used: it writes its state in several files that are not atomic, forgets why a trial failed, and
keeps its lock for ever when a call raises.
"""

from typing import Any, Literal

from mlpf.search.hyperparameters import import_keras_tuner

keras_tuner: Any = import_keras_tuner()
_Trial = keras_tuner.engine.trial.Trial
_Status = keras_tuner.engine.trial.TrialStatus

# What ``populate_space`` may answer instead of values.
IDLE: dict[str, Any] = {"status": _Status.IDLE}
STOPPED: dict[str, Any] = {"status": _Status.STOPPED}

# Keys of a configuration that belong to the algorithm: of a promoted trial, what it continues.
PARENT, INITIAL_EPOCH, EPOCHS, ROUND = "tuner/trial_id", "tuner/initial_epoch", "tuner/epochs", "tuner/round"
BRACKET = "tuner/bracket"
_OWN_KEYS = (PARENT, INITIAL_EPOCH, EPOCHS, ROUND, BRACKET)


def proposal(values: dict[str, Any]) -> dict[str, Any]:
    """Return the answer of ``populate_space`` that proposes values."""
    return {"status": _Status.RUNNING, "values": values}


class Proposer(keras_tuner.Oracle):
    """Mixin in front of an oracle of keras-tuner that leaves it only the choice of configurations.

    Args:
        hyperparameters: the space, ``keras_tuner.HyperParameters``.
        seed: of the choice, from 0.
        algorithm: arguments of the oracle behind the mixin.
    """

    def __init__(self, *, hyperparameters: Any, seed: int, **algorithm: Any):
        super().__init__(
            objective=keras_tuner.Objective("objective", "min"),
            hyperparameters=hyperparameters,
            seed=seed + 1,  # a seed of 0 means none to keras-tuner
            allow_new_entries=False,
            tune_new_entries=False,
            **algorithm,
        )

    def propose(self, trial_id: str) -> dict[str, Any] | Literal["idle", "stopped"]:
        """Return the values of a new trial; ``idle``: ask again when a trial has ended; ``stopped``: none."""
        answer = self.populate_space(trial_id)
        if answer["status"] != _Status.RUNNING:
            return "stopped" if answer["status"] == _Status.STOPPED else "idle"
        return dict(answer["values"])

    def add(self, trial_id: str, values: dict[str, Any]) -> dict[str, Any]:
        """Take up a trial with these values; return them with defaults of keys that are not active."""
        hyperparameters = self.hyperparameters.copy()
        hyperparameters.values = dict(values)
        trial = _Trial(hyperparameters, trial_id=trial_id, status=_Status.RUNNING)
        self.trials[trial_id] = trial
        self._record_values(trial)
        return dict(trial.hyperparameters.values)

    def own_values(self, trial_id: str) -> dict[str, Any]:
        """Return the values of a trial as keras-tuner holds them, with those of the algorithm."""
        return dict(self.trials[trial_id].hyperparameters.values)

    def random_values(self) -> dict[str, Any] | None:
        """Return values that no trial has, None if the space seems to hold no more."""
        values: dict[str, Any] | None = self._random_values()
        return values

    def mark_open(self, trial_id: str) -> None:
        """A trial runs, or will run again: an algorithm that learns may assume its result."""
        self.ongoing_trials[trial_id] = self.trials[trial_id]

    def mark_ended(self, trial_id: str, objective: float | None) -> None:
        """A trial has its objective, or has failed for good (None)."""
        trial = self.trials[trial_id]
        trial.status = _Status.FAILED if objective is None else _Status.COMPLETED
        trial.score = objective
        self.ongoing_trials.pop(trial_id, None)

    def _compute_values_hash(self, values: dict[str, Any]) -> str:
        """Two rungs of one configuration are the same configuration."""
        return super()._compute_values_hash({k: v for k, v in values.items() if k not in _OWN_KEYS})

    def get_state(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return super().get_state() | {
            "trials": {name: trial.get_state() for name, trial in self.trials.items()}
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Take the state of ``get_state``."""
        self.trials = {name: _Trial.from_state(trial) for name, trial in state["trials"].items()}
        super().set_state(state)


class BayesianProposer(Proposer, keras_tuner.oracles.BayesianOptimizationOracle):
    """Gaussian process with an upper confidence bound."""

    def get_state(self) -> dict[str, Any]:
        """Return everything as plain data; keras-tuner forgets its random generator."""
        kind, keys, *rest = self._random_state.get_state()
        return super().get_state() | {"random_state": [kind, keys.tolist(), *rest]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take the state of ``get_state``."""
        super().set_state(state)
        self._random_state.set_state(tuple(state["random_state"]))


class RandomProposer(Proposer, keras_tuner.oracles.RandomSearchOracle):
    """Independent random configurations."""
