"""Write and read one checkpoint: weights, optimizer, random states and state of the run. No pickles."""

import json
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from mlpf.errors import CheckpointError, one_line
from mlpf.files.run_directory import CheckpointFolder
from mlpf.training.checkpoints.run_state import RunState
from mlpf.training.optimizers.accumulation import innermost
from mlpf.training.optimizers.averaging import averaged_weights, averages
from mlpf.training.optimizers.build import describe

_STATE_TYPES: dict[str, type] = {"optimizer": str, "weights": list, "run": dict}


def save_checkpoint(
    folder: Path,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    state: RunState,
    random_states: npt.NDArray[np.int64] | None = None,
    config: str = "",
) -> None:
    """Write a checkpoint under a temporary name, then rename it to ``folder``.

    Args:
        folder: replaced if it exists.
        model: its weights are saved, including the input normalisation. If the optimizer averages weights,
            the averages and the weights themselves are saved.
        optimizer: its variables are saved, including the number of updates, but no constant learning
            rate.
        state: finished epochs and progress of the current one.
        random_states: [P, V, 2] states of random generators.
        config: the resolved configuration, YAML.
    """
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    files = CheckpointFolder(part)
    try:
        with averaged_weights(model, optimizer):
            model.save_weights(files.weights)
        if averages(optimizer) is not None:
            model.save_weights(files.raw_weights)
        # Keys are positions: Keras numbers the names of variables anew in every process.
        arrays = {f"{i:05d}": keras.ops.convert_to_numpy(v) for i, v in enumerate(_state(optimizer))}
        np.savez(files.optimizer, **arrays)
        np.savez(files.random_states, states=_no_states() if random_states is None else random_states)
        files.config.write_text(config, encoding="utf-8")
        described = {
            "optimizer": describe(optimizer),
            "weights": _describe(model),
            "run": state.to_json(),
        }
        files.state.write_text(json.dumps(described), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def load_weights(path: Path, model: keras.Model) -> None:
    """Load weights from a checkpoint folder or a ``.weights.h5`` file into ``model``.

    Raises:
        CheckpointError: missing, unreadable, or of another model. The message names the first difference.
    """
    file = CheckpointFolder(path).weights if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file; give a checkpoint folder or a .weights.h5 file")
    if CheckpointFolder(file.parent).state.is_file():
        _require_same_weights(_read_description(file.parent, "weights"), model, file)
    try:
        model.load_weights(file)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{file}: damaged, or a checkpoint of another model ({one_line(error)})"
        ) from None


def load_training_weights(folder: Path, model: keras.Model) -> None:
    """Load the weights that a resumed training needs: not the averages.

    Raises:
        CheckpointError: missing, unreadable, or of another model.
    """
    raw = CheckpointFolder(folder).raw_weights
    load_weights(raw if raw.is_file() else folder, model)


def load_optimizer(folder: Path, optimizer: keras.optimizers.Optimizer) -> None:
    """Load the state of a built optimizer.

    Raises:
        CheckpointError: missing, damaged, or of another optimizer.
    """
    file = CheckpointFolder(folder).optimizer
    saved_name = _read_description(folder, "optimizer")
    if saved_name != describe(optimizer):
        raise CheckpointError(
            f"{file}: state of {saved_name}, but section setup asks for "
            f"{describe(optimizer)}; resume with the same settings, or start anew with --weights"
        )
    try:
        with np.load(file, allow_pickle=False) as saved:
            arrays = [saved[name] for name in sorted(saved.files)]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError):
        raise CheckpointError(f"{file}: missing or damaged; start anew with --weights {folder}") from None
    variables = _state(optimizer)
    rate = 1 + [variable is innermost(optimizer).iterations for variable in variables].index(True)
    if len(arrays) == len(variables) + 1 and arrays[rate].shape == ():
        del arrays[rate]  # an older checkpoint, with a constant learning rate behind the counter of updates
    found, wanted = [a.shape for a in arrays], [tuple(v.shape) for v in variables]
    if found != wanted:
        raise CheckpointError(
            f"{file}: state of {len(found)} variables does not fit this model's optimizer, expected "
            f"{len(wanted)} variables; resume with the same model, or start anew with --weights {folder}"
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _state(optimizer: keras.optimizers.Optimizer) -> list[Any]:
    """Return the variables that a training goes on with.

    A constant learning rate, which Keras keeps in one too, follows from the configuration and may change.
    """
    rate = innermost(optimizer).learning_rate
    return [variable for variable in optimizer.variables if variable is not rate]


def load_random_states(folder: Path) -> npt.NDArray[np.int64]:
    """Return the states of random generators, [P processes, V generators, 2].

    Raises:
        CheckpointError: missing or damaged.
    """
    file = CheckpointFolder(folder).random_states
    try:
        with np.load(file, allow_pickle=False) as saved:
            states = saved["states"]
        if states.ndim != 3 or states.dtype != np.int64:
            raise ValueError(states.shape)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError):
        raise CheckpointError(f"{file}: missing or damaged; start anew with --weights {folder}") from None
    return states


def read_run_state(folder: Path) -> RunState:
    """Return the state of the run.

    Raises:
        CheckpointError: missing or damaged.
    """
    try:
        return RunState.from_json(_read_description(folder, "run"))
    except ValueError as error:
        raise CheckpointError(
            f"{CheckpointFolder(folder).state}: {error}; choose another checkpoint"
        ) from None


def _read_description(folder: Path, key: str) -> Any:
    """Return one entry of ``state.json``."""
    file = CheckpointFolder(folder).state
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CheckpointError(f"{file}: missing or damaged; choose another checkpoint") from None
    found = description.get(key) if isinstance(description, dict) else None
    if not isinstance(found, _STATE_TYPES[key]):
        raise CheckpointError(
            f"{file}: {key} is {str(found)[:40]!r}, expected {_STATE_TYPES[key].__name__}; "
            "choose another checkpoint"
        )
    return found


def _no_states() -> npt.NDArray[np.int64]:
    return np.zeros((1, 0, 2), np.int64)


def _describe(model: keras.Model) -> list[list[Any]]:
    """Return [name, shape] of every weight, without the numbers that Keras appends to repeated names."""
    return [
        [re.sub(r"_\d+(?=/|$)", "", weight.path.split("/", 1)[-1]), list(weight.shape)]
        for weight in model.weights
    ]


def _require_same_weights(saved: list[list[Any]], model: keras.Model, file: Path) -> None:
    """Refuse a checkpoint whose weights have other names or shapes than the model."""
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
