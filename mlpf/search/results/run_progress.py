"""Progress and cost of the run of a trial, from the files of its run directory."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlpf.config.search.schema import NETWORK_METRICS, HypertuneConfig
from mlpf.errors import DataError
from mlpf.files.atomic import read_json
from mlpf.files.run_directory import RunDirectory
from mlpf.search.objective import objective_value
from mlpf.search.state import TrialRecord
from mlpf.search.trial_files import TrialFiles

History = list[dict[str, float]]

_SECONDS_PER_HOUR = 3600.0


def read_history(directory: Path, run: str) -> History:
    """Return the epoch records of a run; empty if it has none yet.

    Args:
        directory: directory of the search.
        run: name of the run.

    Raises:
        DataError: the file is damaged.
    """
    path = RunDirectory(TrialFiles(directory, run).run_dir).history
    try:
        history = json.loads(path.read_text(encoding="utf-8"))
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
    """Return the epochs that a trial trained itself, without those of the trial that it continues.

    Args:
        record: record of the trial.
        history: history of its run; longer than the trial if it was promoted.
    """
    done = record.metrics.get("trained_epochs", min(len(history), record.epochs))
    return max(0, int(done) - record.initial_epoch)


def spent_seconds(directory: Path, record: TrialRecord) -> float:
    """Return the wall time of all attempts of a trial, s; of a running one, the last value of its worker."""
    if record.status in ("completed", "failed"):
        return record.seconds
    noted = read_json(TrialFiles(directory, record.run).cost, dict).get(record.trial_id)
    return max(record.seconds, noted) if isinstance(noted, int | float) else record.seconds


def device_hours(record: TrialRecord, seconds: float) -> float:
    """Return GPU-hours, or core-hours where the trial ran without a GPU."""
    return seconds * record.devices / _SECONDS_PER_HOUR


def objective_name(section: HypertuneConfig) -> str:
    """Return the name of the objective: a metric, or a weighted sum of several."""
    terms = section.objective_terms.items()
    return " + ".join(name if weight == 1 else f"{weight:g} {name}" for name, weight in terms)


def objective_curve(
    section: HypertuneConfig, history: Sequence[Mapping[str, float]], constants: Mapping[str, float]
) -> list[tuple[float, float]]:
    """Return epochs and objectives; epochs with a missing metric are left out.

    Args:
        section: section ``hypertune``.
        history: epoch records.
        constants: metrics that do not depend on the epoch, such as ``num_parameters``.
    """
    curve = []
    for record in history:
        try:
            value, _ = objective_value(section, [{**constants, **record}])
        except ValueError:
            continue
        curve.append((float(record["epoch"]), value))
    return curve


def network_constants(trials: Iterable[TrialRecord]) -> dict[str, dict[str, float]]:
    """Return run -> metrics of its network that do not depend on the epoch."""
    found: dict[str, dict[str, float]] = {}
    for trial in trials:
        own = {name: trial.metrics[name] for name in NETWORK_METRICS if name in trial.metrics}
        found[trial.run] = found.get(trial.run, {}) | own
    return found
