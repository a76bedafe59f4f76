"""Errors a user can cause. Each message says what was given, expected, where, and what to do next."""

# Exit codes of a training in a process of its own: bad input; it cannot be trained; another process still
# trains this run; stopped, continue with --resume (75 is "try again later" in sysexits.h).
EXIT_BAD_INPUT, EXIT_FAILED, EXIT_BUSY, EXIT_STOPPED = 2, 3, 4, 75


class MLPFError(Exception):
    """Base class: the command line prints it as one line and exits.

    Attributes:
        exit_code: of the command line.
        label: what the line begins with.
    """

    exit_code = EXIT_BAD_INPUT
    label = "error"


class ConfigError(MLPFError):
    """A configuration file or override is not valid."""


class DataError(MLPFError):
    """An input file, event or dataset cannot be used."""


class SchemaMismatch(DataError):
    """Columns of a file or dataset differ from those that the code expects."""


class EventTooLong(DataError):
    """An event has more elements than the model takes."""


class OutputNotWritable(DataError):
    """An output cannot be written: no space, no permission. What was finished before is still good."""


class CheckpointError(MLPFError):
    """A checkpoint is missing, incomplete, or belongs to another model."""


class OutputExists(MLPFError):
    """An output path is in the way and nothing allows us to replace it."""


class MissingDependency(MLPFError):
    """An optional package is not installed."""


def how_to_install(*extras: str) -> str:
    """Say how optional packages are installed; the package itself is on no index yet."""
    names = ",".join(extras)
    return f"pip install -e '.[{names}]' in the checkout, or pip install 'FILE.whl[{names}]' with the wheel"


def one_line(error: BaseException, length: int = 200) -> str:
    """Return type and message of a library's error on one line.

    Args:
        error: any error; its message may be empty, or hold a whole log or graph.
        length: most characters that are returned.
    """
    words = " ".join(str(error).split())
    return (f"{type(error).__name__}: {words}" if words else type(error).__name__)[:length]
