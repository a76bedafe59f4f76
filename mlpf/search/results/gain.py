"""Gain of a search over the default configuration, from trainings with the same seeds, and its cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mlpf.physics.mean import Mean, mean
from mlpf.search.results.run_progress import device_hours
from mlpf.search.state import DEFAULT_RUN, SearchState, TrialRecord, ranked

Group = Literal["completed", "failed", "unfinished", "confirm"]
GROUPS: tuple[Group, ...] = ("completed", "failed", "unfinished", "confirm")


@dataclass(frozen=True)
class Gain:
    """A configuration of the search compared with the default one.

    Attributes:
        run: run of the search whose configuration was trained again.
        values: its searched keys.
        configuration: objective over all its seeds.
        default: objective of the default configuration over all its seeds.
        gain: default - configuration, seed by seed; positive = better than the default.
        relative: gain / default, a ratio of means over the same pairs.
        by_seed: seed -> objective of the configuration.
        default_by_seed: seed -> objective of the default configuration.
    """

    run: str
    values: dict[str, Any]
    configuration: Mean
    default: Mean
    gain: Mean
    relative: Mean
    by_seed: dict[int, float]
    default_by_seed: dict[int, float]


@dataclass(frozen=True)
class Cost:
    """Cost of a search by group: completed, failed or unfinished trials of the search, and confirmation.

    Attributes:
        gpu_hours: group -> hours of all GPUs.
        core_hours: group -> hours of all cores of trials without GPU.
        epochs: group -> epochs trained.
    """

    gpu_hours: dict[Group, float]
    core_hours: dict[Group, float]
    epochs: dict[Group, int]


def gains(state: SearchState) -> list[Gain]:
    """Return the gain of each configuration that was trained again, the best of the search first.

    The two trainings of a pair share a seed, so its effect on both cancels in the difference. The error is
    that of the mean difference.
    """
    objectives: dict[str, dict[int, float]] = {}
    values: dict[str, dict[str, Any]] = {}
    for trial in state.trials:
        if trial.purpose == "confirm":
            values.setdefault(trial.of, trial.values)
            seeds = objectives.setdefault(trial.of, {})
            if trial.status == "completed" and trial.objective is not None and trial.seed is not None:
                seeds[trial.seed] = trial.objective
    default = objectives.pop(DEFAULT_RUN, {})
    place = {record.run: i for i, record in enumerate(ranked(state.trials))}
    runs = sorted(objectives, key=lambda run: place.get(run, len(place)))
    return [_gain(run, values[run], objectives[run], default) for run in runs]


def _gain(run: str, values: dict[str, Any], chosen: dict[int, float], default: dict[int, float]) -> Gain:
    pairs = sorted(default.keys() & chosen.keys())
    before, after = (np.array([objectives[seed] for seed in pairs]) for objectives in (default, chosen))
    return Gain(
        run,
        values,
        mean(list(chosen.values())),
        mean(list(default.values())),
        mean(list(before - after)),
        _relative(before, after),
        chosen,
        default,
    )


def _relative(before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]) -> Mean:
    """Return the ratio of mean gain and mean default, with the error of a ratio of paired means.

    Cochran, Sampling Techniques, 3rd edition, section 6.4: the residuals of the numerator around ratio times
    denominator, over the denominator's mean.
    """
    n = len(before)
    scale = abs(float(before.mean())) if n else 0.0
    if scale == 0:
        return Mean(float("nan"), float("nan"), n)
    difference = before - after
    ratio = float(difference.mean()) / scale
    residuals = difference - ratio * before * np.sign(before.mean())
    return Mean(ratio, mean(list(residuals)).error / scale, n)


def group_of(trial: TrialRecord) -> Group:
    """Return the group of a trial in ``Cost``."""
    if trial.purpose == "confirm":
        return "confirm"
    if trial.status == "completed":
        return "completed"
    return "failed" if trial.status == "failed" else "unfinished"


def cost(trials: Sequence[TrialRecord], seconds: Mapping[str, float], epochs: Mapping[str, int]) -> Cost:
    """Sum the cost of trials.

    Args:
        trials: trials of the search.
        seconds: trial id -> wall time of all attempts, s.
        epochs: trial id -> epochs trained.
    """
    gpu: dict[Group, float] = dict.fromkeys(GROUPS, 0.0)
    core: dict[Group, float] = dict.fromkeys(GROUPS, 0.0)
    trained: dict[Group, int] = dict.fromkeys(GROUPS, 0)
    for trial in trials:
        group = group_of(trial)
        (gpu if trial.on_gpu else core)[group] += device_hours(trial, seconds[trial.trial_id])
        trained[group] += epochs[trial.trial_id]
    return Cost(gpu, core, trained)
