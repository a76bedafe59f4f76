"""Estimators with uncertainties: medians, interquartile ranges by bootstrap over events, fractions."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.int64]

QUARTILES = (0.25, 0.5, 0.75)
# Number of resamples whose weights are in memory at once; bounds memory for large samples.
CHUNK = 25


@dataclass(frozen=True)
class Spread:
    """Median and relative width of a distribution.

    Attributes:
        median: 50 % quantile, NaN without entries.
        iqr_over_median: (75 % - 25 % quantile) / median, NaN without entries or for median 0.
        count: entries.
    """

    median: float
    iqr_over_median: float
    count: int


def spread(values: Array) -> Spread:
    """Return median and IQR/median of ``values`` [n] (quantiles interpolated linearly)."""
    if not len(values):
        return Spread(float("nan"), float("nan"), 0)
    low, median, high = np.quantile(values, QUARTILES)
    return Spread(float(median), float((high - low) / median) if median != 0 else float("nan"), len(values))


def bootstrap_weights(num_events: int, num_resamples: int = 200, seed: int = 1) -> IntArray:
    """Draw how often each event enters each resample, [num_resamples, num_events].

    Whole events are drawn, because jets of one event are correlated. With the same weights for two methods
    their comparison is a paired one.
    """
    rng = np.random.default_rng(seed)
    if num_events == 0:
        return np.zeros((num_resamples, 0), dtype=np.int64)
    probability = np.full(num_events, 1.0 / num_events)
    return rng.multinomial(num_events, probability, size=num_resamples)


def bootstrap_spread(values: Array, event: IntArray, weights: IntArray) -> tuple[Array, Array]:
    """Return median and IQR/median of every resample.

    Args:
        values: [n].
        event: [n] event of each value, a column of ``weights``.
        weights: [R, B] from ``bootstrap_weights``.

    Returns:
        Medians and IQR/median, both [R]; NaN for a resample without entries.
    """
    order = np.argsort(values, kind="stable")
    ordered = np.asarray(values, dtype=np.float64)[order]
    quantiles = [
        _weighted_quantiles(ordered, weights[first : first + CHUNK][:, event[order]])
        for first in range(0, len(weights), CHUNK)
    ]
    low, median, high = np.concatenate(quantiles, axis=1)
    width = np.divide(high - low, median, out=np.full_like(median, np.nan), where=median != 0)
    return median, width


def _weighted_quantiles(ordered: Array, weights: IntArray) -> Array:
    """Quartiles [3, R] of values repeated ``weights`` [R, n] times; agrees with ``np.quantile``."""
    cumulative = np.cumsum(weights, axis=1)
    total = cumulative[:, -1] if cumulative.shape[1] else np.zeros(len(weights), dtype=np.int64)
    result = np.full((len(QUARTILES), len(weights)), np.nan)
    for row, (counts, n) in enumerate(zip(cumulative, total, strict=True)):
        if n == 0:
            continue
        position = np.array(QUARTILES) * (n - 1)
        below = np.floor(position)
        low = ordered[np.searchsorted(counts, below, side="right")]
        high = ordered[np.searchsorted(counts, np.minimum(below + 1, n - 1), side="right")]
        result[:, row] = low + (position - below) * (high - low)
    return result


@dataclass(frozen=True)
class Fraction:
    """A binomial fraction.

    Attributes:
        value: passed / total, NaN if total is 0.
        uncertainty: half the width of the 68 % Wilson interval, which unlike sqrt(p (1 - p) / n) does
            not vanish at p = 0 and 1 (Wilson, J. Am. Stat. Assoc. 22, 209, 1927); NaN if total is 0.
        total: denominator.
    """

    value: float
    uncertainty: float
    total: int


def fraction(passed: int, total: int) -> Fraction:
    """Return ``passed / total`` with its binomial uncertainty."""
    if total == 0:
        return Fraction(float("nan"), float("nan"), 0)
    p = passed / total
    uncertainty = np.sqrt(p * (1 - p) / total + 1 / (4 * total**2)) / (1 + 1 / total)
    return Fraction(p, float(uncertainty), int(total))
