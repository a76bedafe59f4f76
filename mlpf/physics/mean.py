"""Mean and uncertainty of repeated measurements, such as trainings with different seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True)
class Mean:
    """A mean with its standard error.

    Attributes:
        mean: NaN without values.
        error: standard deviation (n - 1 in the denominator) / sqrt(n); NaN for fewer than two values.
        n: number of values.
    """

    mean: float
    error: float
    n: int

    @property
    def std(self) -> float:
        """Standard deviation of one value; NaN for fewer than two."""
        return self.error * math.sqrt(self.n)


def mean(values: Sequence[float]) -> Mean:
    """Return the mean of some finite values and its standard error."""
    n = len(values)
    error = stdev(values) / math.sqrt(n) if n > 1 else math.nan
    return Mean(fmean(values) if n else math.nan, error, n)
