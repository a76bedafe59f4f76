"""Results of an ensemble: one row per training, and mean and spread of each metric."""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlpf.config.recorded_metrics import PHYSICS_METRICS, recorded_metrics
from mlpf.config.schema import Config
from mlpf.ensemble.plan import SEED_KEY, Member
from mlpf.ensemble.state import MemberFiles, MemberState, read_history
from mlpf.files.atomic import atomic_write, write_json
from mlpf.physics.mean import mean

TABLE_FILE, JSON_FILE = "members.parquet", "members.json"
METRIC_PREFIX = "metric."

_TEXT, _WHOLE, _NUMBER = pa.string(), pa.int64(), pa.float64()
# Columns of the table before those of changed keys and metrics.
FIXED_COLUMNS: dict[str, pa.DataType] = {
    "name": _TEXT,
    "row": _TEXT,
    "seed": _WHOLE,
    "state": _TEXT,
    "kind": _TEXT,
    "reason": _TEXT,
    "epochs": _WHOLE,
    "num_epochs": _WHOLE,
    "monitor": _TEXT,
    "best": _NUMBER,
    "best_epoch": _WHOLE,
    "seconds": _NUMBER,
    "attempts": _WHOLE,
    "crashes": _WHOLE,
    "slot": _TEXT,
}


@dataclass(frozen=True)
class MemberResult:
    """A row of the table.

    Attributes:
        name: name of the training.
        row: name of its row of the table; empty without a table.
        seed: seed of the training.
        state: waiting, running, completed or failed.
        kind: kind of failure.
        reason: reason of a failure, a stop or an early end.
        epochs: finished epochs.
        num_epochs: configured epochs.
        monitor: metric that ranks its checkpoints.
        best: smallest value of ``monitor``; None if there is none.
        best_epoch: epoch of that value, counted from 1.
        seconds: wall time of all attempts, s.
        attempts: number of processes started.
        crashes: number of processes that crashed.
        slot: slot of the last attempt.
        values: changed keys, without the seed.
        metrics: finite metrics of the best epoch.
    """

    name: str
    row: str
    seed: int
    state: str
    kind: str
    reason: str
    epochs: int
    num_epochs: int
    monitor: str
    best: float | None
    best_epoch: int | None
    seconds: float
    attempts: int
    crashes: int
    slot: str
    values: dict[str, Any]
    metrics: dict[str, float]


@dataclass(frozen=True)
class Spread:
    """Mean and spread of one metric over the completed trainings of a row, each at its best epoch.

    Attributes:
        row: name of the row of the table; empty without a table.
        metric: name of the metric.
        count: number of trainings with a finite value.
        mean: mean value.
        std: standard deviation, with ``count`` - 1 in the denominator; None for one training.
        error: error of the mean, ``std`` divided by the root of ``count``.
    """

    row: str
    metric: str
    count: int
    mean: float
    std: float | None
    error: float | None


def member_result(member: Member, config: Config, files: MemberFiles, state: MemberState) -> MemberResult:
    """Return the result of a training, from its state and its run directory.

    Args:
        member: the training.
        config: its whole configuration.
        files: its files.
        state: its state.
    """
    history, monitor = read_history(files), config.callbacks.checkpoint.monitor
    best = best_record(history, monitor)
    metrics = dict.fromkeys((*recorded_metrics(config), *PHYSICS_METRICS))
    return MemberResult(
        name=member.name,
        row=member.row,
        seed=config.setup.seed,
        state=state.state,
        kind=state.kind,
        reason=state.reason,
        epochs=len(history),
        num_epochs=config.setup.num_epochs,
        monitor=monitor,
        best=None if best is None else best[monitor],
        best_epoch=None if best is None else int(best["epoch"]),
        seconds=state.seconds,
        attempts=state.attempts,
        crashes=state.crashes,
        slot=state.slot,
        values={key: value for key, value in member.values.items() if key != SEED_KEY},
        metrics={name: best[name] for name in metrics if best and _is_finite(best.get(name))},
    )


def best_record(history: Sequence[Mapping[str, float]], monitor: str) -> dict[str, float] | None:
    """Return the record of the epoch with the smallest finite value; None if no epoch has one."""
    ranked = [record for record in history if _is_finite(record.get(monitor))]
    return dict(min(ranked, key=lambda record: record[monitor])) if ranked else None


def spreads(results: Sequence[MemberResult]) -> list[Spread]:
    """Return mean and spread of every metric over the completed trainings of each row."""
    found = []
    for row in dict.fromkeys(result.row for result in results):
        group = [result for result in results if result.row == row and result.state == "completed"]
        for metric in dict.fromkeys(name for result in group for name in result.metrics):
            values = [result.metrics[metric] for result in group if metric in result.metrics]
            average = mean(values)
            known = average.n > 1
            std, error = (average.std, average.error) if known else (None, None)
            found.append(Spread(row, metric, average.n, average.mean, std, error))
    return found


def write_results(directory: Path, results: Sequence[MemberResult]) -> None:
    """Write ``members.parquet`` and ``members.json``, each atomically.

    Raises:
        OSError: the directory cannot be written.
    """
    with atomic_write(directory / TABLE_FILE) as part:
        pq.write_table(member_table(results), part)
    content = {
        "members": [asdict(result) for result in results],
        "spread": [asdict(spread) for spread in spreads(results)],
    }
    write_json(directory / JSON_FILE, content)


def member_table(results: Sequence[MemberResult]) -> pa.Table:
    """Return the table of trainings.

    Columns: ``FIXED_COLUMNS``, one per changed key (null if a training does not change it), and
    ``metric.<name>`` for each metric of the best epoch, float64.
    """
    columns = {
        name: pa.array([getattr(result, name) for result in results], kind)
        for name, kind in FIXED_COLUMNS.items()
    }
    for key in dict.fromkeys(key for result in results for key in result.values):
        columns[key] = _values_column([result.values for result in results], key)
    for name in dict.fromkeys(name for result in results for name in result.metrics):
        columns[METRIC_PREFIX + name] = pa.array([result.metrics.get(name) for result in results], _NUMBER)
    return pa.table(columns)


def _values_column(values: Sequence[Mapping[str, Any]], key: str) -> pa.Array:
    """Return a column of numbers, booleans or text. Other values and mixtures become JSON text."""
    present = [row[key] for row in values if key in row]
    for types in ((bool,), (int,), (int, float), (str,)):
        if all(type(value) in types for value in present):
            with suppress(OverflowError, pa.ArrowInvalid):  # an integer of more than 64 bits
                return pa.array([row.get(key) for row in values])
    return pa.array([json.dumps(row[key]) if key in row else None for row in values], _TEXT)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
