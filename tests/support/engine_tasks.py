"""Tasks for tests of engines, and a driver that can be killed.

As a program: ``python -m tests.support.engine_tasks SITE.yaml NODES RUN_DIR LOG``, or ``local`` for the pool.
"""

import os
import signal
import sys
import time
from pathlib import Path

MARK = "MLPF_TEST_MARK"


class Awkward(Exception):
    """Cannot be unpickled: its constructor wants two arguments."""

    def __init__(self, one, two):
        super().__init__(one)
        self.two = two


def add(first, second):
    return first + second


def surroundings(seconds=0.0):
    """Return slot, variables, cores and processes of the worker."""
    time.sleep(seconds)
    names = ("MLPF_SLOT", "MLPF_BLOCK_END", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "SLURMD_NODENAME")
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
    raise Awkward("one", "two")


def leave():
    sys.exit(3)


def note(log, words):
    with Path(log).open("a") as stream:
        stream.write(f"{words}\n")


def times(log):
    return len(Path(log).read_text().splitlines())


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
    note(log, f"{os.getpid()} {os.getppid()} {os.environ['MLPF_SLOT']}")
    time.sleep(seconds)


def main(where, nodes, run_dir, log):
    from mlpf.engine.base import Slot
    from mlpf.engine.device_groups import DeviceGroup
    from mlpf.engine.local import LocalEngine
    from mlpf.engine.parsl_engine import ParslEngine
    from mlpf.engine.sites import load_site

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    if where == "local":
        engine = LocalEngine([DeviceGroup()] * 2)
    else:
        engine = ParslEngine(load_site(where), int(nodes), run_dir=Path(run_dir), slot=Slot(), retries=1)
    with engine:
        for future in [engine.submit(stay, log, 600.0) for _ in range(3)]:
            future.result()


if __name__ == "__main__":
    main(*sys.argv[1:])
