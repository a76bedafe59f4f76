"""How a run ended, in a file: launchers of many processes hide exit codes, job scripts need them."""

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
    """Keep ``status.json`` while the block runs: ``running``, then ``finished``, ``stopped`` or ``failed``.

    ``stopped`` asks to be continued, and job scripts do so. A run that ended in order before its last epoch
    is ``finished``, and its reason says so.

    Args:
        run_dir: run directory.
        writes: this process writes it.

    Yields:
        A function that takes the reason for the state ``finished``.
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
