"""One process, or the jobs of one array, per output: a second one is told who is at work.

The locks are those of the kernel (``flock``): they end with their process, also with ``kill -9``. The small
files they are taken on stay; a file without a lock means nothing.
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

# What kernels answer for a file system that cannot lock.
_UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
_ATTEMPTS = 40
_PAUSE_SECONDS = 0.05


@dataclass(frozen=True)
class Shard:
    """One job of an array of jobs that share the work.

    Attributes:
        index: number of the job, 1 to ``count``.
        count: jobs in the array.
    """

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, items: Sequence[Item]) -> list[Item]:
        """Return the part of this job: every ``count``-th item, so that parts differ by one at most."""
        return list(items[self.index - 1 :: self.count])


@contextmanager
def locked(path: Path, what: str, shard: Shard | None = None) -> Iterator[None]:
    """Keep others from working on an output while the block runs.

    Jobs of one array hold the lock together; nobody else, and no job twice.

    Args:
        path: file to lock; made if missing. The jobs of an array lock one more beside it.
        what: what is protected, for the error.
        shard: the job, None = the whole work.

    Raises:
        OutputExists: somebody else holds the lock; says who, and what to do.
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
    """Return whether a process works on an output, by its lock file."""
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
    # Read and write: over NFS an exclusive lock needs the one and a shared lock the other.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    stack.callback(os.close, descriptor)
    return descriptor


def _try(descriptor: int, kind: int, path: Path) -> bool:
    """Return whether the lock was granted; a file system without locks grants everything and is named."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        logging.getLogger(__name__).warning(
            "%s: this file system has no locks (%s); make sure that nobody else writes there",
            path.parent,
            error.strerror,
        )
    return True


def _join(descriptor: int, path: Path, what: str, shard: Shard) -> None:
    """Take the shared lock of an array; the first job signs with the size of the array."""
    for _ in range(_ATTEMPTS):
        if _try(descriptor, fcntl.LOCK_EX, path):
            # Nobody is there, so what is written in the file is of the past.
            _sign(descriptor, shard)
        if _try(descriptor, fcntl.LOCK_SH, path):
            found = _read(descriptor)
            if found.get("shards") == shard.count:
                return
            raise _refused(f"{what}, shard {shard}", found)
        if _read(descriptor).get("shards") is None:
            break
        time.sleep(_PAUSE_SECONDS)  # another job of the array is signing
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
    """Return who holds the lock; of an array, a job that is still at work."""
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
        f"{what}: {who} is at work there; wait until it ends, end it, or choose another output"
    )


def remove_stale_parts(folder: Path, names: Collection[str]) -> None:
    """Remove temporary files that ``atomic_write`` left for some names when its process was killed.

    Args:
        folder: where they are.
        names: final names that nobody else writes now, because the caller holds the lock.
    """
    for part in folder.glob(".*.part"):
        final, _, _process_id = part.stem.removeprefix(".").rpartition(".")
        if final in names:
            part.unlink(missing_ok=True)
