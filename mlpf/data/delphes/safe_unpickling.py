"""Read the arrays out of an untrusted pickle without running anything that it asks for.

A pickle is a program. Before this one runs, its operations are checked against those that dictionaries,
lists and arrays need. What it then imports are stand-ins of ours that only note their arguments; arrays are
made afterwards from the noted bytes, so that no size in the file is believed without its bytes being there.

A few bytes can nest tuples a million deep, or share them so that going through one takes for ever. So nothing
that a pickle built is hashed, compared as a whole or written into a message before its type is known.
"""

import bz2
import hashlib
import io
import math
import mmap
import pickle
import pickletools
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mlpf.data.source_file import SourceFile
from mlpf.errors import DataError

MAX_BYTES = 1_000_000_000
# About 30 operations stand for one array.
MAX_OPERATIONS = 2_000_000
CHECKSUM_SUFFIX = ".md5"
_BLOCK = 1 << 20

_OPERATIONS = frozenset(
    """
    PROTO FRAME STOP MARK EMPTY_DICT EMPTY_LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 SETITEM
    SETITEMS APPEND APPENDS NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINUNICODE
    SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 BINPUT LONG_BINPUT
    MEMOIZE BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD
    """.split()  # noqa: SIM905 - one name per operation would fill the page
)
_BY_CODE = {operation.code.encode("latin1"): operation for operation in pickletools.opcodes}
_FLOATS = frozenset({"f4", "f8"})
_MAX_DIMENSIONS = 2
# What an array costs beside its numbers: an empty one can be named as often as there are operations.
_ARRAY_BYTES = 128


class _Refused(Exception):
    """The pickle asks for something that arrays do not need."""


class _Type:
    """Stands for a ``numpy.dtype`` of floats; the byte order comes with its state."""

    __slots__ = ("_code", "_order")

    def __init__(self, code: str, order: str) -> None:
        self._code, self._order = code, order

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 8 or state[1] not in ("<", ">", "=", "|"):
            raise _Refused("a type with an unusual state")
        if state[2:5] != (None, None, None):
            raise _Refused("a type of several fields")
        self._order = state[1]

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self._order + self._code)


class _Noted:
    """Stands for an array: a shape, a type and the bytes that the file has for it."""

    __slots__ = ("content", "fortran", "shape", "type")

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise _Refused("an array with an unusual state")
        self.note(*state[1:])

    def note(self, shape: Any, kind: Any, fortran: Any, content: Any) -> None:
        if not isinstance(kind, _Type):
            raise _Refused("an array of something else than floats")
        if not isinstance(content, bytes | bytearray):
            raise _Refused(f"an array whose content is a {type(content).__name__}, expected bytes")
        if type(shape) is not tuple or len(shape) > _MAX_DIMENSIONS:
            raise _Refused(f"an array of more than {_MAX_DIMENSIONS} dimensions")
        if not all(type(n) is int and 0 <= n <= MAX_BYTES for n in shape):
            raise _Refused("an array whose shape is not made of sizes")
        if math.prod(shape) * kind.dtype.itemsize != len(content):
            raise _Refused(f"an array of shape {shape} with {len(content)} bytes")
        self.shape, self.type, self.fortran, self.content = shape, kind, bool(fortran), content

    def array(self) -> npt.NDArray[np.floating]:
        if not hasattr(self, "content"):
            raise _Refused("an array without content")
        flat = np.frombuffer(self.content, dtype=self.type.dtype)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


class _Import:
    """Stands for something imported: it can be called, and nothing else can be done to it."""

    __slots__ = ("_call", "_name")

    def __init__(self, name: str, call: Callable[..., Any]) -> None:
        self._name, self._call = name, call

    def __call__(self, *arguments: Any) -> Any:
        try:
            return self._call(*arguments)
        except (TypeError, ValueError, AttributeError) as error:
            raise _Refused(f"{self._name} with arguments it does not take") from error

    def __setstate__(self, state: Any) -> None:
        raise _Refused(f"a change of {self._name}")


def _refuse_call(*_: Any) -> None:
    raise _Refused("a direct call of numpy.ndarray")


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Noted:
    if not isinstance(kind, _Import) or kind is not _IMPORTS["numpy", "ndarray"]:
        raise _Refused("an array of another class")
    if shape != (0,) or code not in (b"b", "b"):
        raise _Refused("an array made in an unusual way")
    return _Noted()


def _dtype(code: Any, align: Any = False, copy: Any = True) -> _Type:
    del align, copy  # says how it is stored in memory, which is ours to choose
    plain = code.lstrip("<>=|") if isinstance(code, str) else ""
    if plain not in _FLOATS:
        given = ascii(code[:30]) if isinstance(code, str) else f"a {type(code).__name__}"
        raise _Refused(f"type {given}, expected f4 or f8")
    return _Type(plain, code[0] if code[0] in "<>" else "=")


def _frombuffer(content: Any, kind: Any, shape: Any, order: Any) -> _Noted:
    noted = _Noted()
    noted.note(shape, kind, order == "F", content)
    return noted


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise _Refused("an unusual encoding")
    return text.encode("latin1")


# Protocol 2 has no bytes: it encodes text, and asks for empty ones by a call.
_IMPORTS = {
    (module, name): _Import(f"{module}.{name}", call)
    for modules, name, call in (
        (("numpy",), "ndarray", _refuse_call),
        (("numpy",), "dtype", _dtype),
        (("numpy.core.multiarray", "numpy._core.multiarray"), "_reconstruct", _reconstruct),
        (("numpy.core.numeric", "numpy._core.numeric"), "_frombuffer", _frombuffer),
        (("_codecs",), "encode", _encode),
        (("__builtin__", "builtins"), "bytes", lambda: b""),
    )
    for module in modules
}


class _Unpickler(pickle._Unpickler):
    """Imports nothing, calls only stand-ins, and knows only the operations that arrays need.

    It is the one written in Python, since only its operations can be replaced; arrays take few of them.
    """

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]
    dispatch: ClassVar[dict[int, Any]] = {
        code[0]: pickle._Unpickler.dispatch[code[0]]
        for code, operation in _BY_CODE.items()
        if operation.name in _OPERATIONS
    }

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="latin1")
        self._can_be_encoded = len(content)

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return _IMPORTS[module_name, global_name]
        except KeyError:
            raise _Refused(ascii(f"{module_name}.{global_name}")[1:-1][:80]) from None

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _store(self.stack[-1], [key, value])

    def _set_items(self) -> None:
        pairs = self.pop_mark()
        _store(self.stack[-1], pairs)

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        function = self.stack[-1]
        if type(function) is not _Import or type(arguments) is not tuple:
            raise _Refused("a call of something that was not imported")
        result = function(*arguments)
        if isinstance(result, bytes):  # one text could be encoded again and again
            self._can_be_encoded -= len(result)
            if self._can_be_encoded < 0:
                raise _Refused("more bytes than it holds")
        self.stack[-1] = result

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, _Type | _Noted | _Import):
            raise _Refused(f"a change of a {type(target).__name__}")
        target.__setstate__(state)

    dispatch |= {
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.REDUCE[0]: _reduce,
        pickle.BUILD[0]: _build,
    }


def _store(target: Any, pairs: list[Any]) -> None:
    """Put keys and values, in turn, into a dictionary; the type of a key is known before it is hashed."""
    if type(target) is not dict or len(pairs) % 2:
        raise _Refused(f"items of a {type(target).__name__}")
    for key in pairs[::2]:
        if type(key) is not str:
            raise _Refused(f"a {type(key).__name__} as key, expected text")
    target.update(zip(pairs[::2], pairs[1::2], strict=True))


def read_checked(source: SourceFile, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the content of a file, decompressed if it ends in ``.bz2``.

    If ``<name>.md5`` lies beside it, as ``md5sum`` and ``mlpf download`` write it, the checksum is compared.

    Args:
        source: the file, which is no ROOT file.
        max_bytes: most bytes after decompression; reading stops there.

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
    # md5 guards against damage, not against attack.
    actual = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if actual != found[1].lower():
        raise DataError(
            f"{path}: has md5 {actual}, "
            f"expected {found[1].lower()} by {sidecar.name}; copy or download it again"
        )


def load_arrays(content: bytes, where: str, max_bytes: int = MAX_BYTES) -> dict[str, list[npt.NDArray]]:
    """Read a pickled dictionary of lists of float arrays.

    Args:
        content: the pickle; nothing in it is trusted.
        where: what it is, for messages.
        max_bytes: most bytes of all arrays together; a small file can name one array many times.

    Returns:
        The dictionary; arrays of one or two dimensions, float32 or float64, not writeable.

    Raises:
        DataError: damaged, or holds or asks for anything else.
    """
    try:
        _check_operations(content)
        loaded = _Unpickler(content).load()
        return _arrays(loaded, max_bytes)
    except _Refused as refused:
        raise DataError(
            f"{where}: not read, it asks for {refused}; such files hold lists of float arrays only, "
            "get it from its publisher again"
        ) from refused
    except (pickle.UnpicklingError, ValueError, TypeError, LookupError, AttributeError, EOFError,
            RecursionError, OverflowError, MemoryError) as error:  # fmt: skip
        detail = (str(error).strip().splitlines() or [type(error).__name__])[0][:100]
        raise DataError(f"{where}: not a complete pickle ({detail}); copy or download it again") from error


def _check_operations(content: bytes) -> None:
    """Go through the operations without doing them; arguments are read of allowed ones only."""
    stream = io.BytesIO(content)
    for _ in range(MAX_OPERATIONS):
        operation = _BY_CODE.get(stream.read(1))
        if operation is None:
            raise ValueError(f"no operation at byte {stream.tell()} of {len(content)}")
        if operation.name not in _OPERATIONS:
            raise _Refused(f"operation {operation.name}")
        if operation.name == "GLOBAL":  # its names are lines; pickletools would look for escapes in them
            stream.readline()
            stream.readline()
        elif operation.arg:
            operation.arg.reader(stream)
        if operation.name == "STOP":
            return
    raise _Refused(f"more than {MAX_OPERATIONS} operations")


def _arrays(loaded: Any, max_bytes: int) -> dict[str, list[npt.NDArray]]:
    if type(loaded) is not dict:
        raise _Refused(f"a {type(loaded).__name__} at the top, expected a dictionary")
    total = 0
    arrays: dict[str, list[npt.NDArray]] = {}
    for key, items in loaded.items():
        if type(items) is not list:
            raise _Refused(f"an entry {key[:30]!a} that is no list")
        if not all(isinstance(item, _Noted) for item in items):
            raise _Refused(f"an entry {key[:30]!a} of something else than arrays")
        arrays[key] = [item.array() for item in items]
        total += sum(_ARRAY_BYTES + array.nbytes for array in arrays[key])
        if total > max_bytes:
            raise _Refused(f"more than {max_bytes / 1e6:.0f} MB of arrays")
    return arrays
