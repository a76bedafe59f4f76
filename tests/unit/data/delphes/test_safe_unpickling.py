"""Pickles are programs: none of these may run, and none may cost more than its own size."""

import bz2
import hashlib
import io
import pickle
import pickletools
import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from mlpf.data.delphes import safe_unpickling as delphes_unpickling
from mlpf.data.delphes.safe_unpickling import load_arrays, read_checked
from mlpf.data.source_file import open_source
from mlpf.errors import DataError
from tests.support.nested_pickles import RECONSTRUCT, nested, shared, uses

ARRAYS = {"X": [np.arange(12.0).reshape(2, 6), np.zeros((0, 6))], "y": [np.ones(3), np.ones((1, 1))]}


def load(value, protocol=3):
    return load_arrays(pickle.dumps(value, protocol=protocol), "file")


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments, state) if state is not None else (function, arguments)

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("kind", ["<f8", ">f8", "<f4"])
def test_arrays_come_back_bit_by_bit(protocol, kind):
    arrays = {key: [value.astype(kind) for value in values] for key, values in ARRAYS.items()}
    loaded = load(arrays, protocol)
    assert list(loaded) == list(arrays)
    for key, values in arrays.items():
        for found, expected in zip(loaded[key], values, strict=True):
            np.testing.assert_array_equal(found, expected)
            assert found.dtype == expected.dtype


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_in_the_order_of_columns_come_back(protocol):
    expected = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(load({"X": [expected]}, protocol)["X"][0], expected)


@pytest.mark.parametrize("package", ["numpy.core", "numpy._core"])
def test_both_names_of_the_numpy_package_are_known(package):
    content = pickle.dumps({"X": [np.ones(2)]}, protocol=3)
    there = b"numpy.core" if b"numpy.core" in content else b"numpy._core"
    loaded = load_arrays(content.replace(there, package.encode()), "file")
    assert loaded["X"][0].tolist() == [1.0, 1.0]


class Marker(Exception):
    """Raised by whatever must not run."""


@pytest.fixture
def armed(monkeypatch, tmp_path):
    """Functions that a pickle may name, each of which would leave a trace."""
    ran = []

    def trap(*_):
        ran.append(True)
        raise Marker

    monkeypatch.setattr("posix.system", trap)
    yield tmp_path / "trace"
    assert ran == []
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("module", "name", "argument"),
    [
        ("posix", "system", "touch {}"),
        ("builtins", "eval", "open({!r}, 'w')"),
        ("builtins", "exec", "open({!r}, 'w')"),
        ("builtins", "open", "{}"),
        ("numpy", "load", "{}"),
        ("numpy", "fromfile", "{}"),
        ("numpy", "memmap", "{}"),
        ("numpy.testing._private.utils", "runstring", "{}"),
        ("pickle", "loads", "{}"),
        ("mlpf.data.delphes.safe_unpickling", "_IMPORTS", "{}"),
        ("numpy", "core.multiarray._reconstruct", "{}"),
        ("numpy", "ndarray.tofile", "{}"),
    ],
)
def test_nothing_else_is_imported(armed, protocol, module, name, argument):
    text = argument.format(str(armed)).encode()
    if protocol < 4:
        imported = f"c{module}\n{name}\n".encode()
    else:
        imported = b"".join(b"\x8c" + bytes([len(s)]) + s.encode() for s in (module, name)) + b"\x93"
    content = bytes([0x80, protocol]) + imported + b"X" + struct.pack("<I", len(text)) + text + b"\x85R."
    with pytest.raises(DataError, match="file: not read, it asks for"):
        load_arrays(content, "file")


def evil_array(shape, content, kind=None, state_length=5):
    """An array whose state says what it likes."""
    kind = np.dtype("f8") if kind is None else kind
    state = (1, shape, kind, False, content)[:state_length]
    return Calls(np.zeros(0).__reduce__()[0], np.ndarray, (0,), b"b", state=state)


@pytest.mark.parametrize(
    "array",
    [
        evil_array((10**12,), b""),
        evil_array((2,), b"\0" * 8),
        evil_array((-1, -1), b"\0" * 8),
        evil_array((1.0,), b"\0" * 8),
        evil_array((2**40, 2**40), b""),
        evil_array((1, 1, 1), b"\0" * 8),
        evil_array((1,), [1.0]),
        evil_array((1,), "a" * 8),
        evil_array((1,), b"\0" * 8, kind="f8"),
        evil_array((1,), b"\0" * 8, kind=np.ndarray),
        evil_array((1,), b"\0" * 8, state_length=4),
        Calls(np.ndarray, (10**12,)),
        Calls(np.ndarray, (1,), "f8", b"\0" * 8, 2**40),
        Calls(np.zeros(0).__reduce__()[0], np.ndarray, (10**12,), b"b"),
        Calls(np.zeros(0).__reduce__()[0], np.dtype, (0,), b"b"),
        Calls(np.zeros(0).__reduce__()[0], np.ndarray, (0,), b"b"),
        Calls(np.zeros(0).__reduce__()[0], [], (0,), b"b"),
        Calls(np.zeros(0).__reduce__()[0]),
        Calls(np.dtype, "O"),
        Calls(np.dtype, "V1000000000"),
        Calls(np.dtype, "i8"),
        Calls(np.dtype, [("a", "f8")]),
        Calls(np.dtype, "f8", False, True, state=(3, "<", None, ("a",), {"a": 1}, 8, 1, 0)),
        Calls(np.dtype, "f8", False, True, state={"names": ("a",)}),
        Calls(np.dtype, "f8", False, True, state=(3, "O", None, None, None, -1, -1, 0)),
        np.array([{}], dtype=object),
        np.array([1, 2]),
        np.array(["a"]),
        np.array([(1.0, 2.0)], dtype=[("a", "f8"), ("b", "f8")]),
        np.float64(1.0),
        [np.ones(2)],
        1.0,
        None,
        "text",
    ],
)
def test_allowed_names_with_other_arguments_are_refused(array):
    with pytest.raises(DataError, match=r"file: not (read|a complete pickle)") as error:
        load({"X": [array]})
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("value", [[], ["X"], np.ones(2), {"X": np.ones(2)}, {1: [np.ones(2)]}, {"X": {}}])
def test_anything_but_lists_in_a_dictionary_is_refused(value):
    with pytest.raises(DataError, match="not read, it asks for"):
        load(value)


# Each begins with protocol 3 and leaves something on the stack, as a pickle must.
NDARRAY = b"cnumpy\nndarray\n"
DTYPE = b"cnumpy\ndtype\n"
OPERATIONS = {
    "extension 1": b"\x82\x01.",
    "extension 2": b"\x83\x01\x00.",
    "extension 4": b"\x84\x01\x00\x00\x00.",
    "persistent id": b"P1\n.",
    "binary persistent id": b"K\x01Q.",
    "instance": b"(iposix\nsystem\n.",
    "object": b"(" + NDARRAY + b"o.",
    "new object": NDARRAY + b")\x81.",
    "new object with keywords": NDARRAY + b")}\x92.",
    "text integer": b"I1\n.",
    "text string": b"S'a'\n.",
    "import with an escape that does not exist": b"c\\zumpy\nndarray\n.",
    "text string with an escape that does not exist": b"S'\\z'\n.",
    "long of any length": b"\x8b\x04\x00\x00\x00aaaa.",
    "buffer outside": b"\x97.",
    "set": b"\x8f.",
    "change of an import by a dictionary": NDARRAY + b"}(X\x04\x00\x00\x00_calldb.",
    "change of an import by slots": DTYPE + b"N}X\x05\x00\x00\x00_call" + NDARRAY + b"s\x86b.",
    "change of a dictionary": b"}}X\x01\x00\x00\x00aK\x01sb.",
    "change of a dictionary by slots": b"}N}X\x01\x00\x00\x00aK\x01s\x86b.",
    "change of an array by slots": RECONSTRUCT
    + NDARRAY
    + b"K\x00\x85C\x01b\x87RN}X\x05\x00\x00\x00arrayNs\x86b.",
    "change of a class by slots": RECONSTRUCT + b"N}X\x0c\x00\x00\x00__setstate__" + NDARRAY + b"s\x86b.",
    "call with keywords": DTYPE + b"}X\x04\x00\x00\x00codeX\x02\x00\x00\x00f8sR.",
    "change of a list": b"]}(K\x01K\x01ub.",
    "call of a list": b"]]R.",
    "call of a call": NDARRAY + b"(K\x01tR)R.",
}


@pytest.mark.parametrize("operations", OPERATIONS.values(), ids=OPERATIONS.keys())
def test_operations_that_arrays_do_not_need_are_refused(operations):
    with pytest.raises(DataError, match=r"file: not (read|a complete pickle)"):
        load_arrays(b"\x80\x03" + operations, "file")
    # What was refused has left nothing behind.
    assert load(ARRAYS)["X"][0].tolist() == ARRAYS["X"][0].tolist()


def test_names_in_a_pickle_cannot_write_to_the_terminal():
    names = b"".join(b"\x8c" + bytes([len(s)]) + s for s in (b"numpy", b"a\n\x1b[2J"))
    with pytest.raises(DataError, match=r"asks for numpy\.a\\n\\x1b\[2J;"):
        load_arrays(b"\x80\x04" + names + b"\x93.", "file")


def test_registered_extensions_are_refused(armed):
    import copyreg

    copyreg.add_extension("posix", "system", 77)
    try:
        with pytest.raises(DataError, match="operation EXT1"):
            load_arrays(b"\x80\x03\x82\x4d(X\x02\x00\x00\x00lstR.", "file")
    finally:
        copyreg.remove_extension("posix", "system", 77)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x03]r\xff\xff\xff\xff.",  # a memo of four thousand million places
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"abc.",  # bytes that are not there
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.",  # a frame that is not there
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"abc.",
        b"",
        b"\x80\x03",
        b"no pickle",
        pickle.dumps(ARRAYS, protocol=3)[:-30],
        b"\x80\x03K\x01\x85.",
        b"\x80\x03.",
        b"\x80\x03K\x01h\x05.",
        b"\x80\x09N.",
    ],
)
def test_damaged_and_inflated_pickles_are_refused(content):
    with pytest.raises(DataError, match=r"file: not (read|a complete pickle)") as error:
        load_arrays(content, "file")
    assert "\n" not in str(error.value)


def test_deeply_nested_pickles_are_refused():
    with pytest.raises(DataError, match="file: not read"):
        load_arrays(b"\x80\x03" + b"]" * 100_000 + b"a" * 99_999 + b".", "file")


def test_one_array_named_many_times_counts_many_times():
    array = np.ones(1000)
    content = pickle.dumps({"X": [array] * 50}, protocol=3)
    assert len(content) < 20_000
    with pytest.raises(DataError, match="more than 0 MB of arrays"):
        load_arrays(content, "file", max_bytes=100_000)
    assert len(load_arrays(content, "file", max_bytes=410_000)["X"]) == 50


def test_an_empty_array_named_many_times_counts_as_well():
    content = pickle.dumps({"X": [np.zeros((0, 12))] * 5000}, protocol=3)
    with pytest.raises(DataError, match="more than 0 MB of arrays"):
        load_arrays(content, "file", max_bytes=100_000)


def test_texts_are_not_encoded():
    text = b"X" + struct.pack("<I", 1000) + b"a" * 1000
    arguments = b"(" + text + b"X\x06\x00\x00\x00latin1tq\x01"
    content = b"\x80\x02]c_codecs\nencode\nq\x00" + arguments + b"R" + b"h\x00h\x01R" * 5 + b"aaaaaa."
    with pytest.raises(DataError, match=r"asks for _codecs\.encode"):
        load_arrays(content, "file")


@pytest.mark.parametrize(
    "operations",
    [
        b"]r\xff\xff\xff\x07.",  # a memo of 134 million places
        b"\x8e" + struct.pack("<Q", 1 << 30) + b"abc.",
        b"\x96" + struct.pack("<Q", 1 << 30) + b"abc.",
        b"B" + struct.pack("<I", 1 << 30) + b"abc.",
        b"X" + struct.pack("<I", 1 << 30) + b"abc.",
        DTYPE + b"B" + struct.pack("<I", 10_000_000) + bytes(10_000_000) + b"R.",  # a tuple of 80 MB
    ],
    ids=["memo", "bytes", "bytearray", "short bytes", "text", "arguments"],
)
def test_no_room_is_made_for_what_is_not_there(operations):
    tracemalloc.start()
    with pytest.raises(DataError):
        load_arrays(b"\x80\x05" + operations, "file")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000 + 3 * len(operations)


# A process of its own: what goes wrong here ends the interpreter, or never ends.
LOAD_ALL = """
import sys
from pathlib import Path
from mlpf.data.delphes.safe_unpickling import load_arrays
from mlpf.errors import DataError
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        load_arrays(path.read_bytes(), "file")
    except DataError as error:
        assert str(error).startswith("file: not ") and len(str(error)) < 300 and "\\n" not in str(error)
        print(path.name, flush=True)
"""


@pytest.mark.parametrize("value", [nested(200_000), shared()], ids=["deep", "shared"])
def test_what_a_pickle_nests_is_never_gone_through(value, tmp_path):
    for name, operations in uses(value).items():
        (tmp_path / name).write_bytes(b"\x80\x03" + operations)
    done = subprocess.run(
        [sys.executable, "-c", LOAD_ALL, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == sorted(uses(value))


def test_endless_operations_are_refused(monkeypatch):
    monkeypatch.setattr(delphes_unpickling, "MAX_OPERATIONS", 100)
    with pytest.raises(DataError, match="more than 100 operations"):
        load({"X": [np.ones(1) for _ in range(20)]})


def test_a_published_file_stays_far_below_the_limit_of_operations():
    content = pickle.dumps({key: [np.ones((3, 7)) for _ in range(100)] for key in ("X", "ygen", "ycand")}, 3)
    assert sum(1 for _ in pickletools.genops(content)) * 20 < delphes_unpickling.MAX_OPERATIONS


def checked(path, **options):
    with open_source(path) as source:
        return read_checked(source, **options)


def test_a_bomb_is_refused_while_it_is_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "a.pkl.bz2"
    path.write_bytes(bz2.compress(bytes(30_000_000)))
    assert path.stat().st_size < 1000
    real, unpacked = bz2.open, []

    class Counting(io.BufferedReader):
        def read(self, size=-1):
            block = super().read(size)
            unpacked.append(len(block))
            return block

    monkeypatch.setattr(bz2, "open", lambda path, mode: Counting(real(path, mode)))
    with pytest.raises(DataError, match="holds more than 3 MB"):
        checked(path, max_bytes=3_000_000)
    assert sum(unpacked) < 6_000_000


def test_files_are_read_whole(tmp_path):
    content = b"abc" * 1000
    (tmp_path / "a.pkl").write_bytes(content)
    (tmp_path / "a.pkl.bz2").write_bytes(bz2.compress(content[:1200]) + bz2.compress(content[1200:]))
    assert checked(tmp_path / "a.pkl") == content
    assert checked(tmp_path / "a.pkl.bz2", max_bytes=3000) == content


def test_files_that_cannot_be_unpacked_are_refused(tmp_path):
    path = tmp_path / "a.pkl.bz2"
    with pytest.raises(DataError, match="no such file"):
        checked(path)
    path.write_bytes(b"plain")
    with pytest.raises(DataError, match="truncated or not bzip2"):
        checked(path)
    path.write_bytes(bz2.compress(b"abc" * 1000)[:-10])
    with pytest.raises(DataError, match="truncated or not bzip2"):
        checked(path)


def test_a_checksum_beside_the_file_is_compared(tmp_path):
    path, sidecar = tmp_path / "a.pkl", tmp_path / "a.pkl.md5"
    path.write_bytes(b"content")
    sidecar.write_text(
        hashlib.md5(b"content").hexdigest().upper() + "  a.pkl\n# a comment\n", encoding="utf-8"
    )
    assert checked(path) == b"content"
    path.write_bytes(b"c0ntent")
    with pytest.raises(DataError, match=r"a\.pkl: has md5 .*, expected .* by a\.pkl\.md5; copy"):
        checked(path)
    sidecar.write_text("nothing", encoding="utf-8")
    with pytest.raises(DataError, match="holds no md5 checksum"):
        checked(path)
    sidecar.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="cannot be read"):
        checked(path)
