"""Learning-rate range test: the loss while the rate rises, and the rates that it suggests.

Smith, arXiv:1506.01186, with an exponential rise and a smoothed loss.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class RangeTest:
    """Collects the loss of each update until it has grown too much.

    Attributes:
        stop_factor: largest smoothed loss, in units of its smallest value.
        smoothing: weight of the past in the smoothed loss, an exponential mean with bias correction.
        rates: learning rate of each update.
        losses: loss before that update.
        smoothed: smoothed loss.
        stopped: why it ended; empty while it runs.
    """

    stop_factor: float = 4.0
    smoothing: float = 0.9
    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    smoothed: list[float] = field(default_factory=list)
    stopped: str = ""
    _mean: float = 0.0

    def add(self, rate: float, loss: float) -> bool:
        """Add the loss of an update with ``rate``; return whether to continue."""
        if not math.isfinite(loss):
            self.stopped = f"the loss is not finite at {rate:.3g}"
            return False
        self._mean = self.smoothing * self._mean + (1 - self.smoothing) * loss
        self.rates.append(rate)
        self.losses.append(loss)
        self.smoothed.append(self._mean / (1 - self.smoothing ** len(self.rates)))
        if self.smoothed[-1] > self.stop_factor * min(self.smoothed):
            self.stopped = f"the smoothed loss exceeds {self.stop_factor:g} times its smallest at {rate:.3g}"
        return not self.stopped

    def suggestions(self) -> dict[str, float | None]:
        """Return rates: ``minimum`` of the smoothed loss, a tenth of it, and where it falls ``steepest``.

        The slope is taken against the logarithm of the rate, before the minimum. The first updates do not
        count, because their smoothed loss is noisy. Rates are None if the loss never falls.
        """
        if len(self.rates) < 2:
            return {"steepest": None, "minimum": None, "minimum_over_10": None}
        lowest = int(np.argmin(self.smoothed))
        slopes = np.gradient(np.array(self.smoothed), np.log(self.rates))
        first = min(round(1 / (1 - self.smoothing)), lowest)
        falling = slopes[first : lowest + 1]
        steepest = first + int(np.argmin(falling))
        return {
            "steepest": self.rates[steepest] if slopes[steepest] < 0 else None,
            "minimum": self.rates[lowest] if lowest else None,
            "minimum_over_10": self.rates[lowest] / 10 if lowest else None,
        }

    def as_dict(self) -> dict[str, Any]:
        """Return the contents of ``lr_finder.json``."""
        return {
            "stopped": self.stopped,
            "suggestions": self.suggestions(),
            "rates": self.rates,
            "losses": self.losses,
            "smoothed": self.smoothed,
        }
