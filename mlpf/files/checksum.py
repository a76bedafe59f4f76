"""Checksums of files and bytes: those that archives and ``md5sum`` publish, and our own."""

import hashlib
import mmap
from pathlib import Path
from typing import Any

# What archives publish.
ALGORITHMS = ("md5", "sha1", "sha256", "sha512")
# What this package writes down: 16 bytes, as short as md5 and faster than it.
OWN = "blake2b"
_OWN_BYTES = 16


def checksum(path: Path, algorithm: str) -> str:
    """Return the checksum of a file, lower-case hexadecimal.

    Args:
        path: the file.
        algorithm: one of ``ALGORITHMS``, or ``OWN``. They guard against damage; md5 and sha1 not against
            attack.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: _new(algorithm)).hexdigest()


def checksum_of_bytes(content: bytes | memoryview | mmap.mmap, algorithm: str) -> str:
    """Return what ``checksum`` does for a file with this content."""
    state = _new(algorithm)
    state.update(content)
    return state.hexdigest()


def _new(algorithm: str) -> Any:
    if algorithm == OWN:
        return hashlib.blake2b(digest_size=_OWN_BYTES)
    return hashlib.new(algorithm, usedforsecurity=False)
