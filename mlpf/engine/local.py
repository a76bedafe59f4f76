"""Engines of this machine: the current process, or one worker process per slot."""

import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import Pipe, connection, get_context, parent_process
from multiprocessing.connection import Connection
from typing import Any

from mlpf.engine.base import SLOT_VARIABLE, Engine, Slot, TaskLost
from mlpf.machine.allocation import DeviceGroup, bind
from mlpf.machine.tensorflow_noise import quieten_tensorflow

# Signals that terminals and batch systems send to a whole process group.
_GROUP_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGUSR1})

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class InProcessEngine(Engine):
    """Runs each task in this process when it is submitted."""

    num_slots = 1
    slot = Slot()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run the task and return a finished future."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:  # noqa: BLE001 - any error of the function goes into its future
            future.set_exception(error)
        return future

    def shutdown(self, now: bool) -> None:
        """Do nothing: no task runs between calls."""


@dataclass
class _Task:
    """A submitted call."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    future: Future[Any] = field(default_factory=Future)
    started: bool = False
    losses: int = 0


class LocalEngine(Engine):
    """Worker processes on this machine, each with one task at a time.

    Every worker is a pool of one process: if it is killed, only its own task is lost. Workers start when they
    are first needed. They ignore SIGINT, SIGTERM and SIGUSR1, which a whole process group may get: the
    process that owns the engine handles them. Workers end when that process ends, even by ``kill -9``.

    Args:
        groups: GPUs and cores of each worker.
        retries: how often a lost task is repeated.
    """

    def __init__(self, groups: Sequence[DeviceGroup], retries: int = 0):
        self.num_slots = len(groups)
        self.slot = Slot(groups[0].num_cpus, groups[0].num_gpus)
        self._retries = retries
        self._lock = threading.Lock()
        self._waiting: deque[_Task] = deque()
        host = socket.gethostname()
        self._idle = [_Worker(f"{host}-{number}", group) for number, group in enumerate(groups)]
        self._workers = tuple(self._idle)
        self._closed = False

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Give a task to the next free worker."""
        task = _Task(function, arguments)
        with self._lock:
            if self._closed:
                raise RuntimeError("the engine has been shut down")
            self._waiting.append(task)
        self._give_out()
        return task.future

    def shutdown(self, now: bool) -> None:
        """Cancel tasks that have not begun and end all workers."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = list(self._waiting), deque()
        for task in waiting:
            if not task.future.cancel():  # it was lost before and waits to be repeated
                task.future.set_exception(CancelledError())
        for worker in self._workers:
            worker.close(now)

    def _give_out(self) -> None:
        """Give waiting tasks to idle workers."""
        while True:
            with self._lock:
                if not (self._idle and self._waiting) or self._closed:
                    return
                task = self._waiting.popleft()
                if not task.started and not task.future.set_running_or_notify_cancel():
                    continue
                task.started = True
                worker = self._idle.pop(0)
            worker.start(task).add_done_callback(partial(self._ended, worker, task))

    def _ended(self, worker: "_Worker", task: _Task, inner: Future[Any]) -> None:
        """Pass a result to the future, or repeat a lost task. Runs in a thread of the worker's pool."""
        error = CancelledError() if inner.cancelled() else inner.exception()
        lost = isinstance(error, BrokenProcessPool)
        if lost:
            worker.renew()
            task.losses += 1
            if task.losses > self._retries or self._closed:
                error = TaskLost(
                    f"{_name(task)}: its worker {worker.name} was killed, perhaps for lack of memory; tried "
                    f"{task.losses} time(s)"
                )
                lost = False
        with self._lock:
            self._idle.append(worker)
            if lost:
                self._waiting.appendleft(task)
        if error is None:
            task.future.set_result(inner.result())
        elif not lost:
            task.future.set_exception(error)
        self._give_out()


class _Worker:
    """One worker process. If it dies, another process replaces it.

    Args:
        name: of the slot.
        group: GPUs and cores.
    """

    def __init__(self, name: str, group: DeviceGroup):
        self.name, self._group = name, group
        # Used by threads of pools and by the owner of the engine.
        self._lock = threading.Lock()
        self._closed = False
        self._pool: ProcessPoolExecutor | None = None
        self._broken: ProcessPoolExecutor | None = None
        self._hold: Connection | None = None

    def start(self, task: _Task) -> Future[Any]:
        """Run a task. Its future raises ``BrokenProcessPool`` if the worker dies."""
        with self._lock:
            if self._closed:
                refused: Future[Any] = Future()
                refused.set_exception(CancelledError())
                return refused
            try:
                return self._submit(task)
            except BrokenProcessPool:  # the worker died while idle: no task is lost
                self._forget()
                return self._submit(task)

    def renew(self) -> None:
        """Drop the pool of a worker that died. The next task starts a new one."""
        with self._lock:
            self._forget()

    def close(self, now: bool) -> None:
        """End the worker for good, after its task or at once."""
        with self._lock:
            self._closed = True
            pool = self._pool
            if now:
                self._let_go()
        if pool is not None:
            pool.shutdown(wait=True)
        with self._lock:
            self._let_go()

    def _submit(self, task: _Task) -> Future[Any]:
        if self._pool is None:
            self._pool = self._open()
        with _signals_held():  # the process starts here
            return self._pool.submit(task.function, *task.arguments)

    def _open(self) -> ProcessPoolExecutor:
        # The worker ends when the other end of the pipe is closed.
        held, self._hold = Pipe(duplex=False)
        environment = {
            **dict.fromkeys(THREAD_VARIABLES, str(self._group.num_cpus)),
            **self._group.environment,
            SLOT_VARIABLE: self.name,
        }
        return ProcessPoolExecutor(
            1,
            # A forked process would inherit threads of uproot and arrow in an unknown state.
            mp_context=get_context("spawn"),
            initializer=_begin,
            initargs=(held, environment, self._group.cpus),
        )

    def _forget(self) -> None:
        """Drop a broken pool without shutting it down.

        While a pool reports in this thread that it is broken, it holds a lock that its shutdown and its
        deletion need. So keep a reference until another pool breaks.
        """
        self._let_go()
        self._broken, self._pool = self._pool, None

    def _let_go(self) -> None:
        if self._hold is not None:
            self._hold.close()
            self._hold = None


@contextmanager
def _signals_held() -> Iterator[None]:
    """Block signals in this thread, and in a process that it starts until that process has its handlers."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(held: Connection, environment: Mapping[str, str], cpus: frozenset[int]) -> None:
    """Set up a worker process before it imports anything heavy."""
    for number in _GROUP_SIGNALS:
        # Programs that a task starts would inherit SIG_IGN, but they do not inherit a handler.
        signal.signal(number, lambda *_: None)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _GROUP_SIGNALS)
    os.environ.update(environment)
    quieten_tensorflow()
    bind(os.getpid(), cpus)
    parent = parent_process()
    ends = [held] if parent is None else [held, parent.sentinel]
    threading.Thread(target=_end_with, args=(ends,), daemon=True).start()


def _end_with(ends: Sequence[Any]) -> None:
    """End this worker when its parent closes the pipe or ends. It would wait for tasks for ever."""
    connection.wait(ends)
    os._exit(1)


def _name(task: _Task) -> str:
    return f"{task.function.__module__}.{task.function.__qualname__}"
