"""The objective of a search: the number that it minimises, from the history of a training."""

import math
from collections.abc import Mapping, Sequence

from mlpf.config.search.schema import HypertuneConfig


def objective_value(hypertune: HypertuneConfig, history: Sequence[Mapping[str, float]]) -> tuple[float, int]:
    """Return the objective of a training and its epoch.

    The objective of an epoch is the weighted sum of its metrics. Epochs with a missing metric, or one that is
    not finite, do not count.

    Args:
        hypertune: section with the metrics, their weights, and which epoch counts.
        history: one record per epoch, in order; ``epoch`` counts from 1.

    Returns:
        The objective, and its epoch from 1: the best one (the first of equals) or the last one.

    Raises:
        ValueError: no epoch counts; the message names the metric.
    """
    terms = hypertune.objective_terms
    scored = []
    for number, record in enumerate(history, start=1):
        total = math.fsum(weight * record.get(name, math.nan) for name, weight in terms.items())
        if math.isfinite(total):
            scored.append((total, int(record.get("epoch", number))))
    if scored:
        return scored[-1] if hypertune.objective_epoch == "last" else min(scored)
    for name in terms:
        if not any(name in record for record in history):
            raise ValueError(f"objective: {name} was recorded in none of {len(history)} epochs")
    for name in terms:
        if not any(math.isfinite(record.get(name, math.nan)) for record in history):
            raise ValueError(f"objective: {name} was finite in none of {len(history)} epochs")
    raise ValueError(f"objective: no epoch of {len(history)} has all of {', '.join(terms)}, finite")
