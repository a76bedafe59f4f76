"""The pilot jobs of a cluster: as many as asked for; one that ended is replaced while there is work."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol

from mlpf.engine.base import EngineFailed

# A node whose pilot jobs end this often in a row before a worker came up is given up.
MAX_FAILURES = 3
_PAUSE_SECONDS = 5.0


class Provider(Protocol):
    """What is needed of a provider of Parsl."""

    def submit(self, command: str, tasks_per_node: int, job_name: str) -> Any:
        """Submit a job; returns its id."""

    def status(self, job_ids: list[Any]) -> list[Any]:
        """Return the state of each job."""

    def cancel(self, job_ids: list[Any]) -> list[bool]:
        """Cancel jobs; returns what succeeded."""


@dataclass
class _Place:
    """A place for one pilot job at a time.

    Attributes:
        node: its number.
        block: id of the pilot job that is there, None = none.
        job: its number at the scheduler.
        failures: pilot jobs in a row that ended before a worker came up.
        why: what the last of them said.
        not_before: time of the monotonic clock before which no other one is tried.
    """

    node: int
    block: str | None = None
    job: Any = None
    failures: int = 0
    why: str = ""
    not_before: float = 0.0


class Blocks:
    """Keeps pilot jobs alive. Not thread-safe: one thread calls it.

    Args:
        provider: of Parsl.
        command: (block id, node number) -> what a pilot job runs.
        count: pilot jobs at a time.
        words_of: error of ``provider.submit`` -> what the scheduler said.
    """

    def __init__(
        self,
        provider: Provider,
        command: Callable[[str, int], str],
        count: int,
        words_of: Callable[[Exception], str],
    ):
        self._provider, self._command, self._words_of = provider, command, words_of
        self._places = [_Place(node) for node in range(count)]
        self._next_block = 0

    def start(self) -> None:
        """Submit all pilot jobs.

        Raises:
            EngineFailed: the scheduler refuses; what it had taken is cancelled.
        """
        for place in self._places:
            self._submit(place)
            if place.block is None:
                self.cancel()
                raise EngineFailed(f"the scheduler refuses the pilot job: {place.why}")

    def look(self, connected: Callable[[], Collection[str]], wanted: bool) -> None:
        """Find pilot jobs that have ended, and replace them.

        Args:
            connected: returns the ids of all pilot jobs whose workers ever came up.
            wanted: whether there is work; if not, nothing is submitted.

        Raises:
            EngineFailed: no node is left that comes up.
        """
        taken = [place for place in self._places if place.block is not None]
        states = self._provider.status([place.job for place in taken])
        ended = [(place, s) for place, s in zip(taken, states, strict=True) if s.terminal]
        came_up = connected() if ended else ()
        for place, state in ended:
            self._ended(place, state, place.block in came_up)
        for place in self._places:
            free = place.block is None and place.failures < MAX_FAILURES
            if wanted and free and time.monotonic() >= place.not_before:
                self._submit(place)
        if all(place.failures >= MAX_FAILURES for place in self._places):
            raise EngineFailed(
                f"pilot jobs end before a worker comes up, {MAX_FAILURES} times in a row: "
                f"{self._places[0].why}"
            )

    def cancel(self) -> None:
        """Cancel all pilot jobs that have not ended."""
        jobs = [place.job for place in self._places if place.block is not None]
        for place in self._places:
            place.block = None
        for _ in range(MAX_FAILURES):
            if not jobs:
                break
            done = self._provider.cancel(jobs)
            jobs = [job for job, gone in zip(jobs, done, strict=True) if not gone]

    def _submit(self, place: _Place) -> None:
        block = str(self._next_block)
        self._next_block += 1
        try:
            place.job = self._provider.submit(self._command(block, place.node), 1, f"mlpf-{block}")
        except Exception as error:  # noqa: BLE001 - each provider has errors of its own
            self._failed(place, self._words_of(error))
            return
        place.block = block

    def _ended(self, place: _Place, state: Any, came_up: bool) -> None:
        place.block = None
        if came_up:
            place.failures = 0
        else:
            said = " ".join((state.stderr_summary or state.message or "").split())
            self._failed(place, said or "it left no message; do all nodes see the folder of the run?")

    def _failed(self, place: _Place, why: str) -> None:
        place.failures += 1
        place.why = why
        place.not_before = time.monotonic() + _PAUSE_SECONDS * place.failures
