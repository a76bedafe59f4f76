"""The cluster engine: Parsl's executor with pilot jobs that are replaced when they end."""

import logging
import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

import zmq
from parsl.executors.errors import BadStateException
from parsl.executors.high_throughput.errors import (
    CommandClientBadError,
    CommandClientTimeoutError,
    ManagerLost,
    WorkerLost,
)

from mlpf.engine.base import Engine, EngineFailed, Slot, TaskLost
from mlpf.engine.parsl.configuration import make_executor, pilot_command, words_of
from mlpf.engine.parsl.pilot_jobs import PilotJobs, Provider
from mlpf.engine.parsl.worker import perform, unpack
from mlpf.engine.sites import Site, slots_per_node

_LOOK_SECONDS = 0.5
_ANSWER_SECONDS = 30.0
_END_SECONDS = 10.0


@dataclass(eq=False)
class _Task:
    """A submitted call."""

    name: str
    payload: bytes
    future: Future[Any] = field(default_factory=Future)
    started: bool = False
    losses: int = 0


class ParslEngine(Engine):
    """Workers in pilot jobs on the nodes of a site.

    Only Parsl's executor is used. Parsl's workflow kernel cannot cancel a task, waits for ever for an
    interchange that was killed, and keeps one global state per process. The executor gets at most as many
    tasks as there are slots, so all other tasks can be cancelled.

    Args:
        site: the site.
        nodes: number of nodes.
        run_dir: folder for the files of the engine, visible on all nodes; each start makes a folder in it.
        slot: what each task may use.
        retries: how often a lost task is repeated.
        inside_allocation: use the nodes of the Slurm job that this process runs in.

    Raises:
        ConfigError: the nodes of the site are too small.
        MissingDependency: a program of the provider is missing.
        EngineFailed: it cannot start.
    """

    def __init__(
        self,
        site: Site,
        nodes: int,
        *,
        run_dir: Path,
        slot: Slot,
        retries: int = 1,
        inside_allocation: bool = False,
    ):
        self.slot = slot
        self.num_slots = nodes * slots_per_node(site, slot)
        self._retries = retries
        self._changed = threading.Condition()
        self._waiting: deque[_Task] = deque()
        self._running: set[_Task] = set()
        self._closed = False
        self._failure: EngineFailed | None = None
        self._stop = threading.Event()
        self._local = inside_allocation or site.provider == "local"
        self._folder = run_dir.absolute() / f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"
        self._executor = make_executor(
            *(site, nodes), run_dir=self._folder, slot=slot, inside_allocation=inside_allocation
        )
        (self._folder / "jobs").mkdir(parents=True)
        self._log = _Log(self._folder / "driver.log")
        self._pilot_jobs = PilotJobs(
            cast(Provider, self._executor.provider),
            lambda block, node: pilot_command(self._executor, site, block, node, inside_allocation),
            nodes if inside_allocation else nodes // site.nodes_per_job,
            words_of,
        )
        try:
            self._executor.start()
            self._pilot_jobs.start()
        except BaseException as error:
            self._end()
            if isinstance(error, Exception) and not isinstance(error, EngineFailed):
                raise EngineFailed(f"Parsl cannot start: {words_of(error)}; see {self._folder}") from error
            raise
        self._keeper = threading.Thread(target=self._keep, name="pilot-jobs", daemon=True)
        self._keeper.start()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Give a task to the next free slot."""
        name = f"{function.__module__}.{function.__qualname__}"
        task = _Task(name, pickle.dumps((function, arguments)))
        with self._changed:
            if self._failure is not None:
                raise self._failure
            if self._closed:
                raise RuntimeError("the engine has been shut down")
            self._waiting.append(task)
        self._give_out()
        return task.future

    def shutdown(self, now: bool) -> None:
        """Cancel tasks that have not begun; end all workers, pilot jobs and the interchange."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            waiting, self._waiting = list(self._waiting), deque()
        for task in waiting:
            if not task.future.cancel():  # it was lost before and waits to be repeated
                task.future.set_exception(CancelledError())
        try:
            if not now:
                with self._changed:
                    self._changed.wait_for(lambda: not self._running)
        finally:
            self._stop.set()
            self._keeper.join()
            self._end()
            self._give_up(lambda task: TaskLost(f"{task.name}: the engine was shut down while it ran"))

    def _give_out(self) -> None:
        """Give waiting tasks to the executor, one per slot."""
        while True:
            with self._changed:
                free = self.num_slots - len(self._running)
                if not (self._waiting and free > 0) or self._closed or self._failure is not None:
                    return
                task = self._waiting.popleft()
                if not task.started and not task.future.set_running_or_notify_cancel():
                    continue
                task.started = True
                self._running.add(task)
                try:
                    inner = self._executor.submit(perform, {}, task.payload)
                except Exception as error:  # noqa: BLE001 - a broken executor raises any error
                    problem = error
                    break
            inner.add_done_callback(partial(self._ended, task))
        self._fail(EngineFailed(f"Parsl takes no more tasks: {words_of(problem)}; see {self._folder}"))

    def _ended(self, task: _Task, inner: Future[Any]) -> None:
        """Pass a result to the future, or repeat a lost task. Runs in Parsl's thread for results."""
        error = inner.exception()
        if isinstance(error, BadStateException):
            self._fail(EngineFailed(f"Parsl has ended: {words_of(error)}; see {self._folder}"))
            return
        result = None
        if error is None:
            try:
                result = unpack(inner.result())
            except BaseException as raised:  # noqa: BLE001 - any error of the task goes into its future
                error = raised
        lost = isinstance(error, WorkerLost | ManagerLost)
        if lost:
            task.losses += 1
        with self._changed:
            if task not in self._running:
                return  # the engine has ended meanwhile
            self._running.discard(task)
            again = lost and task.losses <= self._retries and not self._closed
            if again:
                self._waiting.appendleft(task)
            self._changed.notify_all()
        if lost and not again:
            error = TaskLost(f"{task.name}: {error}; tried {task.losses} time(s)")
        if error is None:
            task.future.set_result(result)
        elif not again:
            task.future.set_exception(error)
        self._give_out()

    def _keep(self) -> None:
        """Check interchange and pilot jobs until the engine ends."""
        next_look = 0.0
        while not self._stop.wait(_LOOK_SECONDS):
            code = self._executor.interchange_proc.poll() if self._executor.interchange_proc else None
            if code is not None:
                how = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
                self._fail(EngineFailed(f"Parsl's interchange has ended ({how}); see {self._folder}"))
                return
            if time.monotonic() < next_look:
                continue
            with self._changed:
                wanted = bool(self._waiting or self._running)
            try:
                self._pilot_jobs.look(self._connected, wanted)
            except EngineFailed as error:
                self._fail(EngineFailed(f"{error}; see {self._folder}"))
                return
            except Exception:
                logging.getLogger(__name__).exception("looking at pilot jobs")
            next_look = time.monotonic() + (1.0 if self._local else 10.0)

    def _connected(self) -> list[str]:
        """Return the ids of all pilot jobs whose workers have connected at some time."""
        try:
            return list(self._executor.command_client.run("CONNECTED_BLOCKS", timeout_s=_ANSWER_SECONDS))
        except (CommandClientTimeoutError, CommandClientBadError):
            raise EngineFailed("Parsl's interchange does not answer") from None

    def _fail(self, error: EngineFailed) -> None:
        """Set an error on the futures of all tasks."""
        with self._changed:
            self._failure = self._failure or error
        self._give_up(lambda _: error)

    def _give_up(self, error: Callable[[_Task], Exception]) -> None:
        with self._changed:
            tasks = [*self._running, *self._waiting]
            self._running, self._waiting = set(), deque()
            self._changed.notify_all()
        for task in tasks:
            if task.started or not task.future.cancelled():
                with suppress(Exception):
                    task.future.set_exception(error(task))

    def _end(self) -> None:
        """Cancel all pilot jobs, end the interchange, wait for processes on this machine."""
        self._pilot_jobs.cancel()
        if self._executor.interchange_proc is not None:
            # Do not wait for messages that no process will read.
            self._executor.outgoing_q.zmq_socket.setsockopt(zmq.LINGER, 0)
            self._executor.shutdown(timeout=_END_SECONDS)
        self._log.close()


class _Log:
    """Write Parsl's log messages of this process to a file instead of the terminal.

    Args:
        path: the file.
    """

    def __init__(self, path: Path):
        self._logger = logging.getLogger("parsl")
        self._propagated = self._logger.propagate
        self._handler = logging.FileHandler(path)
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._logger.addHandler(self._handler)
        self._logger.propagate = False

    def close(self) -> None:
        """Restore the log handlers."""
        self._logger.removeHandler(self._handler)
        self._logger.propagate = self._propagated
        self._handler.close()
