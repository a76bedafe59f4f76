"""Files beside a run directory by which driver, worker and process of a trial communicate."""

from pathlib import Path

from mlpf.search.state import RUNS_FOLDER


class TrialFiles:
    """The files of a run. The run directory only holds files of ``mlpf train``.

    Args:
        directory: directory of the search.
        run: name of the run.

    Attributes:
        run_dir: run directory.
        config: complete configuration of the run.
        outcome: how its last process ended.
        network: number of parameters and inference time, measured before training.
        cost: trial id -> wall time, s.
        worker: worker that runs it, and start of the attempt.
    """

    def __init__(self, directory: Path, run: str):
        folder = directory / RUNS_FOLDER
        self.run_dir = folder / run
        self.config = folder / f"{run}.yaml"
        self.outcome = folder / f"{run}.outcome.json"
        self.network = folder / f"{run}.network.json"
        self.cost = folder / f"{run}.cost.json"
        self.worker = folder / f"{run}.worker.json"
