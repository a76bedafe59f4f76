"""Errors a user can cause. Each message says what was given, expected, where, and what to do next."""


class MLPFError(Exception):
    """Base class: the command line prints it as one line and exits.

    Attributes:
        exit_code: of the command line.
        label: what the line begins with.
    """

    exit_code = 2
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


def one_line(error: BaseException, length: int = 200) -> str:
    """Return type and message of a library's error on one line.

    Args:
        error: any error; its message may be empty, or hold a whole log or graph.
        length: most characters that are returned.
    """
    words = " ".join(str(error).split())
    return (f"{type(error).__name__}: {words}" if words else type(error).__name__)[:length]
