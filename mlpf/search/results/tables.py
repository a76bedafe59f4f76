"""Write the results of a search: the table of its trials and its best configuration."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlpf.config.loading import resolved_text
from mlpf.config.search.space import search_section, trial_config
from mlpf.errors import CheckpointError, DataError
from mlpf.files.atomic import atomic_write
from mlpf.search.options import read_options
from mlpf.search.results.gain import Cost, Gain, cost, gains
from mlpf.search.results.run_progress import (
    NETWORK_METRICS,
    History,
    device_hours,
    objective_name,
    read_history,
    spent_seconds,
    trained_epochs,
)
from mlpf.search.state import SearchState, TrialRecord, ranked

TRIALS_TABLE, TRIALS_JSON, BEST_FILE = "trials.parquet", "trials.json", "best.yaml"
METRIC_PREFIX = "metric."

# Columns of the table before those of searched keys and metrics. Times are Unix times in s.
_TEXT, _WHOLE, _NUMBER = pa.string(), pa.int64(), pa.float64()
FIXED_COLUMNS: dict[str, pa.DataType] = {
    "trial_id": _TEXT,
    "run": _TEXT,
    "purpose": _TEXT,
    "of": _TEXT,
    "seed": _WHOLE,
    "rung": _WHOLE,
    "initial_epoch": _WHOLE,
    "epochs": _WHOLE,
    "trained_epochs": _WHOLE,
    "status": _TEXT,
    "failure_kind": _TEXT,
    "failure": _TEXT,
    "objective": _NUMBER,
    "best_epoch": _WHOLE,
    "seconds": _NUMBER,
    "device_hours": _NUMBER,
    "devices": _WHOLE,
    "on_gpu": pa.bool_(),
    "worker": _TEXT,
    "started": _NUMBER,
    "ended": _NUMBER,
    "num_parameters": _WHOLE,
    "inference_ms": _NUMBER,
    "losses": _WHOLE,
    "crashes": _WHOLE,
}
_OWN_COLUMNS = (*NETWORK_METRICS, "trained_epochs")


@dataclass(frozen=True)
class Results:
    """Results of a search so far.

    Attributes:
        state: state of the search.
        histories: run -> its epoch records.
        problems: one line per file that could not be read.
        rows: one row per trial, see ``FIXED_COLUMNS``; ``values`` and ``metrics`` are mappings.
        best: the best trial; None if none has completed.
        gains: gains of the configurations that were trained again.
        cost: cost of all trials.
    """

    state: SearchState
    histories: dict[str, History]
    problems: list[str]
    rows: list[dict[str, Any]]
    best: TrialRecord | None
    gains: list[Gain]
    cost: Cost


def collect(state: SearchState) -> Results:
    """Read the files of all runs and collect the results. Damaged files are listed in ``problems``."""
    histories: dict[str, History] = {}
    problems = []
    for run in dict.fromkeys(trial.run for trial in state.trials):
        try:
            histories[run] = read_history(state.directory, run)
        except DataError as error:
            problems.append(str(error))
    seconds = {t.trial_id: spent_seconds(state.directory, t) for t in state.trials}
    epochs = {t.trial_id: trained_epochs(t, histories.get(t.run, [])) for t in state.trials}
    rows = [_row(trial, seconds[trial.trial_id], epochs[trial.trial_id]) for trial in state.trials]
    total = cost(state.trials, seconds, epochs)
    return Results(state, histories, problems, rows, best_trial(state), gains(state), total)


def best_trial(state: SearchState) -> TrialRecord | None:
    """Return the completed trial with the smallest objective in the highest rung that has results.

    A trial that stopped early counts for its rung.
    """
    return next(iter(ranked(state.trials)), None)


def furthest_trials(state: SearchState) -> list[TrialRecord]:
    """Return the last completed trial of each configuration: most epochs first, then smallest objective."""
    last: dict[str, TrialRecord] = {}
    for trial in state.trials:
        if trial.purpose == "search" and trial.status == "completed":
            last[trial.run] = max(trial, last.get(trial.run, trial), key=lambda t: t.epochs)
    return sorted(last.values(), key=lambda t: (-t.epochs, t.objective, t.trial_id))


def _row(trial: TrialRecord, seconds: float, epochs: int) -> dict[str, Any]:
    """Return the row of a trial."""
    own = {
        "trained_epochs": epochs,
        "seconds": seconds,
        "device_hours": device_hours(trial, seconds),
        "num_parameters": trial.metrics.get("num_parameters"),
        "inference_ms": trial.metrics.get("inference_ms"),
        "metrics": {name: v for name, v in trial.metrics.items() if name not in _OWN_COLUMNS},
    }
    return trial.to_json() | own


def trial_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Return the table of trials.

    Columns are those of ``FIXED_COLUMNS``, one per searched key under its dotted path, null where it was not
    searched, and one per metric of the best epoch as ``metric.<name>``, float64.

    Args:
        rows: of ``Results``.
    """
    columns = {
        name: pa.array([_fitting(row[name], kind) for row in rows], kind)
        for name, kind in FIXED_COLUMNS.items()
    }
    for key in dict.fromkeys(key for row in rows for key in row["values"]):
        columns[key] = _values_column([row["values"] for row in rows], key)
    for name in dict.fromkeys(name for row in rows for name in row["metrics"]):
        metrics = [row["metrics"].get(name) for row in rows]
        columns[METRIC_PREFIX + name] = pa.array([_fitting(m, _NUMBER) for m in metrics], _NUMBER)
    return pa.table(columns)


def _fitting(value: Any, kind: pa.DataType) -> Any:
    """Return a value in the type of its column: JSON does not distinguish ints from floats."""
    if value is None:
        return None
    return int(value) if kind == _WHOLE else float(value) if kind == _NUMBER else value


def _values_column(values: list[dict[str, Any]], key: str) -> pa.Array:
    """Return the column of a searched key: boolean, int, float or text. Other values become JSON text."""
    present = [row[key] for row in values if key in row]
    for types, kind in (
        ((bool,), pa.bool_()),
        ((int,), _WHOLE),
        ((int, float), _NUMBER),
        ((str,), _TEXT),
    ):
        if all(type(value) in types for value in present):
            return pa.array([_fitting(row.get(key), kind) for row in values], kind)
    # The choice null becomes the text null, unlike a key that was not searched.
    return pa.array([json.dumps(row[key]) if key in row else None for row in values], _TEXT)


def write_trials(results: Results) -> None:
    """Write ``trials.parquet`` and ``trials.json``, each atomically.

    Numbers that are not finite are null in the JSON file.

    Raises:
        OSError: the directory cannot be written.
    """
    directory = results.state.directory
    with atomic_write(directory / TRIALS_TABLE) as part:
        pq.write_table(trial_table(results.rows), part)
    with atomic_write(directory / TRIALS_JSON) as part:
        part.write_text(json.dumps(as_json(results), indent=1, allow_nan=False), encoding="utf-8")


def as_json(results: Results) -> dict[str, Any]:
    """Return the contents of ``trials.json``: rows of the trials, best, gains, cost, problems."""
    content = {
        "finished": results.state.finished,
        "problem": results.state.problem,
        "best": results.best and results.best.trial_id,
        "gains": [asdict(gain) for gain in results.gains],
        "cost": asdict(results.cost),
        "unreadable": results.problems,
        "trials": results.rows,
    }
    finite: dict[str, Any] = _finite(content)
    return finite


def _finite(data: Any) -> Any:
    """Return plain data with null for NaN and infinity, which JSON does not have."""
    if isinstance(data, Mapping):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def write_best(results: Results) -> Path | None:
    """Write the configuration of the best trial to ``best.yaml``, atomically; return its path.

    None, and no file, if no trial has completed.

    Raises:
        OSError: the directory cannot be written.
    """
    best, state = results.best, results.state
    if best is None or best.objective is None:
        return None
    config = trial_config(state.config, best.values)
    path = state.directory / BEST_FILE
    with atomic_write(path) as part:
        part.write_text(_best_head(best, state, path) + resolved_text(config), encoding="utf-8")
    return path


def _best_head(best: TrialRecord, state: SearchState, path: Path) -> str:
    """Return comment lines: the origin of the configuration, and how to train it."""
    full = state.config.setup.num_epochs
    try:
        limits = " ".join(read_options(state.directory).arguments())
    except CheckpointError:
        limits = ""
    objective = objective_name(search_section(state.config))
    lines = [
        f"Best configuration of the search in {state.directory}",
        f"trial {best.trial_id}, run {best.run}, trained for {best.epochs} of {full} epochs:",
        f"{objective} = {best.objective:.6g} at epoch {best.best_epoch}.",
        *([] if state.finished else ["The search was not over when this was written."]),
        "Searched keys:",
        *(f"  {key}: {json.dumps(value)}" for key, value in best.values.items()),
        "Train it:",
        f"  mlpf train -c {path} -o RUN_DIR",
        *([f"The search has trained with {limits}."] if limits else []),
    ]
    # Replace line breaks in names of directories: they would end the comment.
    return "".join(f"# {''.join(c if c.isprintable() else '?' for c in line)}\n" for line in lines) + "\n"
