"""What driver, worker and process of a trial tell each other, in files beside the run directory."""

from pathlib import Path

from mlpf.search.state import RUNS_FOLDER


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
