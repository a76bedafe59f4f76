"""Tasks for tests of engines."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

MARK = "MLPF_TEST_MARK"


class Awkward(Exception):
    """Cannot be pickled: it holds a lock.

    A constructor with two arguments would not do: Parsl, once imported, teaches pickle such errors.
    """

    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


def add(first, second):
    return first + second


def surroundings(seconds=0.0):
    """Return slot, variables, cores and processes of the worker."""
    time.sleep(seconds)
    names = ("MLPF_SLOT", "MLPF_PILOT_END", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "SLURMD_NODENAME")
    return {
        **{name: os.environ.get(name) for name in names},
        "cores": sorted(os.sched_getaffinity(0)),
        "pid": os.getpid(),
        "parent": os.getppid(),
    }


def complain(words, log):
    note(log, "complain")
    raise LookupError(words)


def complain_awkwardly():
    raise Awkward("one")


def leave():
    sys.exit(3)


def note(log, words):
    with Path(log).open("a") as stream:
        stream.write(f"{words}\n")


def times(log):
    return len(Path(log).read_text(encoding="utf-8").splitlines())


def die_at_first(log):
    """Kill the worker in the first attempt; return the number of attempts."""
    note(log, os.environ["MLPF_SLOT"])
    if times(log) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return times(log)


def die_always(log):
    note(log, os.environ["MLPF_SLOT"])
    os.kill(os.getpid(), signal.SIGKILL)


def stay_at_first(log, seconds):
    """Say who is at work, and stay there for long in the first attempt; return the number of attempts."""
    note(log, f"{os.getpid()} {os.getppid()} {os.environ['MLPF_SLOT']}")
    if times(log) == 1:
        time.sleep(seconds)
    return times(log)


def stay(log, seconds):
    end = os.environ.get("MLPF_PILOT_END", "never")
    note(log, f"{os.getpid()} {os.getppid()} {os.environ['MLPF_SLOT']} {end}")
    time.sleep(seconds)
