"""The checkpoints of a run directory: which is best, which is latest, which are kept."""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from mlpf.config.training_schema import CheckpointConfig
from mlpf.errors import CheckpointError
from mlpf.files.atomic import atomic_write
from mlpf.files.run_directory import RunDirectory
from mlpf.training.checkpoints.checkpoint import save_checkpoint
from mlpf.training.checkpoints.run_state import EpochRecord, RunState

_EPOCH = re.compile(r"epoch_(\d+)")


class CheckpointStore:
    """Saves checkpoints, ranks those of whole epochs and removes old ones.

    Args:
        run_dir: run directory.
        config: section ``callbacks.checkpoint``.
        model: the model.
        optimizer: its optimizer.
        random_states: returns the states of random generators. All ranks must call it.
        config_text: the resolved configuration.
        writes: this is rank 0, which writes. Other ranks only take part in reading random states.
    """

    def __init__(
        self,
        run_dir: Path,
        config: CheckpointConfig,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        random_states: Callable[[], npt.NDArray[np.int64]],
        config_text: str = "",
        writes: bool = True,
    ):
        self._files = RunDirectory(run_dir)
        self._folder = self._files.checkpoints
        self._config = config
        self._model = model
        self._optimizer = optimizer
        self._random_states = random_states
        self._config_text = config_text
        self._writes = writes

    def save(self, state: RunState) -> None:
        """Save a state: ``epoch_<done>``, or ``epoch_<current>_step_<done>`` in the middle of an epoch."""
        random_states = self._random_states()
        if not self._writes:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        history, step = state.history, state.current.step
        name = f"epoch_{state.epoch}_step_{step}" if step else f"epoch_{len(history)}"
        save_checkpoint(
            self._folder / name, self._model, self._optimizer, state, random_states, self._config_text
        )
        self._point("latest", name, {"epoch": state.epoch, "step": step} if step else {"epoch": len(history)})
        if not step:
            self._rank(history)
        self._prune(name)

    def _rank(self, history: list[EpochRecord]) -> None:
        """Write which epoch is best."""
        monitor = self._config.monitor
        best = best_epoch(self._kept(history), monitor)
        value = history[best - 1].get(monitor)
        self._point("best", f"epoch_{best}", {"epoch": best, "metric": monitor, "value": value})

    def _kept(self, history: list[EpochRecord]) -> list[EpochRecord]:
        """Return the history with empty records for epochs without a folder: they cannot be best."""
        folders = {folder.name for folder in self._folder.glob("epoch_*")}
        return [r if f"epoch_{i}" in folders else {} for i, r in enumerate(history, start=1)]

    def _point(self, name: str, folder: str, details: dict[str, object]) -> None:
        """Write ``<name>.json``."""
        with atomic_write(self._files.pointer(name)) as part:
            part.write_text(json.dumps({"folder": folder, **details}), encoding="utf-8")

    def _prune(self, latest: str) -> None:
        """Keep the best, the newest and the latest checkpoints; remove others and unfinished ones."""
        numbers = {int(match[1]) for f in self._folder.glob("epoch_*") if (match := _EPOCH.fullmatch(f.name))}
        kept = {f"epoch_{n}" for n in sorted(numbers)[-self._config.keep_last :]} | {latest}
        with suppress(CheckpointError):  # no epoch is finished yet
            kept.add(find_checkpoint(self._files.path, "best").name)
        for folder in [*self._folder.glob("epoch_*"), *self._folder.glob(".epoch_*.part")]:
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)


def find_checkpoint(run_dir: Path, which: str = "best") -> Path:
    """Return the folder of a checkpoint.

    Args:
        run_dir: run directory.
        which: ``best``, ``latest``, or the path of a checkpoint folder or weights file.

    Raises:
        CheckpointError: there is none.
    """
    if which not in ("best", "latest"):
        if not Path(which).exists():
            raise CheckpointError(f"{which}: no such checkpoint; give best, latest, or a path")
        return Path(which)
    pointer = RunDirectory(run_dir).pointer(which)
    try:
        folder = pointer.parent / json.loads(pointer.read_text(encoding="utf-8"))["folder"]
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(
            f"{pointer}: missing or damaged; give a run directory with at least one checkpoint"
        ) from None
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: {pointer.name} names this checkpoint, but it is missing; choose another checkpoint"
        )
    return folder


def best_epoch(history: Sequence[EpochRecord], monitor: str) -> int:
    """Return the epoch, counted from 1, with the smallest value. NaN and missing values do not count."""
    values = np.array([record.get(monitor, np.nan) for record in history], np.float64)
    return int(np.argmin(np.where(np.isnan(values), np.inf, values))) + 1
