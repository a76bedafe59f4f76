"""Checksums of files, as archives and ``md5sum`` publish them."""

import hashlib
from pathlib import Path

ALGORITHMS = ("md5", "sha1", "sha256", "sha512")


def checksum(path: Path, algorithm: str) -> str:
    """Return the checksum of a file, lower-case hexadecimal.

    Args:
        path: the file.
        algorithm: one of ``ALGORITHMS``. They guard against damage; md5 and sha1 not against attack.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
