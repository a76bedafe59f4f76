"""Engines for tests, without worker processes."""

from concurrent.futures import Future, ThreadPoolExecutor

from mlpf.engine.base import Engine, Slot


class ThreadEngine(Engine):
    """Runs tasks in threads of this process; ``before(order)`` may lose or refuse them first."""

    def __init__(self, num_slots=1, slot=None, before=None):
        self.num_slots, self.slot = num_slots, slot or Slot(2)
        self._before = before or (lambda _: None)
        self._pool = ThreadPoolExecutor(num_slots)
        self.orders = []

    def submit(self, function, *arguments):
        self.orders.append(arguments[0])
        return self._pool.submit(self._run, function, *arguments)

    def _run(self, function, order):
        return self._before(order) or function(order)

    def shutdown(self, now):  # noqa: ARG002 - no thread can be killed
        self._pool.shutdown(wait=True)


class ManualEngine(Engine):
    """Runs nothing: the test ends the futures, in the order in which they were submitted."""

    def __init__(self, num_slots=1):
        self.num_slots, self.slot = num_slots, Slot()
        self.futures = []
        self.refuses = None

    def submit(self, function, *arguments):  # noqa: ARG002 - nothing is run
        if self.refuses:
            raise self.refuses
        future = Future()
        future.set_running_or_notify_cancel()
        self.futures.append((future, *arguments))
        return future

    def shutdown(self, now):
        pass


class Recorder(Engine):
    """An engine that tells whether it was shut down."""

    num_slots, slot = 1, Slot()

    def __init__(self, error=None):
        self.ended, self._error = [], error

    def submit(self, function, *arguments):
        if self._error:
            raise self._error
        return super().submit(function, *arguments)

    def shutdown(self, now):
        self.ended.append(now)
