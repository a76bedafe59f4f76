"""How a run ended, in a file: launchers of many processes hide exit codes, job scripts need them."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlpf.atomic import atomic_write
from mlpf.training.guard import TrainingStopped

STATUS_FILE = "status.json"


@dataclass
class Ending:
    """How a run that finished did so.

    Attributes:
        reason: why before its last epoch; empty = it did not.
    """

    reason: str = ""


@contextmanager
def recorded_status(run_dir: Path, writes: bool = True) -> Iterator[Ending]:
    """Keep ``status.json`` while the block runs: ``running``, then ``finished``, ``stopped`` or ``failed``.

    Args:
        run_dir: run directory.
        writes: this process writes it.

    Yields:
        What the block tells about a run that finished: its reason goes into the file.
    """

    def record(state: str, reason: str = "") -> None:
        if writes:
            with atomic_write(run_dir / STATUS_FILE) as part:
                part.write_text(json.dumps({"state": state, "reason": reason, "time": time.time()}))

    record("running")
    ending = Ending()
    try:
        yield ending
    except TrainingStopped as error:
        record("stopped", str(error))
        raise
    except BaseException as error:
        record("failed", str(error) or type(error).__name__)
        raise
    record("finished", ending.reason)
