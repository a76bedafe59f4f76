"""Keep the pilot jobs of a cluster running: resubmit those that end while there is work."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol

from mlpf.engine.base import EngineFailed

# After so many pilot jobs in a row that ended before a worker connected, a node is given up.
MAX_FAILURES = 3
_PAUSE_SECONDS = 5.0


class Provider(Protocol):
    """The methods of Parsl's providers that are used."""

    def submit(self, command: str, tasks_per_node: int, job_name: str) -> Any:
        """Submit a job; returns its id."""

    def status(self, job_ids: list[Any]) -> list[Any]:
        """Return the state of each job."""

    def cancel(self, job_ids: list[Any]) -> list[bool]:
        """Cancel jobs; returns for each whether it succeeded."""


@dataclass
class _PilotJob:
    """One pilot job. When it ends, another takes its number.

    Attributes:
        node: its number.
        pilot_id: id of the pilot job; None = there is none now.
        job_id: its number at the scheduler.
        failures: pilot jobs in a row that ended before a worker connected.
        why: message of the last one that failed.
        not_before: ``time.monotonic()`` before which no new pilot job is submitted.
    """

    node: int
    pilot_id: str | None = None
    job_id: Any = None
    failures: int = 0
    why: str = ""
    not_before: float = 0.0


class PilotJobs:
    """Keeps a number of pilot jobs running. Not thread-safe: call it from one thread.

    Args:
        provider: provider of Parsl.
        command: (id of the pilot job, node number) -> command of the pilot job.
        count: number of pilot jobs.
        words_of: error of ``provider.submit`` -> message of the scheduler.
    """

    def __init__(
        self,
        provider: Provider,
        command: Callable[[str, int], str],
        count: int,
        words_of: Callable[[Exception], str],
    ):
        self._provider, self._command, self._words_of = provider, command, words_of
        self._pilots = [_PilotJob(node) for node in range(count)]
        self._next_id = 0

    def start(self) -> None:
        """Submit all pilot jobs.

        Raises:
            EngineFailed: the scheduler refuses. Jobs that it has accepted are cancelled.
        """
        for pilot in self._pilots:
            self._submit(pilot)
            if pilot.pilot_id is None:
                self.cancel()
                raise EngineFailed(f"the scheduler refuses the pilot job: {pilot.why}")

    def look(self, connected: Callable[[], Collection[str]], wanted: bool) -> None:
        """Find pilot jobs that have ended and replace them.

        Args:
            connected: returns the ids of all pilot jobs whose workers have connected.
            wanted: whether there is work; if not, no job is submitted.

        Raises:
            EngineFailed: all nodes were given up.
        """
        taken = [pilot for pilot in self._pilots if pilot.pilot_id is not None]
        states = self._provider.status([pilot.job_id for pilot in taken])
        ended = [(pilot, s) for pilot, s in zip(taken, states, strict=True) if s.terminal]
        came_up = connected() if ended else ()
        for pilot, state in ended:
            self._ended(pilot, state, pilot.pilot_id in came_up)
        for pilot in self._pilots:
            free = pilot.pilot_id is None and pilot.failures < MAX_FAILURES
            if wanted and free and time.monotonic() >= pilot.not_before:
                self._submit(pilot)
        if all(pilot.failures >= MAX_FAILURES for pilot in self._pilots):
            raise EngineFailed(
                f"pilot jobs end before a worker connects, {MAX_FAILURES} times in a row: "
                f"{self._pilots[0].why}"
            )

    def cancel(self) -> None:
        """Cancel all pilot jobs that have not ended."""
        jobs = [pilot.job_id for pilot in self._pilots if pilot.pilot_id is not None]
        for pilot in self._pilots:
            pilot.pilot_id = None
        for _ in range(MAX_FAILURES):
            if not jobs:
                break
            done = self._provider.cancel(jobs)
            jobs = [job for job, gone in zip(jobs, done, strict=True) if not gone]

    def _submit(self, pilot: _PilotJob) -> None:
        pilot_id = str(self._next_id)
        self._next_id += 1
        try:
            pilot.job_id = self._provider.submit(self._command(pilot_id, pilot.node), 1, f"mlpf-{pilot_id}")
        except Exception as error:  # noqa: BLE001 - each provider has errors of its own
            self._failed(pilot, self._words_of(error))
            return
        pilot.pilot_id = pilot_id

    def _ended(self, pilot: _PilotJob, state: Any, came_up: bool) -> None:
        pilot.pilot_id = None
        if came_up:
            pilot.failures = 0
        else:
            said = " ".join((state.stderr_summary or state.message or "").split())
            self._failed(pilot, said or "it left no message; check that all nodes see the folder of the run")

    def _failed(self, pilot: _PilotJob, why: str) -> None:
        pilot.failures += 1
        pilot.why = why
        pilot.not_before = time.monotonic() + _PAUSE_SECONDS * pilot.failures
