"""Write to ``status.json`` how a run ended, for job scripts: process launchers hide exit codes."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mlpf.files.atomic import atomic_write
from mlpf.files.run_directory import RunDirectory
from mlpf.training.loop.interruption import TrainingStopped


@contextmanager
def recorded_status(run_dir: Path, writes: bool = True) -> Iterator[Callable[[str], None]]:
    """Write ``status.json``: ``running`` during the block, then ``finished``, ``stopped`` or ``failed``.

    Job scripts submit a ``stopped`` run again. A run that ended early as configured is ``finished``;
    ``reason`` says why.

    Args:
        run_dir: run directory.
        writes: whether this process writes the file.

    Yields:
        A function that takes the reason for ``finished``.
    """

    def record(state: str, reason: str = "") -> None:
        if writes:
            with atomic_write(RunDirectory(run_dir).status) as part:
                part.write_text(
                    json.dumps({"state": state, "reason": reason, "time": time.time()}), encoding="utf-8"
                )

    reasons = [""]
    record("running")
    try:
        yield reasons.append
    except TrainingStopped as error:
        record("stopped", str(error))
        raise
    except BaseException as error:
        record("failed", str(error) or type(error).__name__)
        raise
    record("finished", reasons[-1])
