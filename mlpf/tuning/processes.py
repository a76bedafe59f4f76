"""A process of a search: started on a lifeline, with its output in a file, and again after it died."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import mlpf
from mlpf.engine.device_groups import bind
from mlpf.lifeline import Lifeline

_TAIL_BYTES = 4096
_TAIL_LINES = 5


def started_by() -> list[str]:
    """Return how this program was started, up to its command: its other processes are started alike."""
    words = sys.orig_argv
    if "hypertune" in words:
        return words[: words.index("hypertune")]
    return [sys.executable, str(Path(mlpf.__file__).with_name("pipeline.py"))]


@dataclass(frozen=True)
class Patience:
    """How long and how often; all times in s.

    Attributes:
        first_pause: before a dead process is started again; doubles with each death in a row.
        longest_pause: the pause grows up to this.
        worker_deaths: deaths of a worker in a row, without a trial in between, after which it is given up.
        long_life: a worker that lived so long did not die in a row.
        chief_deaths: so many deaths of the chief, without it listening in between or within
            ``chief_seconds``, end the search.
        chief_seconds: see there.
        listen: until the chief listens.
        leave: that workers have to leave by themselves after the end.
        save: that workers have to save after a request to stop.
        end: from SIGTERM to SIGKILL, for those that have nothing to save.
    """

    first_pause: float = 0.5
    longest_pause: float = 30.0
    worker_deaths: int = 8
    long_life: float = 300.0
    chief_deaths: int = 5
    chief_seconds: float = 60.0
    listen: float = 300.0
    leave: float = 15.0
    save: float = 120.0
    end: float = 10.0


def start_process(
    command: Sequence[str],
    log: Path,
    lifeline: Lifeline,
    environment: Mapping[str, str] | None = None,
    cpus: frozenset[int] = frozenset(),
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own: signals of a terminal reach its parent only.

    Args:
        command: program and arguments.
        log: file that its output is appended to; its folder exists.
        lifeline: the process ends when whoever holds it is gone.
        environment: variables beside those of this process.
        cpus: cores that it is bound to, with all that it starts; empty = any.

    Raises:
        OSError: the file cannot be written or the program not be started.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {}), **lifeline.environment},
            pass_fds=lifeline.pass_fds,
            start_new_session=True,
        )
    # Python is still starting and has one thread: those that come later inherit the cores.
    bind(process.pid, cpus)
    return process


def last_lines(log: Path) -> str:
    """Return the end of a log, a few lines that are not empty."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(log.stat().st_size - _TAIL_BYTES, 0))
            text = stream.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join([line for line in text.splitlines() if line.strip()][-_TAIL_LINES:])


@dataclass
class KeptProcess:
    """A process that is started again after it died.

    Attributes:
        name: of the process.
        command: its command line at the time of a start.
        log: file of its output.
        patience: pauses.
        environment: variables beside those of this process.
        cpus: cores that it is bound to; empty = any.
        process: the running one, None before the first start, in a pause and after the end.
        exit_code: of the last one that ended.
        deaths: in a row.
        over: it is not started again.
        started: ``time.monotonic()`` of the last start.
    """

    name: str
    command: Callable[[], Sequence[str]]
    log: Path
    patience: Patience
    environment: Mapping[str, str] = field(default_factory=dict)
    cpus: frozenset[int] = frozenset()
    process: subprocess.Popen[bytes] | None = None
    exit_code: int = 0
    deaths: int = 0
    over: bool = False
    started: float = 0.0
    _not_before: float = 0.0

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return None if self.process is None else self.process.pid

    def start_if_due(self, lifeline: Lifeline) -> bool:
        """Start the process unless it runs, is over or waits; return whether it was started."""
        if self.process is not None or self.over or time.monotonic() < self._not_before:
            return False
        self.started = time.monotonic()
        self.process = start_process(self.command(), self.log, lifeline, self.environment, self.cpus)
        return True

    def ended(self) -> bool:
        """Return whether the process has ended since the last call; ``exit_code`` tells how."""
        code = None if self.process is None else self.process.poll()
        if code is None:
            return False
        self.process, self.exit_code = None, code
        return True

    def died(self) -> float:
        """Count a death; return the pause before the next start, in s."""
        self.deaths += 1
        pause = min(self.patience.first_pause * 2 ** min(self.deaths - 1, 30), self.patience.longest_pause)
        self._not_before = time.monotonic() + pause
        return pause

    def signal(self, number: int) -> None:
        """Send a signal to the process if it runs."""
        if self.process is not None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """End the process at once, and wait until it is gone."""
        if self.process is not None:
            self.process.kill()
            self.exit_code = self.process.wait()
            self.process = None

    def how_it_ended(self) -> str:
        """Return the exit code or signal in words."""
        return f"signal {-self.exit_code}" if self.exit_code < 0 else f"exit code {self.exit_code}"
