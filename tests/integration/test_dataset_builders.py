"""ROOT files -> parquet -> array_record -> events, through the commands' own functions."""

import json
import shutil

import numpy as np
import pytest

from mlpf.config.data_schema import DatasetSourceConfig
from mlpf.data.dataset import blocks
from mlpf.data.dataset.split import open_split
from mlpf.data.events import Events
from mlpf.errors import DataError, OutputExists, SchemaMismatch
from mlpf.files.locking import Shard
from mlpf.physics.features import (
    ACCOUNT_COLUMNS,
    CLUSTER_FEATURES,
    NUM_CLIC_FEATURES,
    TARGETS,
    TRACK_FEATURES,
)
from mlpf.workflows import build, postprocess
from tests.support.edm4hep_files import HandEvent, simple_event, write_edm4hep
from tests.support.events import one_by_one

NAME = "clic_edm4hep/ttbar"
FRACTIONS = (0.4, 0.3, 0.3)
SEED = 9
NUM_FILES = 6


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    for i in range(NUM_FILES):
        photon = HandEvent()
        photon.deposit([(photon.particle(22, 0.0, 5.0 + i), 5.0)])
        write_edm4hep(root / f"reco_{i}.root", [simple_event(10.0 + i), photon, HandEvent()])
    output = tmp_path_factory.mktemp("parquet")
    summary = postprocess.run([root], output)
    assert summary.num_events == 2 * NUM_FILES
    assert summary.skipped == {"no tracks and no clusters": NUM_FILES}
    return output


@pytest.fixture(scope="module")
def data_dir(parquet, tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    build.run(NAME, path, [parquet], split_seed=SEED, split_fractions=FRACTIONS)
    return path


def source(data_dir, version="1.0.0", **keys):
    return DatasetSourceConfig(version=version, data_dir=str(data_dir), **keys)


def copy_of(data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path / "copy")
    return tmp_path / "copy", tmp_path / "copy" / NAME / "1.0.0"


def test_the_dataset_holds_what_the_parquet_files_hold(parquet, data_dir):
    events = {}
    for split in ("train", "valid", "test"):
        opened = open_split(NAME, source(data_dir), split)
        fetched = one_by_one(opened.fetch(range(opened.num_events), opened.fields))
        assert opened.lengths.tolist() == [len(e["X"]) for e in fetched]
        files = {str(e["event"]).rsplit("_", 1)[0] for e in fetched}
        assert len(fetched) == 2 * len(files)  # a file is never divided
        events |= {str(e["event"]): e for e in fetched}
    assert len(events) == 2 * NUM_FILES
    table = Events.from_parquet(parquet / "reco_3.parquet")
    event = events["reco_3_0"]
    assert event["X"].shape == (3, NUM_CLIC_FEATURES)
    np.testing.assert_array_equal(event["X"][0, : len(TRACK_FEATURES)], table["track"]["X"][0])
    assert event["X"][0, -1] == 0
    np.testing.assert_array_equal(event["X"][1:], next(table["cluster"].split())["X"])
    assert event["ygen"][:, TARGETS.index("cls")].tolist() == [1, 0, 3]
    assert event["ygen"][:, TARGETS.index("jet_idx")].tolist() == [1, 0, 2]  # the pion is harder
    np.testing.assert_array_equal(event["ycand"][:, -1], event["ygen"][:, -1])
    assert event["account"].tolist() == [[table.scalars[n][0] for n in ACCOUNT_COLUMNS.names]]
    assert event["gen_particles"][:, 0].tolist() == [1, 3]
    alone = events["reco_3_1"]
    assert alone["X"].shape == (1, NUM_CLIC_FEATURES)
    assert alone["X"][0, CLUSTER_FEATURES.index("elemtype")] == 2


def test_metadata_tell_columns_units_and_provenance(data_dir):
    metadata = json.loads((data_dir / NAME / "1.0.0" / "metadata.json").read_text(encoding="utf-8"))
    assert metadata["columns"]["targets"] == list(TARGETS.names)
    assert metadata["units"]["X_cluster"] == list(CLUSTER_FEATURES.units)
    assert metadata["split_seed"] == SEED
    assert [s["source"] for s in metadata["source_files"]] == [f"reco_{i}.root" for i in range(NUM_FILES)]
    assert {"truth_version", "mlpf_version", "split_fractions"} <= metadata.keys()


def test_same_inputs_are_reused_and_others_need_overwrite(parquet, data_dir, tmp_path):
    data, version = copy_of(data_dir, tmp_path)
    stale = version.parent / "incomplete.1.0.0.0123456789abcdef"
    stale.mkdir()
    arguments = {"split_seed": SEED, "split_fractions": FRACTIONS}
    assert build.run(NAME, data, [parquet], shard=Shard(1, 2), **arguments).reused
    assert stale.exists()  # another job may be at work there
    assert build.run(NAME, data, [parquet], **arguments).reused
    assert not stale.exists()
    stale.mkdir()
    with pytest.raises(OutputExists, match=r"split_fractions was .* use --overwrite"):
        build.run(NAME, data, [parquet], split_seed=SEED, split_fractions=(1.0, 0.0, 0.0))
    fewer = sorted(parquet.glob("*.parquet"))[:-1]
    with pytest.raises(OutputExists, match=r"1 input file\(s\) removed, e.g. reco_5"):
        build.run(NAME, data, fewer, **arguments)
    summary = build.run(NAME, data, fewer, split_fractions=(1.0, 0.0, 0.0), overwrite=True)
    assert summary.events == {"train": 2 * (NUM_FILES - 1)}
    assert not stale.exists()
    assert [p.name for p in version.parent.glob("[!.]*")] == ["1.0.0"]
    with pytest.raises(DataError, match="no split 'valid', it has train"):
        open_split(NAME, source(data, valid_fraction=0.0), "valid")


def test_too_few_events_say_what_to_do(parquet, tmp_path):
    (one,) = list(parquet.glob("reco_0.parquet"))
    with pytest.raises(DataError, match=r"has no events.*give more events"):
        build.run(NAME, tmp_path, [one])
    assert not (tmp_path / NAME).exists()


def test_datasets_of_before_are_split_by_file(parquet, data_dir, tmp_path):
    data, version = copy_of(data_dir, tmp_path)
    metadata = json.loads((version / "metadata.json").read_text(encoding="utf-8"))
    assert metadata.pop("split_by") == "file"
    (version / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    assert build.run(NAME, data, [parquet], split_seed=SEED, split_fractions=FRACTIONS).reused


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("nothing/ttbar", "recipes are clic_edm4hep"),
        ("clic_edm4hep/t t", "one of ttbar, qq.*a name of your own"),
    ]
    + [
        (f"clic_edm4hep/{name}", "cannot be the name of a sample")
        for name in ("", "..", ".x", "a/b", "1.0.0")
    ],
)
def test_unknown_datasets_list_those_known(parquet, tmp_path, dataset, message):
    with pytest.raises(DataError, match=message):
        build.run(dataset, tmp_path, [parquet])


def test_a_failing_write_leaves_nothing_under_the_final_name(parquet, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(blocks, "serialize", full)
    with pytest.raises(DataError, match=r"No space left on device.*free space or choose another --data-dir"):
        build.run(NAME, tmp_path, [parquet], split_fractions=(1.0, 0.0, 0.0))
    assert not (tmp_path / NAME / "1.0.0").exists()
    assert list((tmp_path / NAME).glob("incomplete.*/*/*")) == []


def test_a_dataset_not_built_names_the_command(tmp_path):
    with pytest.raises(DataError, match=r"not built.*mlpf build clic_edm4hep/ttbar --data-dir .* --input"):
        open_split(NAME, source(tmp_path), "train")


def test_another_version_lists_those_there(data_dir):
    with pytest.raises(DataError, match=r"version 9.9.9 is not in .* which has 1\.0\.0"):
        open_split(NAME, source(data_dir, "9.9.9"), "train")


def test_other_columns_name_the_first_difference(data_dir, tmp_path):
    data, version = copy_of(data_dir, tmp_path)
    metadata = json.loads((version / "metadata.json").read_text(encoding="utf-8"))
    metadata["columns"]["X_cluster"][3] = "phi"
    (version / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    with pytest.raises(SchemaMismatch, match="cluster column 3 is 'phi', expected 'sin_phi'"):
        open_split(NAME, source(data), "train")


def test_other_shapes_are_a_mismatch(data_dir, tmp_path):
    data, version = copy_of(data_dir, tmp_path)
    features = json.loads((version / "features.json").read_text(encoding="utf-8"))
    features["featuresDict"]["features"]["X"]["tensor"]["shape"]["dimensions"][1] = "12"
    (version / "features.json").write_text(json.dumps(features), encoding="utf-8")
    with pytest.raises(SchemaMismatch, match=r"X has shape \(None, 12\), expected \(None, 17\)"):
        open_split(NAME, source(data), "train")


def test_a_dataset_of_others_without_metadata_opens(data_dir, tmp_path):
    data, version = copy_of(data_dir, tmp_path)
    (version / "metadata.json").unlink()
    opened = open_split(NAME, source(data), "train")
    assert opened.fetch([0]).fields == ("X", "ygen")
    with pytest.raises(DataError, match="no field 'energy'"):
        opened.fetch([0], ("energy",))


def test_lengths_are_kept_and_a_damaged_file_of_them_is_replaced(data_dir, tmp_path):
    data, version = copy_of(data_dir, tmp_path)
    lengths = open_split(NAME, source(data), "train").lengths
    for cache in version.glob(".lengths-train-*.npy"):
        cache.write_bytes(b"damaged")
    np.testing.assert_array_equal(open_split(NAME, source(data), "train").lengths, lengths)


@pytest.mark.parametrize("damage", ["notes", "{", "[1]", '{"source_files": [3]}'])
def test_a_folder_that_is_no_finished_dataset_is_replaced_with_overwrite_only(
    parquet, data_dir, tmp_path, damage
):
    data, version = copy_of(data_dir, tmp_path)
    if damage == "notes":
        shutil.rmtree(version)
        version.mkdir()
        (version / "notes.txt").write_text("mine", encoding="utf-8")
    else:
        (version / "metadata.json").write_text(damage, encoding="utf-8")
    before = {path: path.read_bytes() for path in version.iterdir()}
    arguments = {"split_seed": SEED, "split_fractions": FRACTIONS}
    with pytest.raises(OutputExists, match=r"1\.0\.0 is there and is no finished dataset.*--overwrite"):
        build.run(NAME, data, [parquet], **arguments)
    assert {path: path.read_bytes() for path in version.iterdir()} == before
    assert not build.run(NAME, data, [parquet], overwrite=True, **arguments).reused
    assert build.run(NAME, data, [parquet], **arguments).reused
    assert not (version / "notes.txt").exists()
