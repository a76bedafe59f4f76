"""Train one member of an ensemble and write its outcome file."""

import time
from pathlib import Path
from typing import Any

from mlpf.config.loading import load_config
from mlpf.ensemble.plan import read_plan
from mlpf.ensemble.state import MemberFiles
from mlpf.errors import CheckpointError
from mlpf.files.run_directory import RESOLVED_CONFIG
from mlpf.training.loop.outcome import Outcome, make_ready, recorded_outcome
from mlpf.workflows import train


def run(directory: Path, name: str, *, num_cpus: int | None = None, **limits_of_events: Any) -> Outcome:
    """Train one member, from its latest checkpoint if it has one, and write its outcome file.

    Args:
        directory: directory of the ensemble.
        name: name of the training.
        num_cpus: threads; None = all cores.
        limits_of_events: ``ntrain`` and ``ntest`` of the training.

    Returns:
        The outcome of a completed training.

    Raises:
        TrainingFailed: memory, a loss that is not finite, or a configuration that cannot be trained.
        TrainingStopped: a signal came. The state is saved.
        CheckpointError: not an ensemble, or no such training in it.
        DataError: a dataset cannot be read.
        TrainingBusy: another process trains this run.
    """
    started = time.monotonic()
    member = next((member for member in read_plan(directory).members() if member.name == name), None)
    if member is None:
        raise CheckpointError(f"{directory}: no training {name!r:.60} in it; see its ensemble.json")
    files = MemberFiles(directory, name)
    make_ready(files.run_dir, files.outcome)
    outcome = Outcome()
    with recorded_outcome(files.outcome, files.run_dir, outcome):
        summary = train.run(
            member.config(load_config(directory / RESOLVED_CONFIG)),
            files.run_dir,
            resume=True,
            num_cpus=num_cpus,
            started=started,
            **limits_of_events,
        )
        outcome.state, outcome.reason = "completed", summary.end_reason
    return outcome
