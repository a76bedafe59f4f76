"""Call a function for many files in parallel and yield results as they come."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, TypeVar

from mlpf.engine.base import Engine, TaskLost
from mlpf.errors import MLPFError

Result = TypeVar("Result")

_MOST_NAMED = 3
# Tasks submitted in addition to those that run, so that no worker has to wait.
_AHEAD = 2


def run_jobs(
    engine: Engine, function: Callable[..., Result], jobs: Sequence[tuple[Any, ...]], names: Sequence[str]
) -> Iterator[Result]:
    """Call ``function(*job)`` for every job and yield the results as they come.

    Args:
        engine: runs the calls.
        function: importable; its return values and errors must be picklable.
        jobs: arguments of each call.
        names: name of each job, for the error.

    Raises:
        MLPFError: workers were killed, perhaps for lack of memory. All other results are yielded first.
        Exception: an error of ``function``. Jobs that have not begun are dropped.
    """
    left = iter(zip(jobs, names, strict=True))
    running: dict[Future[Result], str] = {}
    unfinished = []
    most = 1 if engine.num_slots == 1 else engine.num_slots + _AHEAD
    try:
        while True:
            while len(running) < most and (following := next(left, None)) is not None:
                job, name = following
                running[engine.submit(function, *job)] = name
            if not running:
                break
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                name = running.pop(future)
                try:
                    result = future.result()
                except TaskLost:
                    unfinished.append(name)
                    continue
                yield result
    finally:
        for future in running:
            future.cancel()
    if unfinished:
        raise _lost(sorted(unfinished), len(jobs))


def _lost(unfinished: Sequence[str], total: int) -> MLPFError:
    named = ", ".join(unfinished[:_MOST_NAMED])
    if len(unfinished) > _MOST_NAMED:
        named += f" and {len(unfinished) - _MOST_NAMED} more"
    return MLPFError(
        f"worker processes were killed, perhaps for lack of memory; {len(unfinished)} of {total} are "
        f"unfinished: {named}; what is finished is kept: run the command again, with fewer workers if memory "
        "is short"
    )
