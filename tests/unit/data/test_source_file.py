"""A file is opened once: the checksum of what is read is that of the file."""

import sys

import pytest

from mlpf.data.formats import open_conversion
from mlpf.data.input_files import checksum
from mlpf.data.source_file import open_root, open_source, readable_errors
from mlpf.errors import DataError
from tests.support.delphes_files import published_event, simple_delphes, write_delphes, write_pickle
from tests.support.edm4hep_files import simple_event, write_edm4hep

OPENED: list[str] = []


@pytest.fixture(scope="module")
def _audit():
    """Hooks cannot be removed: one for all tests, which only notes names."""
    sys.addaudithook(lambda event, arguments: OPENED.append(str(arguments[0])) if event == "open" else None)


def files(folder):
    return [
        write_edm4hep(folder / "a.root", [simple_event(10.0 + i) for i in range(3)]),
        write_delphes(folder / "b.root", [simple_delphes(10.0 + i) for i in range(3)]),
        write_pickle(folder / "c.pkl", [published_event()] * 3),
    ]


def test_the_checksum_is_that_of_the_file(tmp_path):
    for path in files(tmp_path):
        with open_source(path) as source:
            assert source.checksum() == checksum(path)
            assert source.num_bytes == path.stat().st_size


@pytest.mark.usefixtures("_audit")
def test_recognising_checksum_and_reading_open_a_file_once(tmp_path):
    for path in files(tmp_path):
        OPENED.clear()
        with open_conversion(path) as conversion:
            digest = conversion.source.checksum()
            list(conversion.chunks())
        assert OPENED.count(str(path)) == 1
        assert checksum(path) == digest
        assert OPENED.count(str(path)) == 2  # the hook does see a further opening


def test_names_at_the_top_of_a_root_file(tmp_path):
    path = write_edm4hep(tmp_path / "a.root", [simple_event()])
    with open_source(path) as source:
        assert source.trees == {"events", "metadata"}
        assert source.data is None


def test_a_file_without_bytes_is_an_error(tmp_path):
    for name, message in (("a.root", "cannot be read as a ROOT file"), ("a.pkl", "cannot be read")):
        (tmp_path / name).touch()
        with pytest.raises(DataError, match=rf"{name}: {message}"):
            open_source(tmp_path / name).__enter__()


def test_a_file_that_is_not_root_is_named(tmp_path):
    (tmp_path / "text.root").write_text("not root" * 100, encoding="utf-8")
    with pytest.raises(DataError, match=r"text\.root: cannot be read as a ROOT file"):
        open_root(tmp_path / "text.root").__enter__()
    with pytest.raises(DataError, match=r"gone\.root: no such file"):
        open_root(tmp_path / "gone.root").__enter__()


def test_errors_of_reading_become_one_line(tmp_path):
    with pytest.raises(DataError) as error, readable_errors(tmp_path / "a.root"):
        raise ValueError("first line\nsecond line")
    assert "\n" not in str(error.value)
    assert "(ValueError: first line second line)" in str(error.value)
    with pytest.raises(KeyboardInterrupt), readable_errors(tmp_path / "a.root"):
        raise KeyboardInterrupt
