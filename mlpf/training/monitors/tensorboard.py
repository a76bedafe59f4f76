"""TensorBoard logs. A resumed training continues them without repeated steps.

Scalars of an epoch have the names of its record and are logged against the epoch. ``step/loss`` (mean since
the last entry) and ``step/learning_rate`` are logged against the training step of the whole run.
"""

from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

from mlpf.files.atomic import atomic_write
from mlpf.training.checkpoints.run_state import EpochRecord

_STEP_PREFIX = "step/"
_STEP_SCALARS = ("loss", "learning_rate")


class TensorBoardWriter:
    """Epoch hook and step hook that log numbers for TensorBoard.

    Before the first number, entries of an earlier process for epochs and steps that are trained again are
    removed.

    Args:
        folder: folder of the event files; created if missing.
        description: Markdown, shown as text ``config``.
    """

    def __init__(self, folder: Path, description: str):
        self._folder = folder
        self._description = description
        self._writer: Any = None

    def __call__(self, history: list[EpochRecord]) -> None:
        """Log the last epoch."""
        record = history[-1]
        epoch = int(record["epoch"])
        self._open(epoch, None)
        with self._writer.as_default(step=epoch):
            for name, value in record.items():
                tf.summary.scalar(name, value)
        self._writer.flush()

    def on_step(self, step: int, record: EpochRecord) -> None:
        """Log the loss of the last steps.

        Args:
            step: training steps of the run so far.
            record: ``epoch``, and ``loss`` and ``learning_rate`` at this step.
        """
        self._open(int(record["epoch"]), step)
        with self._writer.as_default(step=step):
            for name in _STEP_SCALARS:
                tf.summary.scalar(_STEP_PREFIX + name, record[name])
        # Flush, so that a killed process keeps all steps before its last checkpoint.
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()

    def _open(self, epoch: int, step: int | None) -> None:
        """Open an event file for entries from this epoch and step on, unless one is open."""
        if self._writer is not None:
            return
        drop_events(self._folder, epoch, step)
        self._writer = tf.summary.create_file_writer(str(self._folder))
        with self._writer.as_default(step=epoch):
            tf.summary.text("config", self._description)


def drop_events(folder: Path, epoch: int, step: int | None) -> None:
    """Remove entries of ``epoch`` and later and of training step ``step`` and later from event files.

    Args:
        folder: folder of the event files.
        epoch: first epoch to remove.
        step: first training step to remove, None = none.
    """

    def is_stale(event: Any) -> bool:
        if not event.summary.value:
            return False
        if event.summary.value[0].tag.startswith(_STEP_PREFIX):
            return step is not None and event.step >= step
        return event.step >= epoch

    for path in sorted(folder.glob("events.out.tfevents.*")):
        records = list(RawEventFileLoader(str(path)).Load())
        events = [tf.compat.v1.Event.FromString(record) for record in records]
        kept = [record for record, event in zip(records, events, strict=True) if not is_stale(event)]
        if len(kept) == len(records):
            continue
        with atomic_write(path) as part, tf.io.TFRecordWriter(str(part)) as writer:
            for record in kept:
                writer.write(record)
