"""Input files named by the user: files, directories, globs."""

import glob
from collections.abc import Sequence
from pathlib import Path

from mlpf.errors import DataError
from mlpf.files import checksum as checksums


def base_name(path: Path, suffixes: Sequence[str]) -> str:
    """Return the name without folder and without the longest of ``suffixes`` that it ends with."""
    for suffix in sorted(suffixes, key=len, reverse=True):
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.stem


def expand_inputs(inputs: Sequence[str | Path], suffixes: Sequence[str]) -> list[Path]:
    """Return the files of a list of files, directories and globs, sorted by base name.

    Args:
        inputs: files (also missing ones), directories and globs. A directory, also one that a glob matches,
            means its files with one of the suffixes. A glob matches files with one of the suffixes. Hidden
            names are left out, as in a shell.
        suffixes: e.g. ``(".root", ".pkl.bz2")``.

    Raises:
        DataError: an input matches nothing, or two files have the same base name.
    """
    found: dict[Path, None] = {}
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            matches = _files_in(path, suffixes)
        elif glob.has_magic(str(given)) and not path.exists():
            matches = _matches(path, suffixes)
        else:
            matches = [path]
        if not matches:
            raise DataError(
                f"{given}: no {' or '.join(suffixes)} file there; give files, directories or quoted globs"
            )
        found.update(dict.fromkeys(matches))
    by_name: dict[str, Path] = {}
    for path in found:
        other = by_name.setdefault(base_name(path, suffixes), path)
        if other.resolve() != path.resolve():
            raise DataError(
                f"{path} and {other} have the same base name, which must be unique; "
                "process them apart or rename one"
            )
    return sorted(by_name.values(), key=lambda p: p.name)


def checksum(path: Path) -> str:
    """Return our own checksum of a file; reads all of it.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return checksums.checksum(path, checksums.OWN)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error


def _files_in(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    return _matches(Path(glob.escape(str(folder))) / "*", suffixes, with_folders=False)


def _matches(pattern: Path, suffixes: Sequence[str], with_folders: bool = True) -> list[Path]:
    """Return matching files with a suffix, and such files directly in matching directories."""
    found: list[Path] = []
    # Not Path.glob, which also matches hidden names, such as lock files.
    for name in sorted(glob.glob(str(pattern), recursive=True)):  # noqa: PTH207 - see above
        path = Path(name)
        if not path.is_dir():
            found += [path] if name.endswith(tuple(suffixes)) else []
        elif with_folders:
            found += _files_in(path, suffixes)
    return found
