"""Show the progress of a training on the terminal or in the log file of a batch job."""

import time
from collections.abc import Callable
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from mlpf.training.checkpoints.run_state import EpochRecord

# Without a terminal, seconds between lines within an epoch.
_LINE_INTERVAL_S = 120.0


class TerminalProgress:
    """Shows a progress bar per epoch and then a line with its result; without a terminal, lines only.

    Args:
        console: output. The bar needs a terminal that can move the cursor.
        line_interval_s: without a bar, seconds between lines within an epoch.
        clock: returns the time in s.
    """

    def __init__(
        self,
        console: Console,
        line_interval_s: float = _LINE_INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._console = console
        self._line_interval = line_interval_s
        self._clock = clock
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._epoch = self._num_epochs = 0
        self._num_events = self._num_elements = self._first = 0
        self._started = self._last_line = 0.0
        self._after_steps = 0.0  # seconds of the last epoch outside of training steps

    def start(
        self, epoch: int, num_epochs: int, num_events: int, num_elements: int, first_event: int = 0
    ) -> None:
        """Begin an epoch.

        Args:
            epoch: number of the epoch, from 1.
            num_epochs: epochs of the run.
            num_events: events of the epoch.
            num_elements: elements of all its events, without padding.
            first_event: number of events done already, if the epoch is resumed.
        """
        self._epoch, self._num_epochs = epoch, num_epochs
        self._num_events, self._num_elements, self._first = num_events, num_elements, first_event
        self._started = self._last_line = self._clock()
        if not self._console.is_terminal or self._console.is_dumb_terminal:
            return
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} events  {task.fields[state]}"),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task(
            "epoch", total=num_events, completed=first_event, epoch=f"{epoch}/{num_epochs}", state=""
        )
        self._bar.start()

    def update(self, num_events: int, loss: float) -> None:
        """Show the progress within the epoch.

        Args:
            num_events: events of the epoch that are done.
            loss: mean loss of these events.
        """
        state = self._state(num_events, loss)
        if self._bar is not None:
            self._bar.update(self._task, completed=num_events, state=state)
        elif self._clock() - self._last_line >= self._line_interval:
            self._last_line = self._clock()
            self._print(
                f"epoch {self._epoch}/{self._num_epochs}  {num_events}/{self._num_events} events  {state}"
            )

    def finish(self, record: EpochRecord) -> None:
        """End the epoch and print the line of its record."""
        self.close()
        seconds = self._clock() - self._started
        self._after_steps = max(seconds - record["seconds"], 0.0)
        left = self._num_epochs - self._epoch
        self._print(epoch_line(record, self._num_epochs, seconds, left * seconds if left else None))

    def close(self) -> None:
        """Remove the bar, also after an error."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _state(self, num_events: int, loss: float) -> str:
        """Return loss, speed and estimated time for the rest of the run."""
        elapsed, done = self._clock() - self._started, num_events - self._first
        if elapsed <= 0 or done <= 0:
            return f"loss {loss:.4g}"
        rate = done / elapsed
        epoch = self._num_events / rate + self._after_steps
        left = (self._num_events - num_events) / rate + self._after_steps
        left += (self._num_epochs - self._epoch) * epoch
        elements = rate * self._num_elements / max(self._num_events, 1)
        return f"loss {loss:.4g}  {short(rate)} events/s  {short(elements)} elements/s  ETA {duration(left)}"

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def epoch_line(record: EpochRecord, num_epochs: int, seconds: float, left: float | None) -> str:
    """Return the line of an epoch.

    Args:
        record: record of the epoch.
        num_epochs: epochs of the run.
        seconds: wall time of the epoch including its hooks, s.
        left: estimated time to the end of the run, s; None = this is the last epoch.
    """
    parts = [
        f"epoch {record['epoch']:.0f}/{num_epochs}",
        f"loss {record['loss']:.5g}",
        f"val {record['val_loss']:.5g}",
    ]
    for name, key in (("jet IQR", "val_jet_response_iqr"), ("MET IQR", "val_met_response_iqr")):
        if key in record:
            parts.append(f"{name} {record[key]:.4f}")
    parts += [
        f"lr {record['learning_rate']:.2g}",
        f"{short(record['events_per_second'])} events/s",
        f"{short(record['elements_per_second'])} elements/s",
        f"padding {record['padded_fraction']:.0%}",
        f"waiting {record['wait_share']:.0%}",
        f"{seconds:.1f} s",
    ]
    if left is not None:
        parts.append(f"ETA {duration(left)}")
    if record["bad_values"]:
        parts.append(f"{record['bad_values']:.0f} NaN or infinite inputs set to 0")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """Return h:mm:ss, with days in front if there are any."""
    return str(timedelta(seconds=round(seconds)))


def short(number: float) -> str:
    """Return a number with three digits, in thousands (k) or millions (M) where it is large."""
    if number < 999.5:
        return f"{number:.3g}"
    scale, unit = (1e3, "k") if number < 999.5e3 else (1e6, "M")
    return f"{number / scale:.3g}{unit}"
