"""What came of a training in a process of its own: in a file for its parent, and as exit code."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from mlpf.errors import EXIT_BUSY, EXIT_FAILED, ConfigError, EventTooLong, MLPFError, OutputExists, one_line
from mlpf.files.atomic import write_json
from mlpf.files.locking import locked
from mlpf.files.run_directory import RunDirectory
from mlpf.machine.out_of_memory import is_out_of_memory
from mlpf.training.checkpoints.checkpoint import read_run_state
from mlpf.training.checkpoints.run_state import EpochRecord
from mlpf.training.checkpoints.store import find_checkpoint
from mlpf.training.loop.hooks import TrainingDiverged
from mlpf.training.loop.interruption import TrainingStopped

Kind = Literal["", "memory", "nan", "limit", "refused", "error"]


class TrainingFailed(MLPFError):
    """A training cannot succeed, and would not if it were repeated.

    Args:
        kind: memory, nan, limit or refused.
        message: why.
    """

    exit_code = EXIT_FAILED
    label = "failed"

    def __init__(self, kind: Kind, message: str):
        super().__init__(message)
        self.kind = kind


class TrainingBusy(OutputExists):
    """Another process still trains this run, or saves it."""

    exit_code = EXIT_BUSY


@dataclass
class Outcome:
    """What became of a training.

    Attributes:
        state: completed; failed; stopped, to be continued.
        kind: of a failure: memory, nan, limit, refused (by configuration or model), error (anything else,
            such as a dataset that is missing; the process then ends as crashed).
        reason: of a failure or stop; of a completed training, why it has fewer than ``setup.num_epochs``
            epochs.
        epochs: epochs in the history.
    """

    state: Literal["completed", "failed", "stopped"] = "failed"
    kind: Kind = ""
    reason: str = ""
    epochs: int = 0


@contextmanager
def recorded_outcome(path: Path, run_dir: Path, outcome: Outcome) -> Iterator[None]:
    """Write what became of the block, however it ends; errors of the training itself fail it for good.

    Args:
        path: file of the outcome.
        run_dir: run directory.
        outcome: the block sets ``state`` when it is completed.

    Raises:
        TrainingFailed: in place of errors that would come again.
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
    """Make a run directory; remove the outcome of before, and what was left before the first checkpoint.

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
