"""Go on where a run was, or start from the weights of another."""

import json
import time
from pathlib import Path

import keras
from rich.console import Console

from mlpf.data.input_pipeline import BatchLoader
from mlpf.errors import CheckpointError
from mlpf.training.checkpoint_store import FOLDER, find_checkpoint
from mlpf.training.checkpoints import load_optimizer, load_random_states, load_weights, read_run_state
from mlpf.training.run_state import RunState
from mlpf.training.trainer import Trainer
from mlpf.workflows.trained import ENVIRONMENT_FILE


def restore(trainer: Trainer, train: BatchLoader, run_dir: Path, console: Console) -> RunState:
    """Load the latest checkpoint of a run.

    Args:
        trainer: gets weights, state of the optimizer and random states.
        train: the training batches.
        run_dir: run directory; one without a checkpoint begins at the beginning.
        console: where to say where the training goes on.

    Raises:
        CheckpointError: it is damaged, of another model, or in the middle of an epoch of other batches.
    """
    started = time.perf_counter()
    if not (run_dir / FOLDER / "latest.json").is_file():
        console.print(f"{run_dir}: no checkpoint yet, training starts at the beginning")
        return RunState()
    checkpoint = find_checkpoint(run_dir, "latest")
    state = read_run_state(checkpoint)
    same_batches = state.fingerprint == train.fingerprint()
    if state.current.step and not same_batches:
        raise CheckpointError(
            f"{checkpoint}: in the middle of an epoch whose batches are others now: datasets, limits, seed, "
            "batch sizes, buckets or number of devices have changed; resume with those of "
            f"{checkpoint / 'config.resolved.yaml'}, or start anew with --weights {checkpoint}"
        )
    load_weights(checkpoint, trainer.model)
    load_optimizer(checkpoint, trainer.optimizer)
    if state.current.step:
        trainer.set_random_states(load_random_states(checkpoint))
    elif state.history and not same_batches:
        console.print("the training batches are not those of the epochs before")
    console.print(
        f"continue after {checkpoint.name} (loaded in {time.perf_counter() - started:.1f} s)", highlight=False
    )
    return state


def start_from(weights: Path, model: keras.Model) -> None:
    """Load weights from a run directory (its best), a checkpoint or a file."""
    is_run = (weights / FOLDER).is_dir()
    load_weights(find_checkpoint(weights) if is_run else weights, model)


def recorded_limits(run_dir: Path) -> dict[str, int | None]:
    """Return the event limits that a run to be resumed was started with."""
    try:
        return json.loads((run_dir / ENVIRONMENT_FILE).read_text())["limits"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # written by hand, or lost: the limits are those of the command line
