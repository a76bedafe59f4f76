import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader

from mlpf.data.dataset import blocks as shards
from mlpf.data.dataset.blocks import plan_blocks, read_report, serialize, write_block
from mlpf.data.dataset.examples import dataset_features, make_examples
from mlpf.data.events import Events
from mlpf.errors import DataError
from mlpf.physics.features import PARTICLE_COLUMNS
from mlpf.physics.schemas import SCHEMAS
from tests.support.parquet_files import write_parquet

CLIC = SCHEMAS["clic"]
ALL_IN_TRAIN = (1.0, 0.0, 0.0)


@pytest.fixture
def files(tmp_path):
    return [write_parquet(tmp_path / f"reco_{i}.parquet", 10 + i) for i in range(6)]


@pytest.fixture
def _small_blocks(monkeypatch):
    monkeypatch.setattr(shards, "MIN_BLOCK_BYTES", 1)


def write(block, folder: Path, seed=0) -> tuple[Path, Path]:
    path, report = folder / block.file_name("set"), folder / "report.json"
    write_block(block, seed, path, report)
    return path, report


def keys_of(path: Path) -> list[str]:
    reader = ArrayRecordReader(str(path))
    features = dataset_features(CLIC)
    events = [features.deserialize_example_np(record) for record in reader.read_all()]
    reader.close()
    return [event["event"].decode() for event in events]


@pytest.mark.usefixtures("_small_blocks")
def test_every_file_is_in_one_block_in_an_order_that_the_seed_decides(files):
    plan = plan_blocks(files, 0, ALL_IN_TRAIN, CLIC)
    assert sorted(f for b in plan.blocks for f in b.files) == files
    assert [(b.index, b.count) for b in plan.blocks] == [(i, 6) for i in range(6)]
    assert plan.blocks[2].file_name("set") == "set-train.array_record-00002-of-00006"
    assert {b.files[0].stem: b.num_events for b in plan.blocks} == {f"reco_{i}": 10 + i for i in range(6)}
    order = [b.files for b in plan.blocks]
    assert order != [b.files for b in plan_blocks(files, 1, ALL_IN_TRAIN, CLIC).blocks]
    assert order == [b.files for b in plan_blocks(files[::-1], 0, ALL_IN_TRAIN, CLIC).blocks]


def test_a_split_has_so_many_blocks_at_most_and_small_files_share_one(files, monkeypatch):
    (one,) = plan_blocks(files, 0, ALL_IN_TRAIN, CLIC).blocks
    assert sorted(one.files) == files
    monkeypatch.setattr(shards, "MIN_BLOCK_BYTES", 1)
    monkeypatch.setattr(shards, "BLOCKS_PER_SPLIT", 2)
    assert 2 <= len(plan_blocks(files, 0, ALL_IN_TRAIN, CLIC).blocks) <= 3


@pytest.mark.parametrize("change", ["seed", "fractions", "content", "fewer"])
def test_the_digest_follows_from_everything_that_decides_the_result(files, change):
    before = plan_blocks(files, 0, ALL_IN_TRAIN, CLIC).digest
    assert plan_blocks(files, 0, ALL_IN_TRAIN, CLIC).digest == before
    seed, fractions = int(change == "seed"), (0.5, 0.0, 0.5) if change == "fractions" else ALL_IN_TRAIN
    if change == "content":
        write_parquet(files[2].with_name("reco_9.parquet"), 12).replace(files[2])
    used = files[:-1] if change == "fewer" else files
    assert plan_blocks(used, seed, fractions, CLIC).digest != before


def test_events_are_in_the_order_of_a_hash_and_all_there(files, tmp_path):
    (block,) = plan_blocks(files, 0, ALL_IN_TRAIN, CLIC).blocks
    path, report = write(block, tmp_path)
    keys = keys_of(path)
    assert len(set(keys)) == len(keys) == sum(range(10, 16))
    by_file = [key.rsplit("_", 1)[0] for key in keys]
    changes = sum(a != b for a, b in pairwise(by_file))
    assert changes > 40  # of 74; sorted by file there were 5
    content = read_report(report, path, block)
    assert content.num_events == 75
    assert [s["file"] for s in content.sources] == [f.name for f in block.files]
    first = path.read_bytes()
    assert write(block, tmp_path)[0].read_bytes() == first
    write(block, tmp_path, seed=1)
    assert keys_of(path) != keys
    assert sorted(keys_of(path)) == sorted(keys)


def test_memory_is_bounded_by_windows_that_keep_all_events(files, tmp_path, monkeypatch):
    (block,) = plan_blocks(files, 0, ALL_IN_TRAIN, CLIC).blocks
    keys = keys_of(write(block, tmp_path)[0])
    monkeypatch.setattr(shards, "WINDOW_BYTES", 1)
    in_windows = keys_of(write(block, tmp_path)[0])
    assert in_windows != keys
    assert sorted(in_windows) == sorted(keys)
    stems = [f.stem for f in block.files for _ in range(10 + int(f.stem[-1]))]
    assert [key.rsplit("_", 1)[0] for key in in_windows] == stems  # one chunk of a file after the other


@pytest.mark.parametrize("schema", list(SCHEMAS))
def test_records_are_what_tfds_writes(tmp_path, schema):
    schema = SCHEMAS[schema]
    examples = make_examples(Events.from_parquet(write_parquet(tmp_path / "a.parquet", 3, schema)), "a")
    features = dataset_features(schema)
    fields = ("X", "ygen", "ycand", *schema.optional_widths)
    for i in range(3):
        record = serialize(examples[i])
        theirs = features.deserialize_example_np(features.serialize_example(examples[i]))
        ours = features.deserialize_example_np(record)
        assert ours.keys() == theirs.keys() == {*fields, "event"}
        for name in fields:
            np.testing.assert_array_equal(ours[name], theirs[name])
            assert ours[name].dtype == np.float32
        assert ours["event"] == theirs["event"] == f"a_{i}".encode()


def test_examples_hold_the_rows_of_all_kinds_in_order(tmp_path):
    events = Events.from_parquet(write_parquet(tmp_path / "a.parquet", 5))
    examples = make_examples(events, "a")
    pt = PARTICLE_COLUMNS.index("pt")
    kinds = (events["track"].split(), events["cluster"].split())
    for example, tracks, clusters in zip(examples, *kinds, strict=True):
        x, number = example["X"], len(tracks)
        np.testing.assert_array_equal(x[:number, : tracks["X"].shape[1]], tracks["X"])
        assert not x[:number, tracks["X"].shape[1] :].any()
        np.testing.assert_array_equal(x[number:], clusters["X"])
        wanted = [*tracks["ycand"][:, pt], *clusters["ycand"][:, pt]]
        np.testing.assert_array_equal(example["ycand"][:, pt], wanted)


def test_an_incomplete_block_has_no_report(files, tmp_path):
    (block,) = plan_blocks(files, 0, ALL_IN_TRAIN, CLIC).blocks
    path, report = write(block, tmp_path)
    assert read_report(report, path, replace(block, num_events=74)) is None
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert read_report(report, path, block) is None
    path.unlink()
    assert read_report(report, path, block) is None
    path.write_bytes(whole)
    assert read_report(report, path, block) is not None
    report.write_text(json.dumps({"num_events": 75}), encoding="utf-8")
    assert read_report(report, path, block) is None


def test_files_that_change_meanwhile_are_an_error_and_leave_nothing(files, tmp_path):
    (block,) = plan_blocks(files, 0, ALL_IN_TRAIN, CLIC).blocks
    write_parquet(files[0].with_name("reco_0.parquet"), 3)
    with pytest.raises(DataError, match=r"68 events read, expected 75; files changed meanwhile"):
        write(block, tmp_path)
    assert not list(tmp_path.glob("*array_record*"))
    assert not list(tmp_path.glob(".*.part"))
