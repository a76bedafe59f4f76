from collections import Counter
from pathlib import Path

import pytest

from mlpf.data.dataset.splitting import (
    SPLITS,
    EventSelection,
    partition,
    split_of_event,
    split_of_file,
    stored_keys,
)
from mlpf.errors import DataError
from tests.support.parquet_files import write_parquet

FRACTIONS = (0.8, 0.1, 0.1)


def many(count, folder="a"):
    """Paths of files that need not be there: a split by file looks at names only."""
    return [Path(f"{folder}/reco_{i}.parquet") for i in range(count)]


def test_a_file_stays_in_its_split_whatever_other_files_there_are():
    all_files = partition(many(200), 0, FRACTIONS).files
    half = partition(many(100, "b"), 0, FRACTIONS).files
    for name in SPLITS:
        assert {f.name for f in half[name]} <= {f.name for f in all_files[name]}


def test_where_files_are_enough_the_split_is_by_file():
    parts = partition(many(200), 0, FRACTIONS)
    assert parts.by == "file"
    assert sorted(path for paths in parts.files.values() for path in paths) == sorted(many(200))
    assert parts.selection("valid") == EventSelection("valid", 0, ())
    assert parts.selection("valid").holds("whatever_1")


@pytest.mark.parametrize("split_of", [split_of_file, split_of_event])
def test_splits_have_the_sizes_asked_for_and_depend_on_the_seed(split_of):
    names = [f"reco_{i}" for i in range(4000)]
    first = [split_of(n, 0, FRACTIONS) for n in names]
    counts = Counter(first)
    assert counts["train"] / 4000 == pytest.approx(0.8, abs=0.03)  # five standard deviations
    assert counts["valid"] / 4000 == pytest.approx(0.1, abs=0.03)
    assert first != [split_of(n, 1, FRACTIONS) for n in names]


def test_a_split_of_fraction_zero_is_left_out():
    assert set(partition(many(50), 0, (0.5, 0.0, 0.5)).files) == {"train", "test"}


@pytest.mark.parametrize("num_files", [1, 3])
def test_few_files_are_split_by_event_and_no_event_is_in_two_splits(tmp_path, num_files):
    files = [write_parquet(tmp_path / f"reco_{i}.parquet", 60) for i in range(num_files)]
    seed = next(s for s in range(100) if len({split_of_file(f.stem, s, FRACTIONS) for f in files}) < 3)
    parts = partition(files, seed, FRACTIONS)
    assert parts.by == "event"
    assert parts.files == dict.fromkeys(SPLITS, files)
    keys = [key for path in files for key in stored_keys(path)]
    assert len(set(keys)) == 60 * num_files
    found = {split: {key for key in keys if parts.selection(split).holds(key)} for split in SPLITS}
    assert all(found.values())
    assert sum(map(len, found.values())) == len(set().union(*found.values())) == len(keys)
    again = partition(files[::-1], seed, FRACTIONS)
    assert {s: {k for k in keys if again.selection(s).holds(k)} for s in SPLITS} == found
    assert f"{num_files} file" in parts.describe()
    assert f"seed {seed}" in parts.describe()


def test_an_event_that_no_split_needs_is_not_read(tmp_path):
    (file,) = [write_parquet(tmp_path / "reco.parquet", 3)]
    parts = partition([file], 0, (1.0, 0.0, 0.0))
    assert (parts.by, parts.files) == ("file", {"train": [file]})


def test_too_few_events_suggest_a_seed_that_works(tmp_path):
    file = write_parquet(tmp_path / "reco.parquet", 6)
    keys = stored_keys(file)

    def complete(seed):
        return {split_of_event(key, seed, FRACTIONS) for key in keys} == set(SPLITS)

    bad = next(seed for seed in range(100) if not complete(seed))
    with pytest.raises(DataError, match=r"none of 6 events in 1 file\(s\).*first that works: \d+") as caught:
        partition([file], bad, FRACTIONS)
    good = int(str(caught.value).rsplit(" ", 1)[1].rstrip(")"))
    assert good == next(seed for seed in range(100) if complete(seed))
    assert partition([file], good, FRACTIONS).by == "event"


def test_fewer_events_than_splits_have_no_seed(tmp_path):
    file = write_parquet(tmp_path / "reco.parquet", 2)
    with pytest.raises(DataError, match="first that works: none"):
        partition([file], 0, FRACTIONS)
