"""Asynchronous successive halving, ASHA (Li et al., MLSys 2020)."""

from typing import Any

from mlpf.search.keras_tuner_adapter import (
    EPOCHS,
    IDLE,
    INITIAL_EPOCH,
    PARENT,
    ROUND,
    STOPPED,
    keras_tuner,
    proposal,
)
from mlpf.search.oracle import SearchOracle
from mlpf.search.state import TrialRecord


def rung_epochs(min_epochs: int, factor: int, max_epochs: int) -> list[int]:
    """Return the epochs at the end of each rung: ``factor`` times the one before; the last may have more."""
    epochs, rung = [], min_epochs
    while rung * factor <= max_epochs:
        epochs.append(rung)
        rung *= factor
    return [*epochs, max_epochs]


class AshaOracle(SearchOracle, keras_tuner.Oracle):
    """Random configurations. The best ``1 / factor`` of a rung are promoted to the next one.

    A free worker takes a promotion if there is one, from the highest rung first, and otherwise a new
    configuration. A trial is promoted as soon as it is among the best of its rung so far, without waiting for
    the others. So a few promoted trials are overtaken later.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:  # noqa: ARG002 (of keras-tuner)
        """Return the values of the next trial, in the form of keras-tuner."""
        rungs = rung_epochs(self.hypertune.min_epochs, self.hypertune.factor, self.max_epochs_of_trial)
        promoted = self._promoted()
        for rung in reversed(range(len(rungs) - 1)):
            done = self._done(rung)
            for record in done[: len(done) // self.hypertune.factor]:
                if record.trial_id not in promoted:
                    return self._promotion(record, rungs)
        if self._num_configurations() < self.hypertune.num_trials:
            values = self.random_values()
            if values is not None:
                return proposal(values | {INITIAL_EPOCH: 0, EPOCHS: rungs[0], ROUND: 0})
        return IDLE if self._open() else self._last_promotion(rungs)

    def promotable(self) -> set[str]:
        """Return ids of completed trials that may still be promoted.

        The number of better trials in a rung can only grow. A trial is out once as many trials are better as
        a full rung would promote.
        """
        num_rungs = len(
            rung_epochs(self.hypertune.min_epochs, self.hypertune.factor, self.max_epochs_of_trial)
        )
        most, promotable, promoted = self.hypertune.num_trials, set(), self._promoted()
        for rung in range(num_rungs - 1):
            done = self._done(rung)
            # At the end of the search the best trial of a rung may be promoted to the top.
            places = max(1, most // self.hypertune.factor)
            waiting = {r.trial_id for r in done[:places]} - promoted
            promotable |= waiting
            came = sum(r.trial_id in promoted for r in done)
            most = min(most, came + len(waiting) + most - len(done))
        return promotable

    def _done(self, rung: int) -> list[TrialRecord]:
        """Return the completed trials of a rung, the best first."""
        done = [
            r
            for r in self.records.values()
            if r.purpose == "search" and r.rung == rung and r.status == "completed"
        ]
        return sorted(done, key=lambda r: (r.objective, r.trial_id))

    def _promoted(self) -> set[str]:
        """Return ids of trials that were promoted."""
        searched = [r.trial_id for r in self.records.values() if r.purpose == "search" and r.rung]
        return {self.own_values(trial_id)[PARENT] for trial_id in searched}

    def _num_configurations(self) -> int:
        return sum(r.purpose == "search" and r.rung == 0 for r in self.records.values())

    def _promotion(self, record: TrialRecord, rungs: list[int]) -> dict[str, Any]:
        own = {
            PARENT: record.trial_id,
            INITIAL_EPOCH: record.epochs,
            EPOCHS: rungs[record.rung + 1],
            ROUND: record.rung + 1,
        }
        return proposal(self.own_values(record.trial_id) | own)

    def _last_promotion(self, rungs: list[int]) -> dict[str, Any]:
        """Promote the best trial of the highest rung to the top, so that every search has a full training."""
        highest = max((r.rung for r in self.records.values() if r.status == "completed"), default=None)
        if highest is None or highest == len(rungs) - 1:
            return STOPPED
        waiting = [r for r in self._done(highest) if r.trial_id not in self._promoted()]
        if not waiting:  # its promotion failed
            return STOPPED
        return self._promotion(waiting[0], rungs)
