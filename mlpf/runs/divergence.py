"""Save the batch at which a training diverged, and find weights and outputs that are NaN or infinite."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from mlpf.config.data_schema import TRAIN
from mlpf.config.schema import Config
from mlpf.data.feeding.batch_loader import BatchLoader
from mlpf.data.feeding.batch_plan import EMPTY_EVENT, Batch
from mlpf.files.atomic import atomic_write
from mlpf.files.run_directory import RunDirectory
from mlpf.runs.data import dataset_names, open_training
from mlpf.training.loop.hooks import TrainingDiverged
from mlpf.training.loop.trainer import Trainer


@contextmanager
def saved_batch(config: Config, run_dir: Path, trainer: Trainer, loader: BatchLoader) -> Iterator[None]:
    """Write the batch at which the training inside this context diverges.

    ``diverged/epoch_<e>_step_<s>.npz`` holds the batch, see ``save_batch``. The JSON file beside it holds the
    loss terms, the learning rate, and the weights, layers and outputs that are not finite. The weights are
    some steps newer than the batch, because losses are read late.

    Args:
        config: the whole configuration.
        run_dir: run directory.
        trainer: trainer, for its model and optimizer.
        loader: loader of the training batches, to make the batch again.

    Raises:
        TrainingDiverged: the original error with the path of the file in its message.
    """
    try:
        yield
    except TrainingDiverged as error:
        saved = _save(error, config, run_dir, trainer, loader)
        raise TrainingDiverged(f"{error}; {saved}", error.epoch, error.step, error.terms) from None


def _save(
    error: TrainingDiverged, config: Config, run_dir: Path, trainer: Trainer, loader: BatchLoader
) -> str:
    """Write the files and return a sentence about them."""
    batch = loader.plan(error.epoch).batches[error.step - 1]
    arrays = loader.pool.fetch_padded(batch.indices, batch.length)
    path = RunDirectory(run_dir).diverged_batch(error.epoch, error.step)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_batch(path, arrays, describe_events(config, loader, batch))
        _write_json(path.with_suffix(".json"), _report(error, trainer, arrays["X"]))
    except OSError as reason:
        return f"the batch could not be saved ({reason})"
    return f"the batch is in {path}"


def save_batch(path: Path, arrays: dict[str, Any], events: dict[str, npt.NDArray[Any]]) -> None:
    """Write a batch as NPZ, atomically and without pickles.

    Args:
        path: file.
        arrays: ``X`` [B, N, F] and ``ygen`` [B, N, 8] float32, as given to the network.
        events: return value of ``describe_events``.
    """
    with atomic_write(path) as part, part.open("wb") as stream:
        np.savez_compressed(stream, **arrays, **events)


def describe_events(config: Config, loader: BatchLoader, batch: Batch) -> dict[str, npt.NDArray[Any]]:
    """Identify the events of a batch.

    Returns:
        ``dataset`` [B] names, ``split`` name, ``index`` [B] positions in the split, ``event`` [B] identifiers
        (empty if the dataset has none). Empty events that fill the batch have no dataset and index -1.
    """
    names = dataset_names(config)
    number, position = loader.pool.locate(batch.indices)
    real = batch.indices != EMPTY_EVENT
    dataset = [names[n] if is_real else "" for n, is_real in zip(number, real, strict=True)]
    splits = {name: open_training(config, name) for name in set(dataset) if name}
    event = np.full(len(dataset), "", dtype=object)
    for name, split in splits.items():
        if "event" in split.fields:
            mine = np.array(dataset) == name
            event[mine] = split.fetch(position[mine], ("event",)).names
    return {
        "dataset": np.array(dataset, dtype=np.str_),
        "split": np.array(TRAIN),
        "index": np.where(real, position, EMPTY_EVENT),
        "event": np.array(event, dtype=np.str_),
    }


def _report(error: TrainingDiverged, trainer: Trainer, X: Any) -> dict[str, Any]:
    layers, outputs = bad_outputs(trainer.model, X)
    return {
        "message": str(error),
        "epoch": error.epoch,
        "step": error.step,
        "loss_terms": {name: _number(value) for name, value in error.terms.items()},
        "learning_rate": float(keras.ops.convert_to_numpy(trainer.optimizer.learning_rate)),
        "weights_not_finite": bad_weights(trainer.model),
        "layers_not_finite": layers,
        "outputs_not_finite": outputs,
    }


def _number(value: float) -> float | str:
    """Return a number that JSON can hold: NaN and infinity become text."""
    return value if math.isfinite(value) else str(value)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path) as part:
        part.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")


Counts = dict[str, dict[str, int]]


def bad_weights(model: keras.Model) -> Counts:
    """Return path -> ``not_finite`` and ``size`` of the weights with values that are NaN or infinite."""
    counts = {weight.path: _count(weight) for weight in model.weights}
    return {path: count for path, count in counts.items() if count["not_finite"]}


def bad_outputs(model: keras.Model, X: Any) -> tuple[Counts, Counts]:
    """Run a model on a batch and find outputs of layers that are NaN or infinite.

    Args:
        model: X [B, N, F] -> dict of outputs.
        X: [B, N, F] float32.

    Returns:
        Path of the layer -> ``not_finite`` and ``size`` of its output, in the order of execution: the first
        layer is the origin. The second dict has the same for the outputs of the model, by name.
    """
    layers: Counts = {}
    with _watched(model, layers):
        outputs = {name: _count(values) for name, values in model(X, training=False).items()}
    return layers, {name: count for name, count in outputs.items() if count["not_finite"]}


@contextmanager
def _watched(model: keras.Model, found: Counts) -> Iterator[None]:
    """Add the layers of ``model`` with outputs that are not finite to ``found``."""
    layers = list(model._flatten_layers(include_self=False))

    def watch(layer: keras.Layer) -> None:
        call = layer.call

        def watched(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            counts = [_count(values) for values in keras.tree.flatten(outputs) if _is_float(values)]
            total = {key: sum(count[key] for count in counts) for key in ("not_finite", "size")}
            if total["not_finite"]:
                found.setdefault(layer.path, total)
            return outputs

        # Bypass __setattr__ of Keras, which refuses to change a built layer.
        layer.__dict__["call"] = watched

    for layer in layers:
        watch(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["call"]


def _is_float(values: Any) -> bool:
    return keras.backend.is_float_dtype(keras.backend.standardize_dtype(values.dtype))


def _count(values: Any) -> dict[str, int]:
    array = keras.ops.convert_to_numpy(keras.ops.cast(values, "float32"))
    return {"not_finite": int(array.size - np.isfinite(array).sum()), "size": int(array.size)}
