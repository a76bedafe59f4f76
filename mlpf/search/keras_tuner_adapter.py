"""Use keras-tuner's oracles (1.4.8) only to propose configurations.

This is the only file that uses private attributes of keras-tuner. Its files, retries, locks and server are
not used: it writes its state to several files without atomicity, does not keep why a trial failed, and
never releases its lock if a call raises an error.
"""

from typing import Any, Literal

from mlpf.search.hyperparameters import import_keras_tuner

keras_tuner: Any = import_keras_tuner()
_Trial = keras_tuner.engine.trial.Trial
_Status = keras_tuner.engine.trial.TrialStatus

# Answers of ``populate_space`` without values.
IDLE: dict[str, Any] = {"status": _Status.IDLE}
STOPPED: dict[str, Any] = {"status": _Status.STOPPED}

# Prefix of values that belong to the algorithm, such as the trial that a promoted trial continues.
PARENT, INITIAL_EPOCH, EPOCHS, ROUND = "tuner/trial_id", "tuner/initial_epoch", "tuner/epochs", "tuner/round"
BRACKET = "tuner/bracket"
_OWN_KEYS = (PARENT, INITIAL_EPOCH, EPOCHS, ROUND, BRACKET)


def proposal(values: dict[str, Any]) -> dict[str, Any]:
    """Return an answer of ``populate_space`` with values."""
    return {"status": _Status.RUNNING, "values": values}


class Proposer(keras_tuner.Oracle):
    """Mixin for an oracle of keras-tuner that is only used to choose configurations.

    Args:
        hyperparameters: the space, ``keras_tuner.HyperParameters``.
        seed: seed of the choice, from 0.
        algorithm: arguments of the oracle.
    """

    def __init__(self, *, hyperparameters: Any, seed: int, **algorithm: Any):
        super().__init__(
            objective=keras_tuner.Objective("objective", "min"),
            hyperparameters=hyperparameters,
            seed=seed + 1,  # keras-tuner takes a seed of 0 for no seed
            allow_new_entries=False,
            tune_new_entries=False,
            **algorithm,
        )

    def propose(self, trial_id: str) -> dict[str, Any] | Literal["idle", "stopped"]:
        """Return values of a new trial, ``idle`` (ask again when a trial has ended) or ``stopped``."""
        answer = self.populate_space(trial_id)
        if answer["status"] != _Status.RUNNING:
            return "stopped" if answer["status"] == _Status.STOPPED else "idle"
        return dict(answer["values"])

    def add(self, trial_id: str, values: dict[str, Any]) -> dict[str, Any]:
        """Add a trial with these values; return them with defaults for keys that are not active."""
        hyperparameters = self.hyperparameters.copy()
        hyperparameters.values = dict(values)
        trial = _Trial(hyperparameters, trial_id=trial_id, status=_Status.RUNNING)
        self.trials[trial_id] = trial
        self._record_values(trial)
        return dict(trial.hyperparameters.values)

    def own_values(self, trial_id: str) -> dict[str, Any]:
        """Return the values of a trial in the form of keras-tuner, including those of the algorithm."""
        return dict(self.trials[trial_id].hyperparameters.values)

    def random_values(self) -> dict[str, Any] | None:
        """Return values that no trial has; None if no new ones are found."""
        values: dict[str, Any] | None = self._random_values()
        return values

    def mark_open(self, trial_id: str) -> None:
        """Tell the algorithm that a trial runs or will run again. It may assume a result for it."""
        self.ongoing_trials[trial_id] = self.trials[trial_id]

    def mark_ended(self, trial_id: str, objective: float | None) -> None:
        """Tell the algorithm the objective of a trial; None = it failed."""
        trial = self.trials[trial_id]
        trial.status = _Status.FAILED if objective is None else _Status.COMPLETED
        trial.score = objective
        self.ongoing_trials.pop(trial_id, None)

    def _compute_values_hash(self, values: dict[str, Any]) -> str:
        """Return a key of a configuration. It is the same for all rungs."""
        return super()._compute_values_hash({k: v for k, v in values.items() if k not in _OWN_KEYS})

    def get_state(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return super().get_state() | {
            "trials": {name: trial.get_state() for name, trial in self.trials.items()}
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the state that ``get_state`` returned."""
        self.trials = {name: _Trial.from_state(trial) for name, trial in state["trials"].items()}
        super().set_state(state)


class BayesianProposer(Proposer, keras_tuner.oracles.BayesianOptimizationOracle):
    """Gaussian process with an upper confidence bound."""

    def get_state(self) -> dict[str, Any]:
        """Return everything as plain data, including the random generator, which keras-tuner leaves out."""
        kind, keys, *rest = self._random_state.get_state()
        return super().get_state() | {"random_state": [kind, keys.tolist(), *rest]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the state that ``get_state`` returned."""
        super().set_state(state)
        self._random_state.set_state(tuple(state["random_state"]))


class RandomProposer(Proposer, keras_tuner.oracles.RandomSearchOracle):
    """Independent random configurations."""
