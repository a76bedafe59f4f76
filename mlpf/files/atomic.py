"""Write files so that a final name only ever holds a complete file."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(path: Path, sync: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` on success, remove it on failure.

    The name carries the process id, so that two processes never write the same temporary file.

    Args:
        path: final name.
        sync: also survive a loss of power: file and name are on the disk when the block ends.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        if sync:
            _sync(part)
        part.replace(path)
        if sync:
            _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, synced: it survives a loss of power."""
    with atomic_write(path, sync=True) as part:
        part.write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_json(path: Path, kind: type) -> Any:
    """Return what a JSON file holds; empty if it is missing, damaged or not of this kind."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return kind()
    return content if isinstance(content, kind) else kind()
