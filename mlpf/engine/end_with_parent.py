"""Child processes that end with their parent, however it ends.

The parent holds the writing end of a pipe and never writes. When the parent ends, even by ``kill -9``, the
kernel closes the pipe. The child, which waits to read, notices and exits. This works on every Unix. Linux has
a signal for it (``PR_SET_PDEATHSIG``), but that depends on the thread that started the child.
"""

import os
import threading
from types import TracebackType

# Holds the file descriptor of the reading end, for the child.
VARIABLE = "MLPF_PARENT_PIPE"
# Exit code of a child whose parent is gone.
EXIT_ORPHANED = 70


class ParentPipe:
    """Pipe between a parent and its children. All children of one parent may share it.

    Give ``environment`` and ``pass_fds`` to ``subprocess.Popen``. No child inherits the writing end.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()  # not inheritable unless passed on

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for the child."""
        return {VARIABLE: str(self._read)}

    @property
    def pass_fds(self) -> tuple[int, ...]:
        """File descriptors for the child."""
        return (self._read,)

    def close(self) -> None:
        """Close the pipe. Children that still run exit."""
        os.close(self._write)
        os.close(self._read)

    def __enter__(self) -> "ParentPipe":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def end_with_parent() -> bool:
    """Make this process exit when its parent is gone, if the parent gave it a ``ParentPipe``.

    The environment variable is removed, so children of this process do not read from the same pipe.

    Returns:
        Whether there is a pipe.
    """
    text = os.environ.pop(VARIABLE, None)
    if text is None:
        return False
    try:
        descriptor = int(text)
        os.set_inheritable(descriptor, False)
    except (ValueError, OSError):
        return False  # the variable was inherited, the pipe was not
    threading.Thread(target=_wait, args=(descriptor,), name="parent-pipe", daemon=True).start()
    return True


def _wait(descriptor: int) -> None:
    while os.read(descriptor, 1):
        pass
    os._exit(EXIT_ORPHANED)
