"""Wait for what other processes do, for as long as a machine under load may need."""

import time

# A failing test waits this long; one that passes waits no longer than it must.
PATIENCE_SECONDS = 300


def wait_until(condition, what, seconds=PATIENCE_SECONDS):
    """Return when ``condition()`` is true; fail with ``what`` was awaited when the time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not after {seconds} s"
        time.sleep(0.02)
