"""The engine of one machine: a process of the standard library's pool for each slot."""

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

# What terminals and batch systems send to a whole group of processes.
_GROUP_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGUSR1})

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class InProcessEngine(Engine):
    """Runs a task in this process, when it is submitted: for one worker no other process is needed."""

    num_slots = 1
    slot = Slot()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run the task; the future has its result or its error."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:  # noqa: BLE001 - whatever the function raises belongs to its future
            future.set_exception(error)
        return future

    def shutdown(self, now: bool) -> None:
        """Nothing runs."""


@dataclass
class _Task:
    """A call that waits or runs."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    future: Future[Any] = field(default_factory=Future)
    started: bool = False
    losses: int = 0


class LocalEngine(Engine):
    """Worker processes on this machine, one task at a time each.

    Every worker is a pool of its own: when a worker is killed, exactly one task is known to be lost, and the
    other workers go on. Workers are started when they are first needed. They ignore Ctrl-C, SIGTERM
    and SIGUSR1, which reach them too when a whole group of processes gets them: the process that owns the
    engine decides. When that process is gone, also by ``kill -9``, they end at once.

    Args:
        groups: GPUs and cores of each worker.
        retries: times that a lost task is tried again.
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
        """Give a task to the next worker that is free."""
        task = _Task(function, arguments)
        with self._lock:
            if self._closed:
                raise RuntimeError("the engine has been shut down")
            self._waiting.append(task)
        self._give_out()
        return task.future

    def shutdown(self, now: bool) -> None:
        """End all workers; tasks that have not begun are cancelled."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = list(self._waiting), deque()
        for task in waiting:
            if not task.future.cancel():  # it was lost once, and waits for another attempt
                task.future.set_exception(CancelledError())
        for worker in self._workers:
            worker.close(now)

    def _give_out(self) -> None:
        """Start waiting tasks on idle workers."""
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
        """Hand a result on, or try a lost task again. Runs in a thread of the worker's pool."""
        error = CancelledError() if inner.cancelled() else inner.exception()
        lost = isinstance(error, BrokenProcessPool)
        if lost:
            worker.renew()
            task.losses += 1
            if task.losses > self._retries or self._closed:
                error = TaskLost(
                    f"{_name(task)}: its worker {worker.name} was killed, perhaps for its memory; tried "
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
    """One worker process and its replacements.

    Args:
        name: of the slot.
        group: GPUs and cores.
    """

    def __init__(self, name: str, group: DeviceGroup):
        self.name, self._group = name, group
        # Threads of pools and the owner of the engine come here.
        self._lock = threading.Lock()
        self._closed = False
        self._pool: ProcessPoolExecutor | None = None
        self._broken: ProcessPoolExecutor | None = None
        self._hold: Connection | None = None

    def start(self, task: _Task) -> Future[Any]:
        """Run a task; the future fails with ``BrokenProcessPool`` if the worker dies in it."""
        with self._lock:
            if self._closed:
                refused: Future[Any] = Future()
                refused.set_exception(CancelledError())
                return refused
            try:
                return self._submit(task)
            except BrokenProcessPool:  # the worker died while it had nothing to do: nothing is lost
                self._forget()
                return self._submit(task)

    def renew(self) -> None:
        """Forget a worker that died; the next task starts a new worker."""
        with self._lock:
            self._forget()

    def close(self, now: bool) -> None:
        """End the worker, after its task or at once; no other one follows."""
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
        """Let a broken pool end by itself.

        While a pool says that it is broken, in this thread, it holds the lock that its shutdown takes, and
        that its removal from memory takes too: it is kept until a later pool breaks.
        """
        self._let_go()
        self._broken, self._pool = self._pool, None

    def _let_go(self) -> None:
        if self._hold is not None:
            self._hold.close()
            self._hold = None


@contextmanager
def _signals_held() -> Iterator[None]:
    """Hold signals back from this thread, and from a process that it starts until that is ready for them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(held: Connection, environment: Mapping[str, str], cpus: frozenset[int]) -> None:
    """Make a worker ready, before anything heavy is imported in it."""
    for number in _GROUP_SIGNALS:
        # A handler, unlike SIG_IGN, is not handed down to programs that a task starts.
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
    """End this worker when its parent lets go of it, or is gone: it would wait for work for ever."""
    connection.wait(ends)
    os._exit(1)


def _name(task: _Task) -> str:
    return f"{task.function.__module__}.{task.function.__qualname__}"
