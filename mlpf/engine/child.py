"""Run a program as a task: write its log, stop it in time to save, end it with its worker."""

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
# Time for a program to save after SIGTERM. Then it is killed.
SAVE_SECONDS = 120.0

# A file of the driver appears on other nodes of a shared file system after some seconds.
_SHARED_SECONDS = 60.0
# An earlier process of the same run may still save. Wait this long for it.
_BUSY_SECONDS = 300.0
_NAP_SECONDS = 1.0
_POLL_SECONDS = 0.1
_LOOK_SECONDS = 1.0
_TAIL_BYTES, _TAIL_LINES = 4096, 3

# Why a program was stopped: the driver stopped it or another driver took over; its pilot job ends; its time
# is over. Empty: it was not stopped.
StopReason = Literal["", "driver", "pilot", "time"]


@dataclass(frozen=True)
class StopConditions:
    """When a program must stop.

    Attributes:
        directory: folder of ``driver.json``. The program must stop when the file names another driver.
        driver: id of the driver that gave the task.
        max_seconds: maximum wall time of the program, s; None = no limit.
    """

    directory: Path
    driver: str
    max_seconds: float | None = None


@dataclass(frozen=True)
class ChildEnd:
    """How a program ended.

    Attributes:
        code: exit code; negative = the signal that killed it.
        reason: why it was stopped; empty if it was not.
        seconds: wall time, s.
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
        memory = " (perhaps by the system, for lack of memory)" if self.code == -signal.SIGKILL else ""
        return f"killed by {signal.Signals(-self.code).name}{memory}"


def program_before(command: str) -> list[str]:
    """Return the words before ``command`` on this command line. They start child processes of mlpf."""
    words = sys.orig_argv
    if command in words:
        return words[: words.index(command)]
    return [sys.executable, str(Path(mlpf.__file__).with_name("pipeline.py"))]


def announce_driver(directory: Path, driver: str) -> None:
    """Write the id of the driver. Programs of another driver save and stop. Atomic."""
    with atomic_write(directory / DRIVER_FILE) as part:
        part.write_text(json.dumps({"driver": driver}), encoding="utf-8")


def ask_all_to_stop(directory: Path) -> None:
    """Ask all programs of this directory to save and stop."""
    announce_driver(directory, "")


def is_in_charge(directory: Path, driver: str) -> bool:
    """Return whether a driver is still in charge; True if the file cannot be read now."""
    try:
        return bool(json.loads((directory / DRIVER_FILE).read_text(encoding="utf-8"))["driver"] == driver)
    except (OSError, ValueError, KeyError, TypeError):
        return True


def sees_directory(directory: Path) -> bool:
    """Wait until the driver's file is visible on this node; return whether it is."""
    deadline = time.monotonic() + _SHARED_SECONDS
    while not (directory / DRIVER_FILE).is_file():
        if time.monotonic() > deadline:
            return False
        time.sleep(_NAP_SECONDS)
    return True


def pilot_job_ends() -> bool:
    """Return whether the pilot job of this worker ends soon, so that programs must save now."""
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
    """Run a program until it ends or must stop.

    If it must stop, it gets SIGTERM, and ``SAVE_SECONDS`` later SIGKILL. It also ends when this process ends.

    Args:
        command: program and arguments.
        log: file to append its output to; the folder must exist.
        conditions: when it must stop.
        environment: variables in addition to those of this process.
        note: called about once per second with the wall time in s.
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
    """Run a training with ``run_child``. Wait first if an earlier process of the run still saves."""
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
    """Wait for the end of a program; return why it was stopped, empty if it was not."""
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
    """Return why a program that has run for ``seconds`` must stop now; empty if it may continue."""
    if not is_in_charge(conditions.directory, conditions.driver):
        return "driver"
    if pilot_job_ends():
        return "pilot"
    if conditions.max_seconds is not None and seconds > conditions.max_seconds:
        return "time"
    return ""


def _last_lines(log: Path) -> str:
    """Return the last lines of a log that are not empty, joined to one line."""
    with log.open("rb") as stream:
        stream.seek(max(log.stat().st_size - _TAIL_BYTES, 0))
        text = stream.read().decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-_TAIL_LINES:])
