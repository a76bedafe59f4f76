"""Read a search directory without keras-tuner: its configuration and its trials."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from mlpf.config.loading import load_config
from mlpf.config.schema import Config
from mlpf.errors import CheckpointError
from mlpf.files.run_directory import ENSEMBLE_FILE, RESOLVED_CONFIG, RunDirectory

ORACLE_FILE = "oracle.json"
RUNS_FOLDER = "runs"
LOGS_FOLDER = "logs"
DEFAULT_RUN = "default"

Status = Literal["running", "waiting", "completed", "failed"]


@dataclass
class TrialRecord:
    """One trial: one configuration, trained up to one rung.

    Attributes:
        trial_id: unique within the search.
        run: run directory, below ``runs``. A promoted trial continues in that of the trial before.
        purpose: ``search``, or ``confirm`` for a training with another seed after the search.
        of: confirm: run whose configuration is trained again; ``default`` = configuration of the search.
        seed: confirm: ``setup.seed`` of the training.
        rung: number of earlier promotions.
        initial_epoch: epochs trained before this rung.
        epochs: total epochs at its end; fewer if it stops early.
        values: dotted path -> value chosen by the search.
        status: running (given to the engine), waiting (to be given), completed or failed.
        objective: value that the search minimises; None until completed.
        best_epoch: epoch of the objective, from 1.
        metrics: record of that epoch, and ``num_parameters``, ``inference_ms``, ``trained_epochs``.
        failure: reason of the failure.
        failure_kind: memory, nan, limit, refused, time, crash or lost; empty unless failed.
        worker: slot of its last finished attempt.
        started: Unix time of the first start, s.
        ended: Unix time of the end, s; None before.
        seconds: wall time of all attempts, including lost ones, s.
        devices: number of GPUs of its slot, or of cores without GPUs.
        on_gpu: whether ``devices`` counts GPUs.
        losses: how often its worker was lost.
        crashes: how often its process crashed.
    """

    trial_id: str
    run: str
    purpose: Literal["search", "confirm"] = "search"
    of: str = ""
    seed: int | None = None
    rung: int = 0
    initial_epoch: int = 0
    epochs: int = 0
    values: dict[str, Any] = field(default_factory=dict)
    status: Status = "waiting"
    objective: float | None = None
    best_epoch: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    failure: str = ""
    failure_kind: str = ""
    worker: str = ""
    started: float | None = None
    ended: float | None = None
    seconds: float = 0.0
    devices: int = 1
    on_gpu: bool = False
    losses: int = 0
    crashes: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "TrialRecord":
        """Return the record that ``to_json`` described."""
        return cls(**{f.name: data[f.name] for f in fields(cls) if f.name in data})


@dataclass(frozen=True)
class SearchState:
    """State of a search, read from its files.

    Attributes:
        directory: directory of the search.
        config: its configuration, with a section ``hypertune``.
        trials: trials in the order of their start.
        finished: whether the search is over.
        problem: why the search gave up; empty if it did not.
        limit: limit of the whole search that was reached; empty if none.
    """

    directory: Path
    config: Config
    trials: list[TrialRecord]
    finished: bool
    problem: str = ""
    limit: str = ""


def read_search_config(directory: Path) -> Config:
    """Read the configuration of a search.

    Raises:
        CheckpointError: not a search directory.
        ConfigError: its configuration is not valid.
    """
    path = directory / RESOLVED_CONFIG
    if not path.is_file():
        raise CheckpointError(
            f"{directory}: not a search directory, no {RESOLVED_CONFIG} in it; "
            "give a directory that mlpf hypertune wrote"
        )
    require_search(directory)
    config = load_config(path)
    if config.hypertune is None:
        raise CheckpointError(
            f"{directory}: a training, not a search; give a directory that mlpf hypertune wrote"
        )
    return config


def require_search(directory: Path) -> None:
    """Refuse directories that hold a configuration, too, but no search.

    Raises:
        CheckpointError: a training, or an ensemble.
    """
    others = ((RunDirectory(directory).checkpoints, "a training"), (directory / ENSEMBLE_FILE, "an ensemble"))
    for other, what in others:
        if other.exists():
            raise CheckpointError(f"{directory}: {what}, not a search; give a directory of mlpf hypertune")


def read_search(directory: Path) -> SearchState:
    """Read the state of a search, while it runs or after.

    Raises:
        CheckpointError: not a search directory, or its state is damaged.
        ConfigError: its configuration is not valid.
    """
    config = read_search_config(directory)
    file = directory / ORACLE_FILE
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        trials = [TrialRecord.from_json(record) for record in data["records"].values()]
        return SearchState(
            directory,
            config,
            trials,
            finished=bool(data["finished"]),
            problem=str(data["problem"]),
            limit=str(data.get("limit", "")),
        )
    except FileNotFoundError:
        return SearchState(directory, config, [], finished=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{file}: damaged ({error}); the search cannot be resumed, start it again in another directory"
        ) from None


def ranked(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Return the completed trials of the highest rung that has results, the smallest objective first.

    Objectives after different numbers of epochs cannot be compared.
    """
    done = [t for t in trials if t.purpose == "search" and t.status == "completed"]
    furthest = max((t.epochs for t in done), default=0)
    return sorted((t for t in done if t.epochs == furthest), key=lambda t: (t.objective, t.trial_id))
