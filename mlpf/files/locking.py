"""Locks: only one process, or the jobs of one array, may write an output at a time.

The kernel holds the locks (``flock``). It releases them when the process ends, even by ``kill -9``. The lock
files stay behind; a file that no process has locked means nothing.
"""

import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mlpf.errors import OutputExists

Item = TypeVar("Item")

# Errors of a file system without locks.
_UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
_ATTEMPTS = 40
_PAUSE_SECONDS = 0.05


@dataclass(frozen=True)
class Shard:
    """One job of a job array.

    Attributes:
        index: number of the job, 1 to ``count``.
        count: jobs in the array.
    """

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, items: Sequence[Item]) -> list[Item]:
        """Return every ``count``-th item. The shares of the jobs differ by one item at most."""
        return list(items[self.index - 1 :: self.count])


@contextmanager
def locked(path: Path, what: str, shard: Shard | None = None) -> Iterator[None]:
    """Lock an output while the block runs.

    The jobs of one array share the lock. Each job may hold it only once.

    Args:
        path: lock file; created if missing. Each job of an array also locks a file of its own beside it.
        what: name of the output, for the error.
        shard: job of an array; None = one process does all the work.

    Raises:
        OutputExists: another process holds the lock. The message names it.
    """
    with ExitStack() as stack:
        main = _open(path, stack)
        if shard is None:
            if not _try(main, fcntl.LOCK_EX, path):
                raise _refused(what, _owner(main, path))
            _sign(main, None)
        else:
            _join(main, path, what, shard)
            own_path = path.with_name(f"{path.name}.{shard.index}-of-{shard.count}")
            own = _open(own_path, stack)
            if not _try(own, fcntl.LOCK_EX, own_path):
                raise _refused(f"{what}, shard {shard}", _read(own))
            _sign(own, shard)
        yield


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of an output."""
    if not path.exists():
        return False
    with ExitStack() as stack:
        return not _try(_open(path, stack), fcntl.LOCK_SH, path)


def require_unlocked(path: Path, what: str) -> None:
    """Refuse an output where a process is at work; writes nothing, and promises nothing for later.

    Args:
        path: lock file; need not be there.
        what: what is protected, for the error.

    Raises:
        OutputExists: says who is at work, and what to do.
        OSError: the file may not be written.
    """
    if not path.exists():
        return
    with ExitStack() as stack:
        descriptor = _open(path, stack)
        if not _try(descriptor, fcntl.LOCK_SH, path):
            raise _refused(what, _owner(descriptor, path))


def _open(path: Path, stack: ExitStack) -> int:
    # NFS needs a writable file for an exclusive lock and a readable one for a shared lock.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    stack.callback(os.close, descriptor)
    return descriptor


def _try(descriptor: int, kind: int, path: Path) -> bool:
    """Return whether the lock was granted. On a file system without locks, warn and grant it."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        logging.getLogger(__name__).warning(
            "%s: this file system has no locks (%s); make sure that no other process writes there",
            path.parent,
            error.strerror,
        )
    return True


def _join(descriptor: int, path: Path, what: str, shard: Shard) -> None:
    """Take the shared lock of an array. The first job writes the size of the array into the lock file."""
    for _ in range(_ATTEMPTS):
        if _try(descriptor, fcntl.LOCK_EX, path):
            # No job holds the lock: what the file says is out of date.
            _sign(descriptor, shard)
        if _try(descriptor, fcntl.LOCK_SH, path):
            found = _read(descriptor)
            if found.get("shards") == shard.count:
                return
            raise _refused(f"{what}, shard {shard}", found)
        if _read(descriptor).get("shards") is None:
            break
        time.sleep(_PAUSE_SECONDS)  # another job of the array writes the file
    raise _refused(f"{what}, shard {shard}", _read(descriptor))


def _sign(descriptor: int, shard: Shard | None) -> None:
    owner: dict[str, Any] = {"pid": os.getpid(), "host": socket.gethostname()}
    if shard is not None:
        owner |= {"shard": str(shard), "shards": shard.count}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(owner).encode(), 0)


def _read(descriptor: int) -> dict[str, Any]:
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _owner(descriptor: int, path: Path) -> dict[str, Any]:
    """Return the process that holds the lock; of an array, one of its jobs that still run."""
    owner = _read(descriptor)
    if "shards" not in owner:
        return owner
    for other in sorted(path.parent.glob(f"{path.name}.*-of-{owner['shards']}")):
        with ExitStack() as stack:
            job = _open(other, stack)
            if not _try(job, fcntl.LOCK_SH, other):
                return _read(job)
    return owner


def _refused(what: str, owner: dict[str, Any]) -> OutputExists:
    who = f"process {owner.get('pid', 'unknown')} on {owner.get('host', 'an unknown host')}"
    if "shard" in owner:
        who += f" (shard {owner['shard']})"
    return OutputExists(
        f"{what}: {who} is at work there; wait until it ends, stop it, or choose another output"
    )


def remove_stale_parts(folder: Path, names: Collection[str]) -> None:
    """Remove temporary files that ``atomic_write`` left for some names when its process was killed.

    Args:
        folder: folder of the files.
        names: final names. The caller must hold the lock of the output.
    """
    for part in folder.glob(".*.part"):
        final, _, _process_id = part.stem.removeprefix(".").rpartition(".")
        if final in names:
            part.unlink(missing_ok=True)
