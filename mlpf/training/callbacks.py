"""What happens around an epoch: history file, TensorBoard logs, progress on the terminal."""

import json
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mlpf.atomic import atomic_write

Record = dict[str, float]


class HistoryWriter:
    """Epoch hook that rewrites ``history.json``: a list with one record per epoch."""

    def __init__(self, path: Path):
        self._path = path

    def __call__(self, history: list[Record]) -> None:
        """Write the whole history."""
        with atomic_write(self._path) as part:
            part.write_text(json.dumps(history, indent=1))


class TensorBoardWriter:
    """Epoch hook that logs every number of a record against the epoch."""

    def __init__(self, folder: Path):
        import tensorflow as tf

        self._summary = tf.summary
        self._writer = tf.summary.create_file_writer(str(folder))

    def __call__(self, history: list[Record]) -> None:
        """Log the epoch just done."""
        record = history[-1]
        with self._writer.as_default(step=int(record["epoch"])):
            for name, value in record.items():
                self._summary.scalar(name, value)
        self._writer.flush()


class TerminalProgress:
    """A progress bar per epoch, then one line with its result.

    Args:
        console: where to draw; the bar shows on terminals only, the lines always.
    """

    def __init__(self, console: Console):
        self._console = console
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._num_epochs = 0

    def start(self, epoch: int, num_epochs: int, num_events: int) -> None:
        """Begin the bar of an epoch."""
        self._num_epochs = num_epochs
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} events"),
            TextColumn("loss {task.fields[loss]}  {task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task(
            "epoch", total=num_events, epoch=f"{epoch}/{num_epochs}", loss="-", rate=""
        )
        if self._console.is_terminal:
            self._bar.start()

    def update(self, num_events: int, loss: float) -> None:
        """Advance the bar."""
        if self._bar is None:
            return
        elapsed = self._bar.tasks[0].elapsed or 0.0
        rate = f"{num_events / elapsed:.0f} events/s" if elapsed else ""
        self._bar.update(self._task, completed=num_events, loss=f"{loss:.4g}", rate=rate)

    def finish(self, record: Record) -> None:
        """Remove the bar and print the line of the epoch."""
        self.close()
        line = (
            f"epoch {record['epoch']}/{self._num_epochs}  loss {record['loss']:.5g}  "
            f"val_loss {record['val_loss']:.5g}  lr {record['learning_rate']:.2g}  "
            f"{record['events_per_second']:.0f} events/s  waiting {record['wait_share']:.1%}  "
            f"padding {record['padded_fraction']:.0%}  {record['seconds']:.1f}+{record['val_seconds']:.1f} s"
        )
        if record["bad_values"]:
            line += f"  {record['bad_values']:.0f} NaN or infinite inputs set to 0"
        self._console.print(line, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Remove the bar, also after an error."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
