"""How far the run of a trial is, and what it has cost, from the files of its run directory."""

import json
from pathlib import Path
from typing import Any

from mlpf.errors import DataError
from mlpf.run_files import HISTORY_FILE
from mlpf.tuning.state import RUNS_FOLDER, TrialRecord

History = list[dict[str, float]]

# The worker's file: trial id -> seconds of all attempts so far.
COST_FILE = "cost.json"
_SECONDS_PER_HOUR = 3600.0


def read_history(directory: Path, run: str) -> History:
    """Return the records of the epochs of a run, empty if it has none yet.

    Args:
        directory: of the search.
        run: name of the run.

    Raises:
        DataError: the file is damaged.
    """
    path = directory / RUNS_FOLDER / run / HISTORY_FILE
    try:
        history = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); its curve and epochs are left out") from None
    if not (isinstance(history, list) and all(_is_record(record) for record in history)):
        raise DataError(f"{path}: expected a list of records of epochs; its curve and epochs are left out")
    return history


def _is_record(record: Any) -> bool:
    return isinstance(record, dict) and isinstance(record.get("epoch"), int | float)


def trained_epochs(record: TrialRecord, history: History) -> int:
    """Return the epochs that a trial trained itself, without those of the trials that it continues.

    Args:
        record: of the trial.
        history: of its run, which a promotion may have made longer than this trial.
    """
    done = record.metrics.get("trained_epochs", min(len(history), record.epochs))
    return max(0, int(done) - record.initial_epoch)


def spent_seconds(directory: Path, record: TrialRecord) -> float:
    """Return the wall time in s of all attempts at a trial; of an open one what its worker noted last."""
    if record.status in ("completed", "failed"):
        return record.seconds
    try:
        noted = json.loads((directory / RUNS_FOLDER / record.run / COST_FILE).read_text())
        return max(record.seconds, float(noted.get(record.trial_id, 0.0)))
    except (OSError, ValueError, TypeError, AttributeError):
        return record.seconds


def device_hours(record: TrialRecord, seconds: float) -> float:
    """Return GPU-hours, or core-hours where the trial ran without a GPU."""
    return seconds * record.devices / _SECONDS_PER_HOUR
