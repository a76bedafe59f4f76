"""Resume a run, or start from the weights of another one."""

import time
from collections.abc import Sequence
from pathlib import Path

import keras
from rich.console import Console
from rich.table import Table

from mlpf.config.schema import Config
from mlpf.data.feeding.batch_loader import BatchLoader
from mlpf.errors import CheckpointError, ConfigError
from mlpf.files.run_directory import CheckpointFolder, RunDirectory
from mlpf.runs.changes import BATCHES, DETECTOR, NETWORK, OPTIMIZER, RANDOM_NUMBERS, Changes
from mlpf.runs.trained import require_detector_of
from mlpf.training.checkpoints.checkpoint import (
    load_optimizer,
    load_random_states,
    load_training_weights,
    load_weights,
    read_run_state,
)
from mlpf.training.checkpoints.partial_weights import Match, load_partial_weights
from mlpf.training.checkpoints.run_state import RunState
from mlpf.training.checkpoints.store import find_checkpoint
from mlpf.training.loop.trainer import Trainer


def latest_checkpoint(run_dir: Path, console: Console) -> Path | None:
    """Return the latest checkpoint of a run; None if it was interrupted before the first one.

    Raises:
        CheckpointError: ``latest.json`` is damaged, or names a folder that is missing.
    """
    if RunDirectory(run_dir).pointer("latest").is_file():
        return find_checkpoint(run_dir, "latest")
    console.print(f"{run_dir}: no checkpoint yet, training starts at the beginning", soft_wrap=True)
    return None


def restore(
    trainer: Trainer, train: BatchLoader, checkpoint: Path, changes: Changes, console: Console
) -> RunState:
    """Load a checkpoint to resume from. Writes nothing.

    Args:
        trainer: receives weights, optimizer state and random states.
        train: the training batches.
        checkpoint: folder of the checkpoint.
        changes: what differs from the configuration of the checkpoint.
        console: prints where the training continues and what has changed.

    Raises:
        CheckpointError: it is damaged, of another model, or in the middle of an epoch with other batches.
    """
    started = time.perf_counter()
    state = read_run_state(checkpoint)
    with changes.explained(DETECTOR):
        if any(key.startswith(DETECTOR[0].rstrip("*")) for key in changes.keys):
            raise CheckpointError(f"{checkpoint}: of a training for another detector")
    same_batches = state.fingerprint == train.fingerprint()
    with changes.explained(BATCHES):
        if state.current.step and not same_batches:
            raise CheckpointError(
                f"{checkpoint}: written in the middle of an epoch, but the batches have changed since: "
                "datasets, limits, seed, batch sizes, buckets or number of devices; resume with those of "
                f"{CheckpointFolder(checkpoint).config}, or start anew with --weights {checkpoint}"
            )
    with changes.explained(NETWORK):
        load_training_weights(checkpoint, trainer.model)
    with changes.explained(OPTIMIZER):
        load_optimizer(checkpoint, trainer.optimizer)
    if state.current.step:
        with changes.explained(RANDOM_NUMBERS):
            _restore_random_states(trainer, checkpoint)
    elif state.history and not same_batches:
        console.print("the training batches differ from those of earlier epochs")
    for line in changes.lines():
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    console.print(
        f"continue after {checkpoint.name} (loaded in {time.perf_counter() - started:.1f} s)", highlight=False
    )
    return state


def _restore_random_states(trainer: Trainer, checkpoint: Path) -> None:
    """Restore the random states; refuse those of other generators, for example after a change of dropout."""
    try:
        trainer.random_states.restore(load_random_states(checkpoint))
    except ValueError:
        raise CheckpointError(
            f"{checkpoint}: written in the middle of an epoch with other random generators (dropout, loss); "
            "resume with the same settings, or start anew with --weights"
        ) from None


def start_from(weights: Path, model: keras.Model, config: Config, partial: bool, console: Console) -> None:
    """Load weights from a run directory (its best checkpoint), a checkpoint or a file.

    Args:
        weights: the directory or file.
        model: receives the weights.
        config: of the run that begins.
        partial: load only the weights that fit, and print which; they may be of another detector.
        console: prints the table of ``partial``.

    Raises:
        CheckpointError: missing, damaged, or of another model or detector.
        ConfigError: ``setup.trainable`` freezes layers whose weights do not fit.
    """
    path = find_checkpoint(weights) if RunDirectory(weights).checkpoints.is_dir() else weights
    if not partial:
        require_detector_of(path, config, "to train them further for this one add --partial")
        load_weights(path, model)
        return
    matches = load_partial_weights(path, model)
    of_model = [match for match in matches if match.shape is not None]
    console.print(_partial_table(matches))
    taken = sum(match.taken for match in matches)
    console.print(f"{path}: {taken} of {len(of_model)} weights of the model taken", soft_wrap=True)
    _require_trained({match.name.partition("/")[0] for match in of_model if not match.taken}, model)


def _require_trained(untaken: set[str], model: keras.Model) -> None:
    """Refuse to freeze layers that kept their random first values."""
    frozen = {layer.name for layer in model.layers if not layer.trainable}
    if untaken & frozen:
        raise ConfigError(
            f"setup.trainable freezes {', '.join(sorted(untaken & frozen))}, with weights that do not fit: "
            "they would stay random; use setup.trainable: all"
        )


def _partial_table(matches: Sequence[Match]) -> Table:
    """Return a table: weights taken, counted by outer layer; weights not taken, counted by inner layer."""
    counts: dict[tuple[str, str], int] = {}
    for match in matches:
        layer = match.name.rpartition("/")[0]
        fate = "taken"
        if not match.taken:
            differs = match.shape is not None and match.found is not None and match.shape != match.found
            fate = match.reason + (f": file {match.found}, model {match.shape}" if differs else "")
        key = (layer.partition("/")[0] if match.taken else layer, fate)
        counts[key] = counts.get(key, 0) + 1
    table = Table("layer", "weights", "")
    for (layer, fate), count in counts.items():
        table.add_row(layer or "(model)", str(count), fate)
    return table
