"""Whether a training that does not improve ends: follows from its history, also in one that is resumed."""

import math
from collections.abc import Sequence

from mlpf.config.training_schema import EarlyStoppingConfig
from mlpf.training.run_state import Record


def why_to_end(history: Sequence[Record], config: EarlyStoppingConfig, monitor: str) -> str:
    """Say why a training ends now, nothing if it goes on.

    Args:
        history: one record per epoch; epochs without the metric, or with NaN, count as no improvement once
            there was a value.
        config: section ``callbacks.early_stopping``.
        monitor: metric, smaller is better.

    Returns:
        The reason, empty = go on.
    """
    best, best_epoch = math.inf, 0
    for epoch, record in enumerate(history, start=1):
        value = record.get(monitor, math.nan)
        if value < best - config.min_delta or (best_epoch == 0 and math.isfinite(value)):
            best, best_epoch = value, epoch
    waited = len(history) - best_epoch
    if best_epoch == 0 or waited < config.patience:
        return ""
    return f"early stopping: {monitor} best in epoch {best_epoch} ({best:.5g}), {waited} ago"
