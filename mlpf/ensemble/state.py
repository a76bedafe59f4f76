"""Where each training of an ensemble stands, in one file each; the process that has it writes the file."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mlpf.files.atomic import read_json, write_json
from mlpf.files.run_directory import RunDirectory

RUNS_FOLDER, STATES_FOLDER, LOGS_FOLDER = "runs", "states", "logs"

Stage = Literal["waiting", "running", "completed", "failed"]


class MemberFiles:
    """The files of a training; its run directory holds what ``mlpf train`` writes and nothing else.

    Args:
        directory: of the ensemble.
        name: of the training.

    Attributes:
        run_dir: run directory.
        history: records of its epochs.
        log: output of its processes.
        state: where it stands.
        outcome: how its last process ended, by its own words.
    """

    def __init__(self, directory: Path, name: str):
        self.run_dir = directory / RUNS_FOLDER / name
        self.history = RunDirectory(self.run_dir).history
        self.log = directory / LOGS_FOLDER / f"{name}.log"
        self.state = directory / STATES_FOLDER / f"{name}.json"
        self.outcome = directory / STATES_FOLDER / f"{name}.outcome.json"


@dataclass
class MemberState:
    """Where a training stands; contents of ``MemberFiles.state``.

    The task that runs the training writes it; while there is no task, the driver of the ensemble does.

    Attributes:
        state: waiting (also: stopped, to be continued), running, completed or failed.
        kind: of a failure: memory, nan, refused, crash, lost (with its worker), time.
        reason: of a failure or of the last stop; of a completed training, why it ended early.
        attempts: processes that were started for it.
        crashes: of these, how many crashed.
        stalls: stops in a row that brought it no further.
        seconds: wall time of all attempts.
        slot: worker of the last attempt.
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
        """Give up."""
        self.state, self.kind, self.reason = "failed", kind, reason

    def begin_again(self) -> None:
        """Wait for a new attempt after a failure, with no failures counted."""
        self.state, self.kind, self.reason, self.crashes, self.stalls = "waiting", "", "", 0, 0

    def write(self, files: MemberFiles) -> None:
        """Write the file, whole and synced."""
        write_json(files.state, asdict(self))


def read_state(files: MemberFiles) -> MemberState:
    """Return where a training stands; one that has no file, or a damaged one, waits."""
    found: dict[str, Any] = read_json(files.state, dict)
    kept = {
        name: found[name]
        for name, default in asdict(MemberState()).items()
        if type(found.get(name)) is type(default)
    }
    return MemberState(**kept)


def read_history(files: MemberFiles) -> list[dict[str, float]]:
    """Return the records of the epochs of a training, empty if it has none that can be read."""
    found: list[Any] = read_json(files.history, list)
    return found if all(isinstance(record, dict) for record in found) else []
