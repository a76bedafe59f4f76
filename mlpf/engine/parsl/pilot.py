"""The program that a pilot job runs on each node: divides the node among workers and starts Parsl's pool.

Arguments before ``--`` are for this program, those after it for the pool. No process is left at its end.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import FrameType

from mlpf.engine.base import PILOT_END_VARIABLE, PILOT_MARGIN_VARIABLE
from mlpf.engine.local import THREAD_VARIABLES
from mlpf.engine.parsl.worker import GROUPS_VARIABLE
from mlpf.errors import MLPFError
from mlpf.machine.allocation import DeviceGroup, device_groups, usable_cores

_POOL = "parsl.executors.high_throughput.process_worker_pool"


def main(arguments: Sequence[str]) -> int:
    """Run the pool and return its exit code."""
    end = arguments.index("--")
    options = _parser().parse_args(arguments[:end])
    try:
        groups = device_groups(options.slots, options.gpus, options.cpus)
    except MLPFError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the log of the pilot job
        return error.exit_code
    bound = not options.unbound and len(usable_cores()) <= options.cores
    environment = {
        **os.environ,
        **dict.fromkeys(THREAD_VARIABLES, str(options.cpus)),
        # Tasks must save after the pool stops taking tasks, so that none comes back to the same worker.
        PILOT_MARGIN_VARIABLE: str(options.margin / 2),
        GROUPS_VARIABLE: _as_text(groups, bound),
        "PARSL_CORES": str(options.cores),
    }
    drain = _drain_options(os.environ, options.margin)
    command = [sys.executable, "-m", _POOL, *arguments[end + 1 :], *drain]
    pool: subprocess.Popen[bytes] | None = None
    stopped = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        if pool is not None:
            _end_group(pool.pid)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    # Start a process group and end it as a whole: workers would survive a manager that was killed.
    pool = subprocess.Popen(command, env=environment, start_new_session=True)
    if stopped:  # before the pool started
        _end_group(pool.pid)
    code = pool.wait()
    _end_group(pool.pid)
    return code if code >= 0 else 128 - code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mlpf.engine.parsl.pilot")
    parser.add_argument("--slots", type=int, required=True, help="workers on this node")
    parser.add_argument("--cpus", type=int, required=True, help="cores of each")
    parser.add_argument("--gpus", type=int, required=True, help="GPUs of each")
    parser.add_argument("--cores", type=int, required=True, help="cores of the node that the job has")
    parser.add_argument("--margin", type=int, required=True, help="seconds before the end without new tasks")
    parser.add_argument("--unbound", action="store_true", help="do not bind workers to cores")
    return parser


def _as_text(groups: Sequence[DeviceGroup], bound: bool) -> str:
    """Return GPUs and cores of each worker.

    If the process may use more cores than the job has, the scheduler does not bind jobs to cores. Then only
    the number of threads is limited, because chosen cores could belong to another job.
    """
    return json.dumps(
        [{"environment": g.environment, "cpus": sorted(g.cpus) if bound else []} for g in groups]
    )


def _drain_options(environment: Mapping[str, str], margin: int) -> list[str]:
    """Return the option with which the pool takes no task in the last ``margin`` seconds of the job."""
    end = environment.get(PILOT_END_VARIABLE)
    if not end:
        return []
    return [f"--drain_period={max(int(float(end) - time.time()) - margin, 1)}"]


def _end_group(leader: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
