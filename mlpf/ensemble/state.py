"""State of each training of an ensemble, one file each. The process that runs the training writes it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mlpf.files.atomic import read_json, write_json
from mlpf.files.run_directory import RunDirectory

RUNS_FOLDER, STATES_FOLDER, LOGS_FOLDER = "runs", "states", "logs"

Stage = Literal["waiting", "running", "completed", "failed"]


class MemberFiles:
    """The files of one training. The run directory only holds files of ``mlpf train``.

    Args:
        directory: directory of the ensemble.
        name: name of the training.

    Attributes:
        run_dir: run directory.
        history: records of its epochs.
        log: output of its processes.
        state: its state, see ``MemberState``.
        outcome: written by its last process, see ``training/loop/outcome.py``.
    """

    def __init__(self, directory: Path, name: str):
        self.run_dir = directory / RUNS_FOLDER / name
        self.history = RunDirectory(self.run_dir).history
        self.log = directory / LOGS_FOLDER / f"{name}.log"
        self.state = directory / STATES_FOLDER / f"{name}.json"
        self.outcome = directory / STATES_FOLDER / f"{name}.outcome.json"


@dataclass
class MemberState:
    """State of a training; contents of ``MemberFiles.state``.

    The task that runs the training writes it. Without a task, the driver of the ensemble writes it.

    Attributes:
        state: waiting (also after a stop), running, completed or failed.
        kind: kind of failure: memory, nan, refused, crash, lost (with its worker), time.
        reason: reason of a failure or of the last stop; of a completed training, of its early end.
        attempts: number of processes started.
        crashes: number of processes that crashed.
        stalls: stops in a row without a new checkpoint.
        seconds: wall time of all attempts, s.
        slot: slot of the last attempt.
    """

    state: Stage = "waiting"
    kind: str = ""
    reason: str = ""
    attempts: int = 0
    crashes: int = 0
    stalls: int = 0
    seconds: float = 0.0
    slot: str = ""

    def fail(self, kind: str, reason: str) -> None:
        """Set the state to failed."""
        self.state, self.kind, self.reason = "failed", kind, reason

    def begin_again(self) -> None:
        """Set a failed training to waiting and its failure counts to zero."""
        self.state, self.kind, self.reason, self.crashes, self.stalls = "waiting", "", "", 0, 0

    def write(self, files: MemberFiles) -> None:
        """Write the file, atomically and synced."""
        write_json(files.state, asdict(self))


def read_state(files: MemberFiles) -> MemberState:
    """Return the state of a training; waiting if its file is missing or damaged."""
    found: dict[str, Any] = read_json(files.state, dict)
    kept = {
        name: found[name]
        for name, default in asdict(MemberState()).items()
        if type(found.get(name)) is type(default)
    }
    return MemberState(**kept)


def read_history(files: MemberFiles) -> list[dict[str, float]]:
    """Return the records of the epochs of a training; empty if the file is missing or damaged."""
    found: list[Any] = read_json(files.history, list)
    return found if all(isinstance(record, dict) for record in found) else []
