"""Input files named by the user: files, directories, globs."""

from collections.abc import Sequence
from pathlib import Path

from mlpf.errors import DataError


def base_name(path: Path, suffixes: Sequence[str]) -> str:
    """Return the name without folder and without the longest of ``suffixes`` that it ends with."""
    for suffix in sorted(suffixes, key=len, reverse=True):
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.stem


def expand_inputs(inputs: Sequence[str | Path], suffixes: Sequence[str]) -> list[Path]:
    """Return the files named by files, directories and globs, sorted by base name.

    Args:
        inputs: a file is taken as it is, also if missing; a directory stands for its files with a suffix.
        suffixes: e.g. ``(".root", ".pkl.bz2")``.

    Raises:
        DataError: an input matches nothing, or two files have the same base name.
    """
    found: dict[Path, None] = {}
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            matches = sorted(file for suffix in suffixes for file in path.glob(f"*{suffix}"))
        elif any(c in str(given) for c in "*?[") and not path.exists():
            matches = _glob(path)
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


def _glob(pattern: Path) -> list[Path]:
    try:
        return sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
    except ValueError as error:
        raise DataError(f"{pattern}: not a valid glob ({error})") from None
