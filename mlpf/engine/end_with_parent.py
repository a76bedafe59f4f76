"""Child processes that end with their parent, however it ends.

A pipe joins them: only the parent can write to it, and it never does. When the parent is gone, also after
``kill -9``, the kernel closes the pipe and whoever reads from it learns so. Unlike the signal that Linux can
send at the death of a parent (in truth, of the thread that started the child), this works on every Unix.
"""

import os
import threading
from types import TracebackType

# Number of the end of the pipe that a child reads from.
VARIABLE = "MLPF_LIFELINE"
# What a child exits with; mostly nobody is left to see it.
EXIT_ORPHANED = 70


class Lifeline:
    """The pipe of a parent; all children that it starts may share it.

    Give ``environment`` and ``pass_fds`` to ``subprocess.Popen``. The end for writing reaches no child.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()  # Python closes both when another program is executed

    @property
    def environment(self) -> dict[str, str]:
        """Variables of a child."""
        return {VARIABLE: str(self._read)}

    @property
    def pass_fds(self) -> tuple[int, ...]:
        """What a child inherits."""
        return (self._read,)

    def close(self) -> None:
        """Let go: children that still run end."""
        os.close(self._write)
        os.close(self._read)

    def __enter__(self) -> "Lifeline":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def end_with_parent() -> bool:
    """End this process as soon as the parent that holds its lifeline is gone.

    The variable is removed: children of this process are on a lifeline only if it gives them one of its own.
    They end with it then, and it with its parent.

    Returns:
        Whether the process is on a lifeline.
    """
    text = os.environ.pop(VARIABLE, None)
    if text is None:
        return False
    try:
        descriptor = int(text)
        os.set_inheritable(descriptor, False)
    except (ValueError, OSError):
        return False  # set for a process in between, which did not hand the pipe on
    threading.Thread(target=_wait, args=(descriptor,), name="lifeline", daemon=True).start()
    return True


def _wait(descriptor: int) -> None:
    while os.read(descriptor, 1):
        pass  # nobody writes
    os._exit(EXIT_ORPHANED)
