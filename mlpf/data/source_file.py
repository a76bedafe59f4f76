"""A file of events, opened once: all reading goes through one ``SourceFile``."""

import mmap
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cramjam
import uproot

from mlpf.errors import DataError, one_line
from mlpf.files.checksum import OWN, checksum_of_bytes

PICKLE_SUFFIXES = (".pkl", ".pkl.bz2")
# Exceptions of uproot and the decompressors for bytes that do not fit the headers.
_READ_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    AssertionError,
    NotImplementedError,
    RuntimeError,
    ArithmeticError,
    MemoryError,
    struct.error,
    zlib.error,
    cramjam.DecompressionError,
    uproot.DeserializationError,
)


@contextmanager
def readable_errors(path: Path) -> Iterator[None]:
    """Turn any exception of a damaged ROOT file into a :class:`DataError` of one line."""
    try:
        yield
    except _READ_ERRORS as error:
        raise DataError(
            f"{path}: cannot be read as a ROOT file, it is truncated, damaged or something else "
            f"({one_line(error)}); make or copy it again"
        ) from error


@contextmanager
def open_root(path: Path) -> Iterator[Any]:
    """Open a ROOT file.

    Raises:
        DataError: there is no such file, or it is no ROOT file.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; give an existing ROOT file")
    with readable_errors(path):
        # The dictionary form keeps uproot from reading a colon in the path as an object name.
        file = uproot.open({str(path): None}, handler=uproot.MemmapSource)
    with file:
        yield file


@dataclass(frozen=True)
class SourceFile:
    """An open file.

    Attributes:
        path: its path, for messages and for files beside it.
        num_bytes: its size when it was opened.
        root: the open ROOT file; None for a file of another kind.
        trees: names of the objects at the top of a ROOT file.
        data: all bytes of a file of another kind, mapped into memory.
    """

    path: Path
    num_bytes: int
    root: Any = None
    trees: frozenset[str] = frozenset()
    data: mmap.mmap | None = None

    def checksum(self) -> str:
        """Return the checksum of :func:`mlpf.data.input_files.checksum` for the open file.

        It reads the memory map of the file. If memory is large enough, the bytes stay there for the reader.

        Raises:
            DataError: the file cannot be read.
        """
        if self.data is not None:
            return checksum_of_bytes(self.data, OWN)
        with readable_errors(self.path):
            return checksum_of_bytes(memoryview(self.root.file.source.chunk(0, self.num_bytes).raw_data), OWN)


@contextmanager
def open_source(path: Path) -> Iterator[SourceFile]:
    """Open a file as a ROOT file, or as bytes if it has one of ``PICKLE_SUFFIXES``.

    Raises:
        DataError: there is no such file, it cannot be read or is empty, or it is no ROOT file.
    """
    if not path.name.endswith(PICKLE_SUFFIXES):
        with open_root(path) as file:
            with readable_errors(path):
                trees = frozenset(file.keys(cycle=False, recursive=False))
                num_bytes = int(file.file.source.num_bytes)
            yield SourceFile(path, num_bytes, file, trees)
        return
    if not path.is_file():
        raise DataError(f"{path}: no such file; give an existing file of events")
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(path.open("rb"))
            data = stack.enter_context(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as error:  # the latter for a file of no bytes
            raise DataError(f"{path}: cannot be read ({error}); copy or download it again") from error
        yield SourceFile(path, len(data), data=data)
