"""Checkpoints: weights, optimizer state and history of a run; complete or absent, never pickled."""

import json
import os
import re
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mlpf.atomic import atomic_write
from mlpf.config.training_schema import CheckpointConfig
from mlpf.errors import CheckpointError
from mlpf.training.optimizers import describe

WEIGHTS_FILE = "model.weights.h5"
OPTIMIZER_FILE = "optimizer.npz"
STATE_FILE = "state.json"

_STATE_TYPES: dict[str, type] = {"epoch": int, "optimizer": str, "weights": list, "history": list}

Record = dict[str, float]


def save_checkpoint(
    folder: Path, model: keras.Model, optimizer: keras.optimizers.Optimizer, history: Sequence[Record]
) -> None:
    """Write ``folder`` under a temporary name, then rename it.

    Args:
        folder: ``checkpoints/epoch_<e>``; replaced if it exists.
        model: its weights are saved.
        optimizer: its variables are saved.
        history: records of all epochs so far.
    """
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        model.save_weights(part / WEIGHTS_FILE)
        # Positions, not names: Keras numbers the names of variables anew in every process.
        arrays = {f"{i:05d}": keras.ops.convert_to_numpy(v) for i, v in enumerate(optimizer.variables)}
        np.savez(part / OPTIMIZER_FILE, **arrays)
        state = {
            "epoch": len(history),
            "optimizer": describe(optimizer),
            "weights": _describe(model),
            "history": list(history),
        }
        (part / STATE_FILE).write_text(json.dumps(state))
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def load_weights(path: Path, model: keras.Model) -> None:
    """Load weights from a checkpoint folder or a ``.weights.h5`` file into ``model``.

    Raises:
        CheckpointError: missing, unreadable, or of another model; names the first weight that differs.
    """
    file = path / WEIGHTS_FILE if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file; give a checkpoint folder or a .weights.h5 file")
    if (file.parent / STATE_FILE).is_file():
        _require_same_weights(read_state(file.parent)["weights"], model, file)
    try:
        model.load_weights(file)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{file}: damaged, or a checkpoint of another model ({reason})") from None


def load_optimizer(folder: Path, optimizer: keras.optimizers.Optimizer) -> None:
    """Load the state of a built optimizer.

    Raises:
        CheckpointError: missing, damaged, or of another optimizer.
    """
    file = folder / OPTIMIZER_FILE
    saved_name = read_state(folder)["optimizer"]
    if saved_name != describe(optimizer):
        raise CheckpointError(
            f"{file}: state of {saved_name}, but section setup asks for "
            f"{describe(optimizer)}; resume with the same settings, or start anew with --weights"
        )
    try:
        with np.load(file, allow_pickle=False) as saved:
            arrays = [saved[name] for name in sorted(saved.files)]
    except (OSError, ValueError, zipfile.BadZipFile, KeyError):
        raise CheckpointError(f"{file}: missing or damaged; start anew with --weights {folder}") from None
    variables = optimizer.variables
    found, wanted = [a.shape for a in arrays], [tuple(v.shape) for v in variables]
    if found != wanted:
        raise CheckpointError(f"{file}: state of {len(found)} variables does not fit this model's optimizer")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def read_state(folder: Path) -> dict[str, Any]:
    """Return ``state.json``: ``epoch``, ``history``, ``weights``, ``optimizer``.

    Raises:
        CheckpointError: missing or damaged.
    """
    file = folder / STATE_FILE
    try:
        state = json.loads(file.read_text())
    except (OSError, ValueError):
        raise CheckpointError(f"{file}: missing or damaged; choose another checkpoint") from None
    for key, kind in _STATE_TYPES.items():
        found = state.get(key) if isinstance(state, dict) else None
        if not isinstance(found, kind):
            raise CheckpointError(
                f"{file}: {key} is {str(found)[:40]!r}, expected {kind.__name__}; choose another checkpoint"
            )
    return state


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
    pointer = run_dir / "checkpoints" / f"{which}.json"
    try:
        folder = pointer.parent / json.loads(pointer.read_text())["folder"]
    except (OSError, ValueError, KeyError):
        raise CheckpointError(
            f"{pointer}: missing or damaged; is {run_dir} a run directory with a finished epoch?"
        ) from None
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: {pointer.name} names it, but it is missing")
    return folder


class CheckpointWriter:
    """Epoch hook that saves a checkpoint, ranks it and prunes old ones.

    Args:
        run_dir: run directory.
        config: section ``callbacks.checkpoint``; every record has its ``monitor``.
        model: the model.
        optimizer: its optimizer.
    """

    def __init__(
        self,
        run_dir: Path,
        config: CheckpointConfig,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
    ):
        self._folder = run_dir / "checkpoints"
        self._config = config
        self._model = model
        self._optimizer = optimizer

    def __call__(self, history: list[Record]) -> None:
        """Save the epoch just done."""
        self._folder.mkdir(parents=True, exist_ok=True)
        epoch = len(history)
        save_checkpoint(self._folder / f"epoch_{epoch}", self._model, self._optimizer, history)
        best = best_epoch(self._kept(history), self._config.monitor)
        self._point("latest", epoch, history)
        self._point("best", best, history)
        self._prune({best, *range(epoch - self._config.keep_last + 1, epoch + 1)})

    def _kept(self, history: list[Record]) -> list[Record]:
        """Return the history without the metrics of epochs whose folder is gone: none of them can be best."""
        folders = {folder.name for folder in self._folder.glob("epoch_*")}
        return [r if f"epoch_{i}" in folders else {} for i, r in enumerate(history, start=1)]

    def _point(self, name: str, epoch: int, history: list[Record]) -> None:
        """Write ``<name>.json``."""
        monitor = self._config.monitor
        value = history[epoch - 1].get(monitor)
        pointer = {"folder": f"epoch_{epoch}", "epoch": epoch, "metric": monitor, "value": value}
        with atomic_write(self._folder / f"{name}.json") as part:
            part.write_text(json.dumps(pointer))

    def _prune(self, kept: set[int]) -> None:
        """Remove the folders of all other epochs."""
        for folder in self._folder.glob("epoch_*"):
            number = folder.name.removeprefix("epoch_")
            if number.isdecimal() and int(number) not in kept:
                shutil.rmtree(folder)


def best_epoch(history: Sequence[Record], monitor: str) -> int:
    """Return the epoch, counted from 1, with the smallest value; NaN and missing values never win."""
    values = np.array([record.get(monitor, np.nan) for record in history], np.float64)
    return int(np.argmin(np.where(np.isnan(values), np.inf, values))) + 1


def _describe(model: keras.Model) -> list[list[Any]]:
    """Return [name, shape] of every weight; without the numbers that Keras appends to repeated names."""
    return [
        [re.sub(r"_\d+(?=/|$)", "", weight.path.split("/", 1)[-1]), list(weight.shape)]
        for weight in model.weights
    ]


def _require_same_weights(saved: list[list[Any]], model: keras.Model, file: Path) -> None:
    """Compare the weights of a checkpoint with those of a model."""
    wanted = _describe(model)
    for i in range(max(len(saved), len(wanted))):
        found = _as_text(saved, i)
        expected = _as_text(wanted, i)
        if found != expected:
            raise CheckpointError(
                f"{file}: checkpoint of another model: weight {i} is {found}, expected {expected}; "
                "use the configuration of that run"
            )


def _as_text(weights: list[list[Any]], i: int) -> str:
    """Return name and shape of one weight, or ``missing``."""
    return f"{weights[i][0]} {tuple(weights[i][1])}" if i < len(weights) else "missing"
