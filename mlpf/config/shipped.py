"""The configurations that come with the package: they are named without folder and suffix."""

import difflib
from pathlib import Path

from mlpf.errors import ConfigError
from mlpf.files.shipped import shipped_folder

_SUFFIX = ".yaml"


def shipped_configurations() -> dict[str, str]:
    """Return name -> what it is, the first line of its file."""
    files = {path.stem: path for path in shipped_folder("parameters").glob(f"*{_SUFFIX}")}
    lines = {name: path.read_text(encoding="utf-8").partition("\n")[0] for name, path in files.items()}
    return {name: lines[name].removeprefix("# ") for name in sorted(lines)}


def shipped_file(name: str) -> Path:
    """Return the file of a configuration of the package.

    Raises:
        ConfigError: there is none of that name; lists those there are.
    """
    known = list(shipped_configurations())
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ConfigError(
            f"{name}: the package has no configuration of this name{hint}, it has {', '.join(known)}; "
            "a file of your own is given with its suffix, such as my.yaml"
        )
    return shipped_folder("parameters") / f"{name}{_SUFFIX}"


def configuration_path(given: str | Path, folder: Path = Path()) -> Path:
    """Return the file that a user means: a path, or the name of a configuration of the package.

    Args:
        given: a path, or a name without folder and suffix. An existing file of that name wins.
        folder: what a path is relative to.

    Raises:
        ConfigError: the package has no configuration of that name.
    """
    path = folder / given
    is_name = Path(given).name == str(given) and not Path(given).suffix
    return shipped_file(str(given)) if is_name and not path.is_file() else path


def instead_of(path: Path) -> str:
    """Say what to give in place of a file that is not there."""
    known = list(shipped_configurations())
    if path.stem in known:
        return f"the package has {path.stem}: give that name, without folder and suffix"
    return f"without a file of your own give one of {', '.join(known)} (mlpf config list)"
