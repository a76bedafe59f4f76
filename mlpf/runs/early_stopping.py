"""When a training ends: after its last epoch, after ``--stop-after``, or by early stopping."""

import math
from pathlib import Path

from mlpf.config.recorded_metrics import PHYSICS_METRICS
from mlpf.config.schema import Config
from mlpf.config.training_schema import EarlyStoppingConfig
from mlpf.errors import ConfigError
from mlpf.training.checkpoints.run_state import EpochRecord


class StopCriterion:
    """Decides from the history alone whether a training ends, so a resumed training ends at the same epoch.

    Args:
        config: the whole configuration.
        stop_after: last epoch to train for now, counted from 1; None = ``setup.num_epochs``.

    Attributes:
        until: last epoch to train for now.

    Raises:
        ConfigError: ``stop_after`` is beyond ``setup.num_epochs``.
    """

    def __init__(self, config: Config, stop_after: int | None = None):
        self._num_epochs = config.setup.num_epochs
        self.until = self._num_epochs if stop_after is None else stop_after
        if not 1 <= self.until <= self._num_epochs:
            raise ConfigError(
                f"--stop-after {stop_after}: setup.num_epochs is {self._num_epochs}; give an epoch from 1 to "
                f"{self._num_epochs}, or raise setup.num_epochs"
            )
        self._section = config.callbacks.early_stopping
        self._monitor = early_stopping_monitor(config)
        # Jet metrics also exist for the last epoch before an interruption. Ignore them there, so that a
        # resumed run stops at the same epoch.
        self._every = config.callbacks.physics.every if self._monitor in PHYSICS_METRICS else 1

    def is_over(self, history: list[EpochRecord]) -> bool:
        """Return whether the training ends here."""
        return len(history) >= self.until or self.early(history) is not None

    def early(self, history: list[EpochRecord]) -> str | None:
        """Return why early stopping ends the training; None if it does not."""
        if self._section is None:
            return None
        counted = [record for record in history if self._counts(int(record["epoch"]))]
        best, epoch, waited = last_gain(counted, self._monitor, self._section)
        if waited < self._section.patience:
            return None
        what = f"best {best:.5g} in epoch {epoch}" if epoch else "never a number"
        return (
            f"early stopping after epoch {len(history)}: "
            f"{self._monitor} without gain for {waited} epochs ({what})"
        )

    def reason(self, history: list[EpochRecord]) -> str:
        """Return why the training ended before ``setup.num_epochs`` epochs; empty if it did not."""
        if len(history) >= self._num_epochs:
            return ""
        return self.early(history) or (
            f"after epoch {len(history)} of {self._num_epochs}, as asked; continue with --resume"
        )

    def nothing_left(self, history: list[EpochRecord], run_dir: Path) -> str | None:
        """Return that and why nothing is left to train, and how to train longer; None while something is."""
        if not self.is_over(history):
            return None
        resume = f"mlpf train --resume {run_dir}"
        if len(history) >= self._num_epochs:
            why = f"all {self._num_epochs} epochs are trained"
            longer = f"{resume} --nepochs N with N > {len(history)}; schedules stretch over N epochs"
        elif early := self.early(history):
            why = early
            longer = f"{resume} --set callbacks.early_stopping=null, or with a larger patience"
        else:
            why = f"epoch {self.until} is trained"
            longer = f"{resume} without --stop-after, or with a later epoch"
        return f"{run_dir}: nothing is left to do, {why}. To train longer: {longer}"

    def _counts(self, epoch: int) -> bool:
        return epoch % self._every == 0 or epoch == self._num_epochs


def early_stopping_monitor(config: Config) -> str:
    """Return the metric of early stopping; by default the one that ranks checkpoints."""
    section = config.callbacks.early_stopping
    return (section.monitor if section else None) or config.callbacks.checkpoint.monitor


def last_gain(
    history: list[EpochRecord], monitor: str, section: EarlyStoppingConfig
) -> tuple[float, int, int]:
    """Find the last epoch that was better than all before by more than ``min_delta``.

    Epochs without the metric do not count. NaN counts as no gain.

    Args:
        history: records of epochs, in order.
        monitor: name of the metric, smaller is better.
        section: ``callbacks.early_stopping``.

    Returns:
        The metric of that epoch and its number from 1 (infinity and 0 if there is none), and the number of
        epochs with the metric since.
    """
    best, epoch, waited = math.inf, 0, 0
    for record in history:
        value = record.get(monitor)
        if value is None or record["epoch"] < section.start_epoch:
            continue
        if value < best - section.min_delta:
            best, epoch, waited = value, int(record["epoch"]), 0
        else:
            waited += 1
    return best, epoch, waited
