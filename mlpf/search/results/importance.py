"""Which searched keys matter: permutation importance in a random forest, with its spread over resamples."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpf.config.search.schema import ParameterSpace
from mlpf.errors import DataError, MissingDependency, how_to_install
from mlpf.search.state import TrialRecord

MIN_TRIALS = 8
_NUM_RESAMPLES = 40
_NUM_TREES = 60
_NUM_PERMUTATIONS = 5
# Minimum number of trials outside of a resample, to test on.
_MIN_OUTSIDE = 3

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class KeyImportance:
    """How much worse the order of trials is predicted when the values of a key are shuffled.

    Attributes:
        key: dotted path.
        mean: increase of the squared error of the predicted rank, divided by twice the variance of ranks. For
            a perfect forest this is Jansen's estimate of Sobol's total-effect index (Comput. Phys. Commun.
            117 (1999) 35): the share of the variance due to the key, including interactions. 0 = no effect;
            a mean over resamples may be slightly negative.
        std: standard deviation over resamples.
    """

    key: str
    mean: float
    std: float


@dataclass(frozen=True)
class Importance:
    """Importance of all searched keys.

    Attributes:
        keys: the most important first.
        epochs: epochs of the trials used.
        num_trials: number of trials used.
    """

    keys: list[KeyImportance]
    epochs: int
    num_trials: int


def comparable_trials(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the completed trials of the rung that has most of them; of two equal rungs, of the longer one.

    Trials of different rungs are not mixed: higher rungs hold the same configurations again, selected by the
    objective. The rung would then look most important, and tests would use configurations of the training.
    """
    done = [t for t in trials if t.purpose == "search" and t.status == "completed"]
    counts = Counter(trial.epochs for trial in done)
    epochs = max(counts, key=lambda e: (counts[e], e), default=0)
    return [trial for trial in done if trial.epochs == epochs]


def importance(
    trials: Sequence[TrialRecord], space: Mapping[str, ParameterSpace], seed: int = 1
) -> Importance:
    """Return the importance of each searched key with its uncertainty.

    A random forest (Breiman, Machine Learning 45 (2001) 5) learns the rank of the objective from a bootstrap
    resample of the trials. Ranks are not distorted by trials that diverged. Then the values of one key are
    shuffled among the trials outside of the resample. The increase of the error is the importance. A key with
    conditions is shuffled only among the trials that have it.

    Args:
        trials: all trials of a search.
        space: searched key -> its values.
        seed: of resamples, forests and shuffling.

    Raises:
        DataError: fewer than ``MIN_TRIALS`` trials of one rung, or all their objectives are equal.
        MissingDependency: scikit-learn is not installed.
    """
    try:
        from sklearn.ensemble import RandomForestRegressor
    except ImportError:
        raise MissingDependency(
            f"importance of keys needs scikit-learn; {how_to_install('hypertune')}"
        ) from None
    chosen = comparable_trials(trials)
    if len(chosen) < MIN_TRIALS:
        raise DataError(
            f"too few trials for the importance of keys: {len(chosen)}, at least {MIN_TRIALS} needed"
        )
    ranks = _ranks(np.array([t.objective for t in chosen], np.float64))
    if not np.var(ranks) > 0:
        raise DataError(f"no importance of keys: the objectives of all {len(chosen)} trials are equal")
    rng = np.random.default_rng(seed)
    features = {key: _features(chosen, key, kind) for key, kind in space.items()}
    active = {key: np.array([key in t.values for t in chosen]) for key in space}
    table = np.concatenate(list(features.values()), axis=1)
    widths = np.cumsum([0, *(columns.shape[1] for columns in features.values())])
    places = {key: slice(a, b) for key, a, b in zip(space, widths, widths[1:], strict=False)}
    found: list[list[float]] = []
    for _ in range(_NUM_RESAMPLES):
        inside = rng.integers(len(chosen), size=len(chosen))
        outside = np.setdiff1d(np.arange(len(chosen)), inside)
        if len(outside) < _MIN_OUTSIDE:
            continue
        forest = RandomForestRegressor(_NUM_TREES, random_state=int(rng.integers(2**31)), n_jobs=1)
        forest.fit(table[inside], ranks[inside])
        found.append(_increases(forest, table, ranks, outside, places, active, rng))
    means, stds = np.mean(found, axis=0), np.std(found, axis=0, ddof=1)
    keys = [KeyImportance(key, float(m), float(s)) for key, m, s in zip(space, means, stds, strict=True)]
    return Importance(sorted(keys, key=lambda k: -k.mean), chosen[0].epochs, len(chosen))


def _increases(
    forest: Any,
    table: Array,
    ranks: Array,
    outside: npt.NDArray[np.int64],
    places: Mapping[str, slice],
    active: Mapping[str, npt.NDArray[np.bool_]],
    rng: np.random.Generator,
) -> list[float]:
    """Return the importance of each key on the trials outside of one resample."""
    rows = [table[outside]]
    for key, place in places.items():
        having = np.flatnonzero(active[key][outside])
        for _ in range(_NUM_PERMUTATIONS):
            shuffled = table[outside]  # a copy: the index is an array
            shuffled[having, place] = shuffled[rng.permutation(having), place]
            rows.append(shuffled)
    # One call for all tables: starting the forest takes longer than predicting.
    predicted = forest.predict(np.concatenate(rows)).reshape(len(rows), len(outside))
    errors = np.mean((predicted - ranks[outside]) ** 2, axis=1)
    by_key = errors[1:].reshape(len(places), _NUM_PERMUTATIONS).mean(axis=1)
    return list((by_key - errors[0]) / (2 * np.var(ranks)))


def _ranks(values: Array) -> Array:
    """Return ranks [n] from 0 to 1, equal for equal values."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2
    ranks: Array = middle[inverse] / (len(values) - 1)
    return ranks


def _features(trials: Sequence[TrialRecord], key: str, space: ParameterSpace) -> Array:
    """Return the values of a key as numbers [n, columns]; a row of a trial without the key is constant."""
    values = [trial.values.get(key) for trial in trials]
    numeric = all(isinstance(value, int | float) for value in values if value is not None)
    if numeric and not (space.choice is not None and None in space.choice):
        present = [float(value) for value in values if value is not None]
        # A value outside of all others lets the forest separate trials without the key in one split.
        absent = min(present, default=0.0) - 1.0
        return np.array([[absent if value is None else float(value)] for value in values])
    texts = [json.dumps(t.values[key], sort_keys=True) if key in t.values else "" for t in trials]
    known = sorted(set(texts) - {""})
    return np.array([[float(text == name) for name in known] for text in texts]).reshape(len(trials), -1)
