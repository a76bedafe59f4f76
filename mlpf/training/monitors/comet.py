"""Logs to Comet (https://www.comet.com). Imported only if the configuration asks for it."""

import importlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

from mlpf.config.training_schema import CometConfig
from mlpf.errors import ConfigError, MissingDependency, one_line
from mlpf.files.atomic import atomic_write
from mlpf.files.run_directory import RunDirectory
from mlpf.training.checkpoints.run_state import EpochRecord

_API_KEY = "COMET_API_KEY"
# Switch off what Comet records by default: source code, patches, arguments and output.
_NOTHING_BY_ITSELF: dict[str, Any] = {
    "log_code": False,
    "log_graph": False,
    "auto_param_logging": False,
    "auto_metric_logging": False,
    "auto_output_logging": False,
    "parse_args": False,
    "log_git_metadata": False,
    "log_git_patch": False,
}


def check_comet(config: CometConfig) -> None:
    """Check that logging to Comet is possible.

    Raises:
        MissingDependency: the package is not installed.
        ConfigError: there is no API key in the environment, and the experiment is not offline.
    """
    if importlib.util.find_spec("comet_ml") is None:
        raise MissingDependency(
            "callbacks.comet: the package comet_ml is not installed; pip install comet-ml, or leave it out"
        )
    if not config.offline and not os.environ.get(_API_KEY):
        raise ConfigError(
            f"callbacks.comet: no API key in the environment; set {_API_KEY}, or "
            "callbacks.comet.offline: true"
        )


class CometLogger:
    """Epoch hook that logs every number of a record. A resumed run continues its experiment.

    Args:
        config: section ``callbacks.comet``, checked by ``check_comet``.
        run_dir: run directory; ``comet.json`` in it holds the key of the experiment.
        parameters: the whole configuration, nested.

    Raises:
        ConfigError: Comet refuses the experiment.
    """

    def __init__(self, config: CometConfig, run_dir: Path, parameters: dict[str, Any]):
        key = _stored_key(RunDirectory(run_dir).comet_key)
        self._experiment = _open_experiment(config, run_dir, key)
        if key is None:
            with atomic_write(RunDirectory(run_dir).comet_key) as part:
                part.write_text(json.dumps({"experiment_key": self._experiment.get_key()}), encoding="utf-8")
            self._experiment.set_name(config.name or run_dir.resolve().name)
        self._experiment.log_parameters(flatten(parameters))

    def __call__(self, history: list[EpochRecord]) -> None:
        """Log the last epoch."""
        record = dict(history[-1])
        epoch = int(record.pop("epoch"))
        self._experiment.log_metrics(record, step=epoch, epoch=epoch)

    def close(self) -> None:
        """Send or write the remaining data."""
        self._experiment.end()


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def _stored_key(path: Path) -> str | None:
    """Return the key of the experiment of a run; None if it has none yet."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["experiment_key"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            f"{path}: holds no experiment key; remove it to begin a new Comet experiment"
        ) from None


def _open_experiment(config: CometConfig, run_dir: Path, key: str | None) -> Any:
    """Return a new experiment, or the one with ``key``."""
    comet = importlib.import_module("comet_ml")
    options = _NOTHING_BY_ITSELF | {"project_name": config.project, "workspace": config.workspace}
    if config.offline:
        folder = RunDirectory(run_dir).comet_offline
        folder.mkdir(exist_ok=True)
        options["offline_directory"] = str(folder)
    kinds = (
        ("OfflineExperiment", "ExistingOfflineExperiment")
        if config.offline
        else (
            "Experiment",
            "ExistingExperiment",
        )
    )
    try:
        if key is None:
            return getattr(comet, kinds[0])(**options)
        return getattr(comet, kinds[1])(experiment_key=key, **options)
    except Exception as error:  # whatever Comet raises for a wrong key, workspace or address
        raise ConfigError(f"callbacks.comet: no experiment could be opened ({one_line(error)})") from error
