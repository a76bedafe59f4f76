"""Run Parsl's interchange as a process that ends with the driver and prints nothing."""

import os
import runpy
import signal
import sys
import threading
import time

_LOOK_SECONDS = 0.5
_INTERCHANGE = "parsl.executors.high_throughput.interchange"


def main(driver: int, log: str) -> None:
    """Run the interchange. Its configuration comes through standard input.

    Args:
        driver: process id of the driver.
        log: file for output that would go to the terminal.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal: the driver decides
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()
    runpy.run_module(_INTERCHANGE, run_name="__main__")


def _end_with(driver: int) -> None:
    """End this process when the driver ends: its parent process id changes then."""
    while os.getppid() == driver:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
