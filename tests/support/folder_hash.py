"""What a folder holds, to compare before and after."""

import hashlib
from pathlib import Path


def folder_hash(folder: Path) -> dict[str, str]:
    """Return relative path -> hash of the content; of folders, links and files of any name."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found[name] = hashlib.blake2b(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return found
