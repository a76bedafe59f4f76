"""How a training in a process of its own ended: a file and an exit code for its parent, and its error."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import tensorflow as tf

from mlpf.errors import EXIT_BUSY, EXIT_FAILED, ConfigError, EventTooLong, MLPFError, OutputExists, one_line
from mlpf.files.atomic import write_json
from mlpf.files.locking import locked
from mlpf.files.run_directory import RunDirectory
from mlpf.training.checkpoints.checkpoint import read_run_state
from mlpf.training.checkpoints.run_state import EpochRecord
from mlpf.training.checkpoints.store import find_checkpoint
from mlpf.training.loop.hooks import TrainingDiverged
from mlpf.training.loop.interruption import TrainingStopped

# Messages of TensorFlow, XLA, CUDA and the C++ library. The type of the error is not specific.
_MESSAGES = re.compile(
    r"RESOURCE_EXHAUSTED|out of memory|OOM when allocating|OUT_OF_MEMORY|failed to allocate memory|bad_alloc",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error, or one of its causes, means too little memory.

    Messages are only searched in ``RuntimeError`` and TensorFlow's ``OpError``, since other errors may quote
    the same words.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError | tf.errors.ResourceExhaustedError):
            return True
        if isinstance(seen, RuntimeError | tf.errors.OpError) and _MESSAGES.search(str(seen)):
            return True
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return False


Kind = Literal["", "memory", "nan", "limit", "refused", "error"]


class TrainingFailed(MLPFError):
    """A training failed in a way that a repetition would not change.

    Args:
        kind: memory, nan, limit or refused.
        message: reason.
    """

    exit_code = EXIT_FAILED
    label = "failed"

    def __init__(self, kind: Kind, message: str):
        super().__init__(message)
        self.kind = kind


class TrainingBusy(OutputExists):
    """Another process still trains or saves this run."""

    exit_code = EXIT_BUSY


@dataclass
class Outcome:
    """How a training ended; contents of its outcome file.

    Attributes:
        state: completed; failed; stopped (to be resumed).
        kind: kind of failure: memory, nan, limit, refused (by configuration or model), or error (anything
            else, such as a missing dataset; counts as a crash).
        reason: reason of a failure or stop; of a completed training, of its early end.
        epochs: epochs in the history.
    """

    state: Literal["completed", "failed", "stopped"] = "failed"
    kind: Kind = ""
    reason: str = ""
    epochs: int = 0


@contextmanager
def recorded_outcome(path: Path, run_dir: Path, outcome: Outcome) -> Iterator[None]:
    """Write the outcome of the block to a file when it ends, also after an error.

    Args:
        path: outcome file.
        run_dir: run directory.
        outcome: the block sets ``state`` when the training is completed.

    Raises:
        TrainingFailed: replaces errors that a repetition would not change.
    """
    try:
        try:
            yield
        except (TrainingStopped, TrainingFailed):
            raise
        except TrainingDiverged as error:
            raise TrainingFailed("nan", str(error)) from error
        except (ConfigError, EventTooLong) as error:
            raise TrainingFailed("refused", str(error)) from error
        except Exception as error:
            if is_out_of_memory(error):
                raise TrainingFailed("memory", f"out of memory: {one_line(error)}") from error
            raise
    except BaseException as error:
        stopped = isinstance(error, TrainingStopped)
        outcome.state = "stopped" if stopped else "failed"
        outcome.reason = str(error) if isinstance(error, MLPFError) else one_line(error)
        outcome.kind = "" if stopped else getattr(error, "kind", "error")
        raise
    finally:
        outcome.epochs = len(checkpointed_history(run_dir))
        write_json(path, asdict(outcome))


def make_ready(run_dir: Path, outcome: Path) -> None:
    """Prepare a run directory: remove an old outcome, and all files if there is no checkpoint yet.

    Raises:
        TrainingBusy: another process trains there.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        with locked(RunDirectory(run_dir).lock, f"{run_dir}: training"):
            outcome.unlink(missing_ok=True)
            if not RunDirectory(run_dir).pointer("latest").is_file():
                _clear(run_dir)
    except OutputExists as error:
        raise TrainingBusy(str(error)) from None


def _clear(run_dir: Path) -> None:
    for left in run_dir.iterdir():
        if left.is_dir():
            shutil.rmtree(left)
        elif left != RunDirectory(run_dir).lock:
            left.unlink()


def checkpointed_history(run_dir: Path) -> list[EpochRecord]:
    """Return the epochs of the latest checkpoint."""
    if not RunDirectory(run_dir).pointer("latest").is_file():
        return []
    return read_run_state(find_checkpoint(run_dir, "latest")).history
