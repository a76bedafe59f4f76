import copy
import json
import shutil

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.proto import tf_example_pb2

from mlpf.config.data_schema import DatasetSourceConfig
from mlpf.data.dataset.folder import find_dataset
from mlpf.data.dataset.split import _held_out, data_errors, open_split
from mlpf.errors import CheckpointError, DataError, SchemaMismatch
from mlpf.physics.schemas import SCHEMAS
from tests.support.datasets import write_dataset
from tests.support.fake_split import fake_event

WORDS = {
    "schema": "clic",
    "columns": {name: list(columns.names) for name, columns in SCHEMAS["clic"].dataset_columns.items()},
    "x_features_track": list(SCHEMAS["clic"].kind("track").features.names),
    "y_features": ["cls_id", "charge", "pt"],
}


def test_the_share_held_out_is_as_asked_for_and_independent_of_seed_and_neighbours():
    first, second = _held_out(100_000, 0.1, 0), _held_out(100_000, 0.1, 1)
    # Standard deviations of binomial counts: 0.00095 and 0.0003 of the events.
    assert first.mean() == pytest.approx(0.1, abs=0.005)
    assert (first & second).mean() == pytest.approx(0.01, abs=0.0015)
    assert (first[1:] & first[:-1]).mean() == pytest.approx(0.01, abs=0.0015)


def test_whether_an_event_is_held_out_does_not_depend_on_those_behind_it():
    np.testing.assert_array_equal(_held_out(1000, 0.3, 5)[:100], _held_out(100, 0.3, 5))
    assert not (_held_out(1000, 0.1, 2) & ~_held_out(1000, 0.2, 2)).any()
    assert not _held_out(1000, 0.0, 0).any()


def test_a_wrapped_data_error_is_unwrapped_and_others_pass():
    with pytest.raises(DataError, match=r"^a/b: damaged; build it again$"), data_errors():
        raise RuntimeError("{{node}} Error in function: DataError: a/b: damaged; build it again\nTraceback\n")
    with pytest.raises(ZeroDivisionError), data_errors():
        raise ZeroDivisionError("x")
    with pytest.raises(CheckpointError, match="DataError: inside"), data_errors():
        raise CheckpointError("weights: DataError: inside")


def events(lengths):
    rng = np.random.default_rng(0)
    return [fake_event(rng, n, f"fake_{i}") for i, n in enumerate(lengths)]


@pytest.fixture(scope="module", params=["bytes", "float lists"])
def good(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    return write_dataset(folder, {"train": events([4, 0, 3])}, request.param == "float lists", WORDS)


def opened(version, split="train"):
    return open_split(
        version.parent.name,
        DatasetSourceConfig(version=version.name, data_dir=str(version.parents[1]), valid_fraction=0.0),
        split,
    )


def copied(version, folder):
    shutil.copytree(version, folder / "set" / version.name)
    return folder / "set" / version.name


def test_an_event_without_elements_opens(good):
    split = opened(good)
    # The order is that of a hash.
    assert sorted(split.lengths.tolist()) == [0, 3, 4]
    found = split.fetch(range(3), ("X", "ygen", "ycand"))
    assert found.elements.counts.tolist() == split.lengths.tolist()
    assert [found[name].shape for name in found.fields] == [(7, 17), (7, 8), (7, 8)]


def test_no_event_has_the_columns_of_the_dataset(good):
    found = opened(good).fetch([], ("X", "ygen"))
    assert found.num_events == 0
    assert {name: found[name].shape for name in found.fields} == {"X": (0, 17), "ygen": (0, 8)}


@pytest.mark.parametrize("field", ["X", "ygen", "ycand"])
def test_targets_and_inputs_of_different_lengths_are_refused(tmp_path, field):
    good, bad = events([5, 5])
    bad[field] = bad[field][:1]
    version = write_dataset(tmp_path, {"train": [good, bad]}, metadata=WORDS)
    split = opened(version)
    with pytest.raises(DataError, match=rf"split 'train', event \d: different numbers .*\b{field} 1\b"):
        split.fetch(range(2), ("X", "ygen", "ycand"))


def test_a_record_without_targets_is_no_event_without_elements(good, tmp_path):
    version = copied(good, tmp_path)
    (path,) = version.glob("*array_record*")
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for _ in range(3):
        writer.write(tf_example_pb2.Example().SerializeToString())
    writer.close()
    with pytest.raises(DataError, match=r"cannot be read .*no field 'X'"):
        _ = opened(version).lengths


def test_more_events_than_the_files_hold_are_refused_before_room_is_made_for_them(good, tmp_path):
    version = copied(good, tmp_path)
    path = version / "dataset_info.json"
    info = json.loads(path.read_text(encoding="utf-8"))
    info["splits"][0]["shardLengths"] = ["1000000000000000"]
    path.write_text(json.dumps(info), encoding="utf-8")
    with pytest.raises(DataError, match=r"'train' lists 1000000000000000 events in \d+ bytes"):
        opened(version)
    next(version.glob("*array_record*")).unlink()
    with pytest.raises(DataError, match="'train': a file is missing"):
        opened(version)


def places(node, path=()):
    """Yield the way to each value of a JSON document, itself included."""
    yield path
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def replaced(document, path, value):
    if not path:
        return value
    document = copy.deepcopy(document)
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    return document


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "metadata.json"])
def test_wrong_types_are_data_errors(good, tmp_path, name):
    version = copied(good, tmp_path)
    document = json.loads((version / name).read_text(encoding="utf-8"))
    refused = tried = 0
    problems = []
    for path in places(document):
        # Names of columns are alike: the first of each list stands for all.
        if isinstance(path[-1] if path else "", int) and path[-1] > 0:
            continue
        for value in (None, -5, "", [], {}, 3, "x", ["-5"], [None], 10**15):
            (version / name).write_text(json.dumps(replaced(document, path, value)), encoding="utf-8")
            tried += 1
            try:
                find_dataset(version)
                split = opened(version)
                assert len(split.lengths) == split.num_events
                split.fetch(range(split.num_events), ("X", "ygen"))
            except DataError as error:
                refused += 1
                if len(str(error).splitlines()) != 1:
                    problems.append((path, value, str(error)))
            except Exception as error:  # noqa: BLE001 - this is what the test looks for
                problems.append((path, value, repr(error)))
    assert problems == []
    assert 0 < refused < tried


@pytest.mark.parametrize(
    ("key", "value"),
    [("columns", {"X_track": 3}), ("columns", 3), ("columns", {"targets": [3]}), ("y_features", 3)],
)
def test_columns_that_are_no_names_are_shown(good, tmp_path, key, value):
    version = copied(good, tmp_path)
    (version / "metadata.json").write_text(json.dumps(WORDS | {key: value}), encoding="utf-8")
    with pytest.raises(SchemaMismatch, match=r"metadata\.json: .* expected (a list|lists) of names"):
        opened(version)


def test_features_of_unknown_classes_are_not_imported(good, tmp_path):
    """TFDS would import the module that the file names, wherever it is."""
    version = copied(good, tmp_path)
    file = version / "features.json"
    known = "tensorflow_datasets.core.features.tensor_feature.Tensor"
    file.write_text(file.read_text(encoding="utf-8").replace(known, "antigravity.X"), encoding="utf-8")
    with pytest.raises(DataError, match=r"features of class 'antigravity\.X', expected those of"):
        opened(version)
