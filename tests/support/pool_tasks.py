"""Functions that tests give to the engines of one machine: workers import them by name."""

import os
import signal
import time
from pathlib import Path

from mlpf.engine.local import THREAD_VARIABLES
from mlpf.errors import DataError
from mlpf.files.atomic import atomic_write
from tests.support.waiting import PATIENCE_SECONDS, wait_until


def square(x):
    """Return the process and the square."""
    return os.getpid(), x * x


def fail(x):
    """Raise an error of a user."""
    raise DataError(f"no {x}")


def fail_once(folder):
    """Raise an error at the first call only."""
    begun(folder, "fail")
    if attempts(folder, "fail") == 1:
        raise DataError("the first time")


def environment(*names):
    """Return variables of the worker."""
    return [os.environ.get(name) for name in names]


def threads():
    """Return what limits the threads of libraries."""
    return environment(*THREAD_VARIABLES)


def cores():
    """Return the cores that the worker may use."""
    return os.sched_getaffinity(0)


def begun(folder, name):
    """Note an attempt of a task, with the process that makes it."""
    folder = Path(folder)
    with atomic_write(folder / f"{name}.{attempts(folder, name) + 1}") as part:
        part.write_text(str(os.getpid()), encoding="utf-8")


def attempts(folder, name):
    """Return how often a task began."""
    return len(list(Path(folder).glob(f"{name}.[0-9]")))


def processes(folder, *names):
    """Return the process of the first attempt of each task, when all have begun."""
    files = [Path(folder) / f"{name}.1" for name in names]
    wait_until(lambda: all(file.exists() for file in files), f"the begin of {', '.join(names)}")
    return [int(file.read_text(encoding="utf-8")) for file in files]


def killed(folder, name, times):
    """Be killed, as if for the memory, in the first ``times`` attempts."""
    begun(folder, name)
    if attempts(folder, name) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return attempts(folder, name)


def killed_after_a_word(folder, name):
    """Wait for the file ``seen``, then be killed; any other name than ``lost`` returns at once."""
    if name == "lost":
        wait_for_file(folder, "seen")
        os.kill(os.getpid(), signal.SIGKILL)
    return name


def wait_for_ever(folder, name):
    """Note the begin, then sleep for longer than a test waits."""
    begun(folder, name)
    time.sleep(2 * PATIENCE_SECONDS)


def wait_first(folder, name):
    """Like ``wait_for_ever`` if the task is called ``a``; the process of another one is idle soon."""
    if name == "a":
        wait_for_ever(folder, name)
    begun(folder, name)


def wait_for_file(folder, name):
    """Return when a file is there."""
    wait_until((Path(folder) / name).exists, name)


def wait_for_a_word(folder, name):
    """Note the begin, then wait for the file ``go``."""
    begun(folder, name)
    wait_for_file(folder, "go")
    return name
