"""Whether other processes still run."""

from pathlib import Path

import psutil
import pytest

from tests.support.waiting import wait_until

needs_proc = pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="asks /proc")


def alive(pid):
    """Whether the process runs; one that ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pids):
    """Wait for processes to end."""
    wait_until(lambda: not any(map(alive, pids)), f"the end of {pids}")


def no_process_left(directory):
    """Wait until no process names a directory in its command line."""

    def none():
        return not any(str(directory) in (p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"]))

    wait_until(none, f"the end of the processes of {directory}")
