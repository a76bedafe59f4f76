"""What driver, worker and process of a trial tell each other, in files beside the run directory."""

import json
from pathlib import Path
from typing import Any

from mlpf.atomic import atomic_write
from mlpf.tuning.state import RUNS_FOLDER

# Exit codes of `mlpf hypertune trial`; any other is a crash.
COMPLETED, BAD_INPUT, FAILED, BUSY, STOPPED = 0, 2, 3, 4, 75


class TrialFiles:
    """The files of a run; its own directory holds what ``mlpf train`` writes and nothing else.

    Args:
        directory: of the search.
        run: name of the run.

    Attributes:
        run_dir: run directory.
        config: complete configuration of the run.
        outcome: how its last process ended.
        network: what was measured of its network before it was trained.
        cost: wall time of each of its trials.
        place: which worker has it, and since when.
    """

    def __init__(self, directory: Path, run: str):
        folder = directory / RUNS_FOLDER
        self.run_dir = folder / run
        self.config = folder / f"{run}.yaml"
        self.outcome = folder / f"{run}.outcome.json"
        self.network = folder / f"{run}.network.json"
        self.cost = folder / f"{run}.cost.json"
        self.place = folder / f"{run}.place.json"


def read_json(path: Path, kind: type) -> Any:
    """Return what a JSON file holds; empty if it is missing, damaged or not of this kind."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return kind()
    return content if isinstance(content, kind) else kind()


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file. Atomic."""
    with atomic_write(path) as part:
        part.write_text(json.dumps(content, indent=1))
