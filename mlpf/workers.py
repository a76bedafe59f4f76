"""Work on files in parallel processes: started afresh, one thread each, and never outliving their parent."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from typing import Any, TypeVar

from mlpf.errors import MLPFError

Result = TypeVar("Result")

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_MOST_NAMED = 3


def run_jobs(
    function: Callable[..., Result], jobs: Sequence[tuple[Any, ...]], names: Sequence[str], workers: int
) -> Iterator[Result]:
    """Call ``function(*job)`` for every job and yield the results as they come.

    Args:
        function: importable; what it returns and raises can be pickled.
        jobs: arguments of each call.
        names: what each job works on, for the error.
        workers: processes; with 1 the work is done in this one.

    Raises:
        MLPFError: a process died, e.g. killed for its memory. Results of finished jobs come before.
        Exception: whatever ``function`` raises; jobs not yet begun are dropped.
    """
    if workers <= 1 or len(jobs) <= 1:
        for job in jobs:
            yield function(*job)
        return
    with (
        _one_thread_per_child(),
        # spawn: a forked process would inherit threads of uproot and arrow in an unknown state.
        ProcessPoolExecutor(
            min(workers, len(jobs)), mp_context=get_context("spawn"), initializer=_die_with_parent
        ) as pool,
    ):
        futures: dict[Future[Result], str] = {}
        unfinished = []
        for job, name in zip(jobs, names, strict=True):
            try:
                futures[pool.submit(function, *job)] = name
            except BrokenProcessPool:  # a process died while work was still given out
                unfinished.append(name)
        try:
            for future in as_completed(futures):
                try:
                    result = future.result()
                except BrokenProcessPool:
                    unfinished.append(futures[future])
                    continue
                yield result
        finally:
            pool.shutdown(cancel_futures=True)
    if unfinished:
        raise _died(sorted(unfinished), len(jobs))


def _died(unfinished: Sequence[str], total: int) -> MLPFError:
    named = ", ".join(unfinished[:_MOST_NAMED])
    if len(unfinished) > _MOST_NAMED:
        named += f" and {len(unfinished) - _MOST_NAMED} more"
    return MLPFError(
        f"a worker process was killed, perhaps for its memory; {len(unfinished)} of {total} are unfinished: "
        f"{named}; what is finished is kept: run the command again, with fewer --workers if memory is short"
    )


@contextmanager
def _one_thread_per_child() -> Iterator[None]:
    """Let processes started inside use one thread each: the processes are the parallelism."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _die_with_parent() -> None:
    """End this worker when its parent is gone: after kill -9 it would wait for work for ever.

    On Ctrl-C it ends at once and in silence; the parent says what there is to say. A parent that ignores
    Ctrl-C, such as one that a script started in the background, has workers that ignore it too.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # inherited
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), daemon=True).start()


def _watch(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
