"""Keep the chief and the workers of a search alive until it is over or asked to stop."""

import contextlib
import json
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mlpf.engine.device_groups import NO_GPUS, DeviceGroup
from mlpf.errors import MLPFError
from mlpf.lifeline import Lifeline
from mlpf.tuning.processes import KeptProcess, Patience, last_lines, started_by
from mlpf.tuning.state import CHIEF_FILE, LOGS_FOLDER, read_search

_POLL_SECONDS = 0.1
_TICK_SECONDS = 1.0
# Exit code of a process that was started wrongly: to try again is of no use.
_BAD_INPUT = 2


class SearchFailed(MLPFError):
    """A search gave up, or ended without a completed trial."""

    exit_code = 1


class Stop(Protocol):
    """A request to stop."""

    @property
    def reason(self) -> str | None:
        """Why to stop, None = go on."""


class View(Protocol):
    """Something that shows a search to the user."""

    def update(self) -> None:
        """Show how it stands; called about once per second."""

    def close(self) -> None:
        """Show how it ended."""


@dataclass(frozen=True)
class ChiefPlace:
    """Where a chief listens.

    Attributes:
        address: that it binds to.
        port: 0 = one that is free.
    """

    address: str
    port: int


def read_chief(directory: Path) -> dict[str, Any]:
    """Return what the chief wrote about itself, nothing before it listens."""
    try:
        data = json.loads((directory / CHIEF_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


class Launcher:
    """The chief, unless it runs on another node, and the workers of this one.

    Args:
        directory: of the search.
        names: ids of the workers.
        groups: what each of them may use.
        uid: of this launcher, other than that of any before it.
        say: prints a line for the user.
        place: where the chief listens; None = it runs elsewhere.
        chief_at: ``HOST:PORT`` of a chief that runs elsewhere; None = as its file says.
        ended_elsewhere: of a search whose chief runs elsewhere: whether that has ended, how ever.
        program: how to start this program; None = as this process was.
        patience: how long and how often.
    """

    def __init__(
        self,
        directory: Path,
        names: Sequence[str],
        groups: Sequence[DeviceGroup],
        uid: str,
        say: Callable[[str], None],
        *,
        place: ChiefPlace | None = None,
        chief_at: str | None = None,
        ended_elsewhere: Callable[[], bool] = lambda: False,
        program: Sequence[str] | None = None,
        patience: Patience | None = None,
    ):
        self._directory, self._say, self._place = directory, say, place
        self._ended_elsewhere = ended_elsewhere
        self._patience = patience or Patience()
        logs = directory / LOGS_FOLDER
        base = [*(program or started_by()), "hypertune"]
        self._workers = []
        for name, group in zip(names, groups, strict=True):
            command = [*base, "worker", str(directory), "--id", name, "--launcher", uid]
            command += ["--num-cpus", str(group.num_cpus), "--gpus", str(group.num_gpus)]
            command += ["--chief", chief_at] if chief_at else []
            self._workers.append(
                KeptProcess(
                    name,
                    lambda command=command: command,  # type: ignore[misc]
                    logs / f"{name}.log",
                    self._patience,
                    group.environment,
                    group.cpus,
                )
            )
        self._chief = None
        if place is not None:
            start = [*base, "chief", str(directory), "--address", place.address, "--port"]
            self._chief = KeptProcess(
                "chief", lambda: [*start, str(self._port)], logs / "chief.log", self._patience, NO_GPUS
            )
        self._port = place.port if place is not None else 0
        self._listening = place is None
        self._stale: tuple[int, int] | None = None
        self._chief_deaths: list[float] = []
        self._trials_of: dict[str, int] = dict.fromkeys(names, 0)
        self._last_tick = 0.0

    def run(self, stop: Stop, view: View) -> str | None:
        """Start all and watch until the end.

        Args:
            stop: is asked all the time.
            view: is kept up to date.

        Returns:
            None if the search is over, else why it was stopped.

        Raises:
            SearchFailed: the chief, or all workers, die again and again.
            KeyboardInterrupt: the user insists; all processes have ended.
        """
        (self._directory / LOGS_FOLDER).mkdir(exist_ok=True)
        with Lifeline() as lifeline:
            try:
                return self._watch(lifeline, stop, view)
            finally:
                for process in self._all():
                    process.kill()
                with contextlib.suppress(MLPFError):  # the state is damaged: said by whoever needs it
                    view.close()

    def _all(self) -> list[KeptProcess]:
        return [*self._workers, *([self._chief] if self._chief else [])]

    def _watch(self, lifeline: Lifeline, stop: Stop, view: View) -> str | None:
        while True:
            if stop.reason is not None:
                self._stop(view)
                return stop.reason
            if self._chief is not None and self._watch_chief(self._chief, lifeline):
                self._let_workers_leave(view)
                return None
            for worker in self._workers:
                self._watch_worker(worker, lifeline)
            if self._workers_are_through(view):
                return None
            self._tick(view)
            time.sleep(_POLL_SECONDS)

    def _watch_chief(self, chief: KeptProcess, lifeline: Lifeline) -> bool:
        """Start the chief, see whether it listens or died; return whether the search is over."""
        if chief.process is None:
            self._stale = _stamp(self._directory)  # of another one; process ids come again after a restart
        if chief.start_if_due(lifeline):
            self._listening = False
        if chief.ended():
            if chief.exit_code == 0:
                chief.over = True
                return True
            self._chief_died(chief)
        elif chief.process is not None and not self._listening:
            said = read_chief(self._directory)
            if said.get("pid") == chief.pid and _stamp(self._directory) != self._stale:
                self._listening, chief.deaths = True, 0
                # After a death, the same port: workers elsewhere know no other.
                self._port = int(said.get("port", self._port))
            elif time.monotonic() - chief.started > self._patience.listen:
                chief.signal(signal.SIGKILL)  # counted as a death in the next round
        return False

    def _chief_died(self, chief: KeptProcess) -> None:
        wanted = self._place.port if self._place is not None else 0
        useless = chief.exit_code == _BAD_INPUT and self._port == wanted
        if not self._listening:
            self._port = wanted  # perhaps somebody else took the port of before
        self._listening = False
        now = time.monotonic()
        recent = [t for t in self._chief_deaths if now - t < self._patience.chief_seconds]
        self._chief_deaths = [*recent, now]
        pause = chief.died()
        how = chief.how_it_ended()
        often = max(len(self._chief_deaths), chief.deaths)
        if useless or often >= self._patience.chief_deaths:
            times = "" if useless else f", {often} times in a row"
            raise _given_up(f"the chief ended with {how}{times}", chief)
        self._say(f"chief: died ({how}), starts again in {pause:g} s; see {chief.log}")

    def _watch_worker(self, worker: KeptProcess, lifeline: Lifeline) -> None:
        if worker.ended():
            if worker.exit_code == 0:  # it was told that the search is over
                worker.over = True
                return
            self._worker_died(worker)
        if self._listening:
            worker.start_if_due(lifeline)

    def _worker_died(self, worker: KeptProcess) -> None:
        trials = self._num_ended_trials(worker.name)
        lived = time.monotonic() - worker.started
        if trials > self._trials_of[worker.name] or lived >= self._patience.long_life:
            worker.deaths = 0
        self._trials_of[worker.name] = trials
        pause = worker.died()
        how = worker.how_it_ended()
        if worker.exit_code == _BAD_INPUT or worker.deaths >= self._patience.worker_deaths:
            worker.over = True
            self._say(f"{worker.name}: given up ({how}, {worker.deaths} in a row); see {worker.log}")
            if all(w.over and w.exit_code for w in self._workers):
                raise _given_up(f"all workers are given up, {worker.name} last ({how})", worker)
            return
        self._say(f"{worker.name}: died ({how}), starts again in {pause:g} s; see {worker.log}")

    def _num_ended_trials(self, name: str) -> int:
        """Return how many trials a worker has brought to an end."""
        try:
            trials = read_search(self._directory).trials
        except MLPFError:
            return 0
        return sum(t.worker == name and t.status in ("completed", "failed") for t in trials)

    def _workers_are_through(self, view: View) -> bool:
        """Return whether nothing is left to do here, or the search has ended without us noticing."""
        if self._chief is None and self._ended_elsewhere():
            self._stop(view)
            return True
        if not all(w.over for w in self._workers):
            return False
        if self._chief is not None:  # it tells those of other nodes that the search is over, then leaves
            self._wait([self._chief], self._patience.save, view)
            self._end([self._chief], self._patience.end, view)
        return True

    def _let_workers_leave(self, view: View) -> None:
        self._wait(self._workers, self._patience.leave, view)
        self._end(self._workers, self._patience.end, view)

    def _stop(self, view: View) -> None:
        """Let the workers save, then end the chief, which they tell how far they got."""
        self._end(self._workers, self._patience.save, view)
        if self._chief is not None:
            self._end([self._chief], self._patience.end, view)

    def _end(self, processes: Sequence[KeptProcess], seconds: float, view: View) -> None:
        """Ask processes to end; end those that did not after some time."""
        for process in processes:
            process.signal(signal.SIGTERM)
        self._wait(processes, seconds, view)
        for process in processes:
            if process.process is not None:
                self._say(f"{process.name}: did not end within {seconds:g} s of SIGTERM, killed")
                process.kill()

    def _wait(self, processes: Sequence[KeptProcess], seconds: float, view: View) -> None:
        """Wait until processes have ended, for some time at most."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for process in processes:
                process.ended()
            if all(process.process is None for process in processes):
                return
            self._tick(view)
            time.sleep(_POLL_SECONDS)

    def _tick(self, view: View) -> None:
        if time.monotonic() - self._last_tick >= _TICK_SECONDS:
            self._last_tick = time.monotonic()
            with contextlib.suppress(MLPFError):  # said at the end
                view.update()


def _stamp(directory: Path) -> tuple[int, int] | None:
    """Identify the file of a chief; another one has another number or time."""
    try:
        found = (directory / CHIEF_FILE).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _given_up(what: str, process: KeptProcess) -> SearchFailed:
    said = last_lines(process.log)
    error = SearchFailed(
        f"{what}; {process.log} ends with:\n{said}" if said else f"{what}; see {process.log}"
    )
    if process.exit_code == _BAD_INPUT:
        error.exit_code = _BAD_INPUT
    return error
