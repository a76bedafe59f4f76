import hashlib

import pytest

from mlpf.data.input_files import base_name, checksum, expand_inputs
from mlpf.errors import DataError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pq" / "more").mkdir(parents=True)
    (tmp_path / "pq" / ".hidden").mkdir()
    names = (
        "a.parquet",
        "b.parquet",
        ".lock",
        ".c.parquet",
        "notes.txt",
        "more/d.parquet",
        "more/._d.parquet",
    )
    for name in (*names, ".hidden/e.parquet"):
        (tmp_path / "pq" / name).touch()
    return tmp_path / "pq"


def names(inputs, suffixes=(".parquet",)):
    return [path.name for path in expand_inputs(inputs, suffixes)]


def test_a_directory_stands_for_its_visible_files_with_a_suffix(folder):
    assert names([folder]) == ["a.parquet", "b.parquet"]
    assert names([folder], (".parquet", ".txt")) == ["a.parquet", "b.parquet", "notes.txt"]


def test_a_glob_takes_files_with_a_suffix_and_directories_as_they_are_when_named(folder):
    assert names([folder / "*"]) == ["a.parquet", "b.parquet", "d.parquet"]
    assert names([folder / "[ab].*"]) == ["a.parquet", "b.parquet"]
    assert names([folder / "mor?"]) == names([folder / "more"]) == ["d.parquet"]
    assert names([folder / "**" / "*.parquet"]) == ["a.parquet", "b.parquet", "d.parquet"]


def test_a_relative_glob_gives_relative_paths(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert [str(p) for p in expand_inputs(["pq/[a]*"], (".parquet",))] == ["pq/a.parquet"]


@pytest.mark.parametrize("pattern", ["*.txt", "nothing*", ".*.txt"])
def test_a_glob_of_nothing_usable_is_an_error(folder, pattern):
    with pytest.raises(DataError, match=r"no \.parquet file there; give files, directories or quoted globs"):
        expand_inputs([folder / pattern], (".parquet",))


def test_a_directory_whose_name_looks_like_a_pattern_is_a_directory(tmp_path):
    (tmp_path / "run[1]").mkdir()
    (tmp_path / "run[1]" / "a.root").touch()
    assert names([tmp_path / "run[1]"], (".root",)) == ["a.root"]


def test_a_named_file_is_taken_as_it_is(folder):
    assert names([folder / "notes.txt", folder / "gone.parquet"]) == ["gone.parquet", "notes.txt"]


def test_base_names_are_unique_and_a_file_counts_once(folder):
    assert names([folder, folder / "*.parquet", folder / "a.parquet"]) == ["a.parquet", "b.parquet"]
    (folder / "more" / "a.parquet").touch()
    with pytest.raises(DataError, match="have the same base name"):
        expand_inputs([folder / "*"], (".parquet",))


def test_base_name_drops_the_longest_suffix(tmp_path):
    assert base_name(tmp_path / "a.1.pkl.bz2", (".bz2", ".pkl.bz2")) == "a.1"


def test_checksum_is_that_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"events" * 100_000)
    assert checksum(tmp_path / "a") == hashlib.blake2b(b"events" * 100_000, digest_size=16).hexdigest()
    with pytest.raises(DataError, match=r"gone: cannot be read .*; check the path"):
        checksum(tmp_path / "gone")
