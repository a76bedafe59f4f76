"""Read float arrays from an untrusted pickle without running its code.

A pickle is a program for a stack machine. The machine of this module has only the operations that
dictionaries, lists and arrays need. It imports only the names that NumPy arrays need, and replaces them by
classes of this file, which check their arguments and view existing bytes. It extends the machine of the
standard library that is written in Python. The machine in C allocates memory for any size that a file claims,
and hashes keys of any type.

A few bytes can nest tuples a million deep, or share them such that a loop over one never ends. Therefore no
object of a pickle is hashed, compared as a whole or written into a message before its type is known.
"""

import bz2
import io
import math
import mmap
import pickle
import pickletools
import re
import struct
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpf.data.source_file import SourceFile
from mlpf.errors import DataError, one_line
from mlpf.files.checksum import checksum_of_bytes

MAX_BYTES = 1_000_000_000
# About 30 operations make one array; an operation of one byte makes a list of 60.
MAX_OPERATIONS = 2_000_000
CHECKSUM_SUFFIX = ".md5"
_BLOCK = 1 << 20
_MAX_DIMENSIONS = 2
# Bytes of an array besides its numbers: each operation can add an empty array.
_ARRAY_BYTES = 128
_NDARRAY = object()


class _Refused(Exception):
    """The pickle contains something that arrays do not need."""


class _Type:
    """Replaces ``numpy.dtype``: a float type, whose byte order comes with its state."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any, align: Any = False, copy: Any = True) -> None:
        del align, copy  # the memory layout may be chosen here
        if type(code) is not str or code.lstrip("<>=|") not in ("f4", "f8"):
            given = ascii(code[:30]) if type(code) is str else f"a {type(code).__name__}"
            raise _Refused(f"type {given}, expected f4 or f8")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if type(state) is not tuple or len(state) != 8 or type(state[1]) is not str:
            raise _Refused("a type with an unusual state")
        if state[1] not in ("<", ">", "=", "|") or any(field is not None for field in state[2:5]):
            raise _Refused("a type of several fields")
        self.dtype = self.dtype.newbyteorder(state[1])  # type: ignore[arg-type]  # checked two lines above


class _Array:
    """Replaces ``_reconstruct``: an array, whose shape and numbers come with its state."""

    __slots__ = ("array",)

    def __init__(self, kind: Any, shape: Any, code: Any) -> None:
        if kind is not _NDARRAY or shape != (0,) or code != b"b":
            raise _Refused("an array made in an unusual way")
        self.array: npt.NDArray[np.floating] | None = None

    def __setstate__(self, state: Any) -> None:
        if type(state) is not tuple or len(state) != 5:
            raise _Refused("an array with an unusual state")
        _, shape, kind, fortran, content = state
        if type(kind) is not _Type or type(content) is not bytes:
            raise _Refused("an array of something else than floats")
        if type(shape) is not tuple or len(shape) > _MAX_DIMENSIONS:
            raise _Refused(f"an array of more than {_MAX_DIMENSIONS} dimensions")
        if not all(type(n) is int and 0 <= n <= MAX_BYTES for n in shape):
            raise _Refused("an array whose shape is not made of sizes")
        if math.prod(shape) * kind.dtype.itemsize != len(content):
            raise _Refused(f"an array of shape {shape} with {len(content)} bytes")
        self.array = np.frombuffer(content, kind.dtype).reshape(shape, order="F" if fortran is True else "C")


class _FromBuffer(_Array):
    """Replaces ``_frombuffer``, which makes arrays in protocol 5."""

    __slots__ = ()

    def __init__(self, content: Any, kind: Any, shape: Any, order: Any) -> None:
        self.__setstate__((1, shape, kind, order == "F", content))


# Classes, because a pickle can set attributes of any object without __setstate__.
_IMPORTS = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Type,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _FromBuffer for core in ("core", "_core")},
}


class _Dictionary(dict[str, Any]):
    """Checks the type of a key before it is hashed."""

    __slots__ = ()

    def __setitem__(self, key: Any, value: Any) -> None:
        if type(key) is not str:
            raise _Refused(f"a {type(key).__name__} as key, expected text")
        super().__setitem__(key, value)


class _Operations:
    """The operations that arrays need, by their code, with a counter."""

    _names = (
        "PROTO FRAME STOP MARK EMPTY_LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 SETITEM SETITEMS APPEND "
        "APPENDS NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
        "BINBYTES SHORT_BINBYTES BINBYTES8 BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET GLOBAL STACK_GLOBAL "
        "BUILD"
    )

    def __init__(self) -> None:
        codes = [getattr(pickle, name)[0] for name in self._names.split()]
        self._known: dict[int, Callable[[Any], None]] = {
            **{code: pickle._Unpickler.dispatch[code] for code in codes},
            pickle.BYTEARRAY8[0]: pickle._Unpickler.dispatch[pickle.BINBYTES8[0]],  # allocates nothing
            pickle.EMPTY_DICT[0]: lambda machine: machine.append(_Dictionary()),
            pickle.REDUCE[0]: _call,
        }
        self._left = MAX_OPERATIONS

    def __getitem__(self, code: int) -> Callable[[Any], None]:
        self._left -= 1
        if self._left < 0:
            raise _Refused(f"more than {MAX_OPERATIONS} operations")
        if code not in self._known:
            names = [operation.name for operation in pickletools.opcodes if ord(operation.code) == code]
            raise _Refused(f"operation {(names or [hex(code)])[0]}")
        return self._known[code]


def _call(machine: Any) -> None:
    arguments = machine.stack.pop()
    # Bytes as arguments would become a tuple of eight times their size.
    if type(arguments) is not tuple:
        raise _Refused(f"a call with a {type(arguments).__name__}, expected a tuple")
    machine.stack[-1] = machine.stack[-1](*arguments)


class _Unpickler(pickle._Unpickler):
    """Runs the operations of ``_Operations`` with the imports of ``_IMPORTS``."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self.dispatch = _Operations()  # type: ignore[assignment, misc]  # declared as a class variable

    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) not in _IMPORTS:
            raise _Refused(ascii(f"{module_name}.{global_name}")[1:-1][:80])
        return _IMPORTS[module_name, global_name]


def read_checked(source: SourceFile, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the content of a file, decompressed if it ends in ``.bz2``.

    If ``<name>.md5`` exists, as ``md5sum`` and ``mlpf download`` write it, the checksum is compared.

    Args:
        source: the file, which is no ROOT file.
        max_bytes: largest number of bytes after decompression; reading stops there.

    Raises:
        DataError: too large, not bzip2, truncated, or of another checksum.
    """
    path, data = source.path, source.data
    assert data is not None  # noqa: S101 - the caller has looked at the suffix
    _compare_checksum(path, data)
    data.seek(0)
    content = bytearray()
    try:
        opened: Any = bz2.open(data, "rb") if path.suffix == ".bz2" else nullcontext(data)  # noqa: SIM115
        with opened as stream:
            while block := stream.read(_BLOCK):
                content += block
                if len(content) > max_bytes:
                    raise DataError(
                        f"{path}: holds more than {max_bytes / 1e6:.0f} MB, "
                        "expected about 120 MB for 100 events; use files of fewer events"
                    )
    except (OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read, it is truncated or not bzip2 ({error}); copy or download it again"
        ) from error
    return bytes(content)


def _compare_checksum(path: Path, data: mmap.mmap) -> None:
    sidecar = path.with_name(path.name + CHECKSUM_SUFFIX)
    if not sidecar.is_file():
        return
    try:
        text = sidecar.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise DataError(f"{sidecar}: cannot be read ({error}); remove it or make it again") from error
    found = re.search(r"^([0-9a-fA-F]{32})\b", text, re.MULTILINE)
    if not found:
        raise DataError(f"{sidecar}: holds no md5 checksum; remove it or make it again with md5sum")
    expected, actual = found[1].lower(), checksum_of_bytes(data, "md5")
    if actual != expected:
        raise DataError(
            f"{path}: has md5 {actual}, expected {expected} by {sidecar.name}; copy or download it again"
        )


def load_arrays(content: bytes, where: str, max_bytes: int = MAX_BYTES) -> dict[str, list[npt.NDArray]]:
    """Read a pickled dictionary of lists of float arrays, protocols 3 to 5.

    Args:
        content: the pickle; nothing in it is trusted.
        where: name of the file, for messages.
        max_bytes: largest number of bytes of all arrays; a small file can repeat one array many times.

    Returns:
        The dictionary; arrays of at most two dimensions, float32 or float64, not writeable.

    Raises:
        DataError: the pickle is damaged, or contains anything else.
    """
    try:
        return _arrays(_Unpickler(content).load(), max_bytes)
    except _Refused as refused:
        raise DataError(
            f"{where}: not read, it asks for {refused}; such files hold lists of float arrays only, "
            "get it from its publisher again"
        ) from refused
    except (pickle.UnpicklingError, struct.error, ValueError, TypeError, LookupError, AttributeError,
            EOFError, OverflowError, MemoryError) as error:  # fmt: skip
        raise DataError(
            f"{where}: not a complete pickle ({one_line(error, 100)}); copy or download it again"
        ) from error


def _arrays(loaded: Any, max_bytes: int) -> dict[str, list[npt.NDArray]]:
    if type(loaded) is not _Dictionary:
        raise _Refused(f"a {type(loaded).__name__} at the top, expected a dictionary")
    total = 0
    arrays: dict[str, list[npt.NDArray]] = {}
    for key, items in loaded.items():
        if type(items) is not list:
            raise _Refused(f"an entry {key[:30]!a} that is no list")
        arrays[key] = []
        for item in items:
            if not isinstance(item, _Array) or item.array is None:
                raise _Refused(f"an entry {key[:30]!a} of something else than arrays")
            total += _ARRAY_BYTES + item.array.nbytes
            if total > max_bytes:
                raise _Refused(f"more than {max_bytes / 1e6:.0f} MB of arrays")
            arrays[key].append(item.array)
    return arrays
