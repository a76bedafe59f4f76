"""A task that is a program: its output in a log, asked to save in time, ended with its worker."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import mlpf
from mlpf.engine.base import PILOT_END_VARIABLE, PILOT_MARGIN_VARIABLE
from mlpf.engine.end_with_parent import ParentPipe
from mlpf.errors import EXIT_BUSY, EXIT_STOPPED
from mlpf.files.atomic import atomic_write

DRIVER_FILE = "driver.json"
# A program that was asked to stop saves first; it is killed if it needs longer.
SAVE_SECONDS = 120.0

# A file that the driver has written reaches the other nodes of a shared file system after some seconds.
_SHARED_SECONDS = 60.0
# A program of a driver or node that is gone saves before it leaves its run.
_BUSY_SECONDS = 300.0
_NAP_SECONDS = 1.0
_POLL_SECONDS = 0.1
_LOOK_SECONDS = 1.0
_TAIL_BYTES, _TAIL_LINES = 4096, 3

# Why a program was asked to stop: by the driver (or because another driver took over), because its pilot
# job ends, or because it ran for too long.
StopReason = Literal["", "driver", "pilot", "time"]


@dataclass(frozen=True)
class StopConditions:
    """When a program must stop.

    Attributes:
        directory: holds ``driver.json``; the program goes on as long as that names ``driver``.
        driver: id of the driver process that gave the task.
        max_seconds: longest time of this start, None = no limit.
    """

    directory: Path
    driver: str
    max_seconds: float | None = None


@dataclass(frozen=True)
class ChildEnd:
    """How a program ended.

    Attributes:
        code: exit code; negative = the signal that killed it.
        reason: why it was asked to stop, empty if it was not.
        seconds: wall time.
        said: last lines of its log.
    """

    code: int
    reason: StopReason
    seconds: float
    said: str

    @property
    def how(self) -> str:
        """Exit code or signal in words."""
        if self.code >= 0:
            return f"exit code {self.code}"
        memory = " (by the system, if its memory was short)" if self.code == -signal.SIGKILL else ""
        return f"killed by {signal.Signals(-self.code).name}{memory}"


def program_before(command: str) -> list[str]:
    """Return how this program was started, up to a command: its child processes are started alike."""
    words = sys.orig_argv
    if command in words:
        return words[: words.index(command)]
    return [sys.executable, str(Path(mlpf.__file__).with_name("pipeline.py"))]


def announce_driver(directory: Path, driver: str) -> None:
    """Write which driver is in charge: programs of an earlier one save and stop. Atomic."""
    with atomic_write(directory / DRIVER_FILE) as part:
        part.write_text(json.dumps({"driver": driver}), encoding="utf-8")


def ask_all_to_stop(directory: Path) -> None:
    """Ask all programs of this directory to save and stop."""
    announce_driver(directory, "")


def is_in_charge(directory: Path, driver: str) -> bool:
    """Tell whether a driver is still in charge; a file that cannot be read now changes nothing."""
    try:
        return bool(json.loads((directory / DRIVER_FILE).read_text(encoding="utf-8"))["driver"] == driver)
    except (OSError, ValueError, KeyError, TypeError):
        return True


def sees_directory(directory: Path) -> bool:
    """Wait until this node sees what the driver has written; tell whether it does."""
    deadline = time.monotonic() + _SHARED_SECONDS
    while not (directory / DRIVER_FILE).is_file():
        if time.monotonic() > deadline:
            return False
        time.sleep(_NAP_SECONDS)
    return True


def pilot_job_ends() -> bool:
    """Tell whether the pilot job of this worker ends soon: programs must save now."""
    end, margin = os.environ.get(PILOT_END_VARIABLE), os.environ.get(PILOT_MARGIN_VARIABLE)
    return bool(end) and float(end or 0) - time.time() < float(margin or SAVE_SECONDS)


def run_child(
    command: Sequence[str],
    log: Path,
    conditions: StopConditions,
    *,
    environment: Mapping[str, str] | None = None,
    note: Callable[[float], None] = lambda _: None,
) -> ChildEnd:
    """Run a program to its end, or to the moment when it must stop.

    It gets SIGTERM when the driver asks for it, when its pilot job ends soon, or when its time is over. After
    ``SAVE_SECONDS`` more it is killed. It ends with this process, however that ends.

    Args:
        command: program and arguments.
        log: file that its output is appended to; its folder exists.
        conditions: when it must stop.
        environment: variables beside those of this process.
        note: gets the wall time in s about once per second.
    """
    started = time.monotonic()
    with (
        log.open("ab") as output,
        ParentPipe() as pipe,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {}), **pipe.environment},
            pass_fds=pipe.pass_fds,
        ) as process,
    ):
        try:
            reason = _attend(process, conditions, started, note)
        except BaseException:
            process.kill()
            raise
    return ChildEnd(process.returncode, reason, time.monotonic() - started, _last_lines(log))


def run_training(
    command: Sequence[str],
    log: Path,
    conditions: StopConditions,
    *,
    environment: Mapping[str, str] | None = None,
    note: Callable[[float], None] = lambda _: None,
) -> ChildEnd:
    """Run a training as ``run_child`` does, once no earlier process of its run saves any more."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        end = run_child(command, log, conditions, environment=environment, note=note)
        if end.code != EXIT_BUSY or time.monotonic() > deadline:
            return end
        if reason := reason_to_stop(conditions, end.seconds):
            return ChildEnd(EXIT_STOPPED, reason, end.seconds, end.said)
        time.sleep(_NAP_SECONDS)


def _attend(
    process: subprocess.Popen[bytes],
    conditions: StopConditions,
    started: float,
    note: Callable[[float], None],
) -> StopReason:
    """Stay with a program to its end; return why it was asked to stop, empty if it was not."""
    reason: StopReason = ""
    asked = looked = started
    while process.poll() is None:
        now = time.monotonic()
        if now - looked >= _LOOK_SECONDS:
            looked = now
            note(now - started)
            if not reason and (reason := reason_to_stop(conditions, now - started)):
                process.send_signal(signal.SIGTERM)
                asked = now
        if reason and now - asked > SAVE_SECONDS:
            process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_SECONDS)
    return reason


def reason_to_stop(conditions: StopConditions, seconds: float) -> StopReason:
    """Return why a program that has run for some seconds must stop now, empty if it may go on."""
    if not is_in_charge(conditions.directory, conditions.driver):
        return "driver"
    if pilot_job_ends():
        return "pilot"
    if conditions.max_seconds is not None and seconds > conditions.max_seconds:
        return "time"
    return ""


def _last_lines(log: Path) -> str:
    """Return the end of a log, a few lines that are not empty, in one line."""
    with log.open("rb") as stream:
        stream.seek(max(log.stat().st_size - _TAIL_BYTES, 0))
        text = stream.read().decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-_TAIL_LINES:])
