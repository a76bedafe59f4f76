"""Write the history: a file with one record per epoch."""

import json
from pathlib import Path

from mlpf.files.atomic import atomic_write
from mlpf.training.checkpoints.run_state import EpochRecord


class HistoryWriter:
    """Epoch hook that rewrites ``history.json``: a list with one record per epoch."""

    def __init__(self, path: Path):
        self._path = path

    def __call__(self, history: list[EpochRecord]) -> None:
        """Write the whole history."""
        with atomic_write(self._path) as part:
            part.write_text(json.dumps(history, indent=1), encoding="utf-8")
