"""Successive halving: the best of the trials with few epochs get more.

ASHA (Li et al., MLSys 2020) promotes without waiting. Hyperband (Li et al., JMLR 18 (2018) 185) has brackets
that begin with different epochs.

keras-tuner's Hyperband promotes too few trials if some of a round fail, and none if the space has fewer
configurations than a first round. Here a failed trial counts as one that is not promoted, and a round is full
when no trial can be added to it.
"""

import math
from typing import Any

from mlpf.search.keras_tuner_adapter import (
    BRACKET,
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


# For each round of a bracket: number of configurations, total epochs.
Rounds = list[tuple[int, int]]


def brackets(min_epochs: int, factor: int, max_epochs: int, iterations: int) -> list[Rounds]:
    """Return the rounds of all brackets; the bracket with most rounds comes first.

    Args:
        min_epochs: epochs of the shortest first round.
        factor: one of ``factor`` trials of a round is promoted, to ``factor`` times the epochs.
        max_epochs: epochs of the last round of every bracket.
        iterations: repetitions of all brackets.
    """
    num_brackets = 1
    while max_epochs / factor**num_brackets >= min_epochs:
        num_brackets += 1
    # All brackets take about the same number of epochs.
    last_size = math.ceil(1 + math.log(max_epochs, factor))
    found = []
    for most in reversed(range(num_brackets)):
        sizes = [math.ceil(last_size / (most + 1) * factor ** (most - n)) for n in range(most + 1)]
        epochs = [math.ceil(max_epochs / factor ** (most - n)) for n in range(most + 1)]
        found.append(list(zip(sizes, epochs, strict=True)))
    return found * iterations


class HyperbandOracle(SearchOracle, keras_tuner.Oracle):
    """Brackets one after the other. The next one begins when no trial of earlier ones can run."""

    def __init__(self, **arguments: Any):
        super().__init__(**arguments)
        section = self.hypertune
        self._brackets = brackets(
            section.min_epochs, section.factor, self.max_epochs_of_trial, section.iterations
        )
        self._exhausted = False

    def populate_space(self, trial_id: str) -> dict[str, Any]:  # noqa: ARG002 (of keras-tuner)
        """Return the values of the next trial, in the form of keras-tuner."""
        for number, rounds in enumerate(self._brackets):
            if len(self._round(number, 0)) < rounds[0][0] and not self._exhausted:
                values = self.random_values()
                if values is not None:
                    own = {BRACKET: number, ROUND: 0, INITIAL_EPOCH: 0, EPOCHS: rounds[0][1]}
                    return proposal(values | own)
                self._exhausted = True
            for rung in range(1, len(rounds)):
                best = self._next_promotion(number, rung)
                if best is not None:
                    promoted: dict[str, Any] = {
                        PARENT: best.trial_id,
                        ROUND: rung,
                        INITIAL_EPOCH: best.epochs,
                        EPOCHS: rounds[rung][1],
                    }
                    return proposal(self.own_values(best.trial_id) | promoted)
        return IDLE if self._open() else STOPPED

    def promotable(self) -> set[str]:
        """Return ids of completed trials in rounds whose next round is not full."""
        found: set[str] = set()
        for number, rounds in enumerate(self._brackets):
            for rung in range(1, len(rounds)):
                if not self._is_full(number, rung):
                    found |= {r.trial_id for r in self._candidates(number, rung)}
        return found

    def get_state(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return super().get_state() | {"exhausted": self._exhausted}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the state that ``get_state`` returned."""
        super().set_state(state)
        self._exhausted = state["exhausted"]

    def _round(self, bracket: int, rung: int) -> list[TrialRecord]:
        """Return the trials of a round."""
        return [
            record
            for record in self.records.values()
            if record.purpose == "search"
            and record.rung == rung
            and self.own_values(record.trial_id)[BRACKET] == bracket
        ]

    def _candidates(self, bracket: int, rung: int) -> list[TrialRecord]:
        """Return the completed trials of the round before that are not promoted yet, the best first."""
        promoted = {self.own_values(r.trial_id)[PARENT] for r in self._round(bracket, rung)}
        below = self._round(bracket, rung - 1)
        left = [r for r in below if r.status == "completed" and r.trial_id not in promoted]
        return sorted(left, key=lambda r: (r.objective, r.trial_id))

    def _next_promotion(self, bracket: int, rung: int) -> TrialRecord | None:
        """Return a trial that can be promoted to a round now; None if better ones may still come."""
        if self._is_full(bracket, rung):
            return None
        candidates = self._candidates(bracket, rung)
        below = self._round(bracket, rung - 1)
        failed = sum(r.status == "failed" for r in below)
        wanted_below = (
            len(below) if self._is_full(bracket, rung - 1) else self._brackets[bracket][rung - 1][0]
        )
        thrown_out = max(0, wanted_below - self._brackets[bracket][rung][0] - failed)
        return candidates[0] if len(candidates) > thrown_out else None

    def _is_full(self, bracket: int, rung: int) -> bool:
        """Return whether no trial will be added to a round."""
        if len(self._round(bracket, rung)) >= self._brackets[bracket][rung][0]:
            return True
        if rung == 0:
            return self._exhausted
        below = self._round(bracket, rung - 1)
        ended = all(r.status in ("completed", "failed") for r in below)
        return self._is_full(bracket, rung - 1) and ended and not self._candidates(bracket, rung)
