"""When a training saves in the middle of an epoch, and when it stops because of a time limit or signal."""

import enum
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from mlpf.errors import EXIT_STOPPED, MLPFError
from mlpf.training.checkpoints.run_state import RunState

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class TrainingStopped(MLPFError):
    """A training was asked to stop. Its state is saved; job scripts submit it again."""

    exit_code = EXIT_STOPPED
    label = "stopped"


class Decision(enum.IntEnum):
    """What to do after a step. With several processes the largest value counts."""

    GO_ON = 0
    SAVE = 1
    STOP = 2


class StopRequest:
    """Records that a training should stop, and why.

    Args:
        time_limit: seconds after ``started``; None = no limit.
        started: ``time.monotonic()`` of the start.
    """

    def __init__(self, time_limit: float | None = None, started: float = 0.0):
        self._deadline = None if time_limit is None else started + time_limit
        self._signal: str | None = None

    @property
    def reason(self) -> str | None:
        """Why to stop; None = continue."""
        if self._signal is not None:
            return self._signal
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return "time limit"
        return None

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Handle SIGTERM, SIGUSR1 and SIGINT as requests to stop. A second SIGINT interrupts at once."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread can handle signals; the caller has to
            return
        before = {number: signal.signal(number, self._remember) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._signal is not None:
            raise KeyboardInterrupt
        self._signal = signal.Signals(number).name


class SavePolicy:
    """Decides after each step whether to save a checkpoint, and whether to stop.

    Args:
        save: writes a checkpoint of a state.
        stop: request to stop.
        every_minutes: time between checkpoints; None = no limit.
        every_steps: steps between checkpoints; None = no limit.
    """

    def __init__(
        self,
        save: Callable[[RunState], None],
        stop: StopRequest,
        every_minutes: float | None = None,
        every_steps: int | None = None,
    ):
        self._write = save
        self._stop = stop
        self._every_seconds = None if every_minutes is None else 60 * every_minutes
        self._every_steps = every_steps
        self._last_save = time.monotonic()
        self._steps = 0

    def decide(self, num_steps: int = 0) -> Decision:
        """Count ``num_steps`` more steps and return what to do."""
        self._steps += num_steps
        if self._stop.reason is not None:
            return Decision.STOP
        late = self._every_seconds is not None and time.monotonic() - self._last_save >= self._every_seconds
        many = self._every_steps is not None and self._steps >= self._every_steps
        return Decision.SAVE if late or many else Decision.GO_ON

    def save(self, state: RunState) -> None:
        """Write a checkpoint."""
        self._write(state)
        self.reset_timer()

    def reset_timer(self) -> None:
        """Restart time and steps to the next checkpoint."""
        self._last_save = time.monotonic()
        self._steps = 0

    def stopped_error(self, state: RunState) -> TrainingStopped:
        """Return the error to raise when the training stops."""
        reason = self._stop.reason or "another process was asked to stop"
        done, step = len(state.history), state.current.step
        where = f"{done} epochs" + (f" and {step} steps" if step else "")
        return TrainingStopped(f"{reason}, after {where}; everything is saved, continue with --resume")
