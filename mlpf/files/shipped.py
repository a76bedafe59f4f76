"""Folders of the repository that the wheel holds inside the package: configurations, jobs for Slurm."""

from pathlib import Path

from mlpf.errors import DataError

_PACKAGE = Path(__file__).resolve().parents[1]


def shipped_folder(name: str) -> Path:
    """Return where a folder is: in an installed wheel inside the package, in a checkout beside it.

    Args:
        name: relative to the top of the repository, such as ``parameters``; `pyproject.toml` lists them.

    Raises:
        DataError: the installation is not complete.
    """
    for parent in (_PACKAGE, _PACKAGE.parent):
        if (parent / name).is_dir():
            return parent / name
    raise DataError(f"{_PACKAGE / name}: missing, the installation of mlpf is not complete; install it again")
