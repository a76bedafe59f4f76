"""Prepared sets of others: plain TFDS directories without what ours add."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from mlpf.config.data_schema import DatasetSourceConfig
from mlpf.config.schema import Config
from mlpf.data.dataset.examples import make_examples
from mlpf.data.dataset.split import open_split
from mlpf.data.events import Events
from mlpf.errors import DataError, SchemaMismatch
from mlpf.physics.features import CLUSTER_FEATURES, HIT_FEATURES, HIT_TRACK_FEATURES, TARGETS, TRACK_FEATURES
from mlpf.physics.schemas import SCHEMAS
from mlpf.workflows import train
from tests.support.events import one_by_one
from tests.support.models import TINY_NETWORK
from tests.support.parquet_files import write_parquet

NAME, VERSION = "clic_edm_ttbar_pf", "1.5.0"
FIELDS = ("X", "ygen", "ycand")
NUM_TRAIN = 60
Y_FEATURES = ["typ", *TARGETS.names[1:]]


def publish(folder, examples, metadata, target_columns):
    """Build a set as the published recipes do: float lists, splits train and test, no lists of particles."""
    widths = {"X": examples[0]["X"].shape[1], **dict.fromkeys(FIELDS[1:], target_columns)}

    class Published(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.5.0")
        name = NAME
        pkg_dir_path = folder

        def _info(self):
            features = {f: tfds.features.Tensor(shape=(None, w), dtype=np.float32) for f, w in widths.items()}
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                metadata=tfds.core.MetadataDict(metadata),
            )

        def _split_generators(self, dl_manager):
            del dl_manager  # nothing to fetch
            return {"train": self._examples(0, NUM_TRAIN), "test": self._examples(NUM_TRAIN, len(examples))}

        def _generate_examples(self):
            return self._examples(0, 0)

        def _examples(self, first, last):
            for i in range(first, last):
                kept = {f: examples[i][f][:, : widths[f]] for f in FIELDS}
                yield i, kept

    tfds.disable_progress_bar()
    Published(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parquet")
    made = make_examples(Events.from_parquet(write_parquet(folder / "a.parquet", NUM_TRAIN + 10)), "a")
    return [made[i] for i in range(len(made))]


@pytest.fixture(scope="module")
def published(examples, tmp_path_factory):
    metadata = {
        "x_features_track": list(TRACK_FEATURES.names),
        "x_features_cluster": list(CLUSTER_FEATURES.names),
        "y_features": Y_FEATURES,
    }
    return publish(tmp_path_factory.mktemp("published"), examples, metadata, len(TARGETS))


def source(data_dir, **keys):
    return DatasetSourceConfig(version=VERSION, data_dir=str(data_dir), **keys)


def fingerprints(split):
    return [event["X"].tobytes() for event in split.fetch(range(split.num_events), ("X",)).elements.split()]


def test_a_published_set_opens_with_its_values_unchanged(published, examples):
    test = open_split(NAME, source(published), "test")
    assert test.num_events == 10
    assert sorted(test.fields) == sorted(FIELDS)
    wanted = {example["X"].tobytes(): example for example in examples[NUM_TRAIN:]}
    for event in one_by_one(test.fetch(range(10), FIELDS)):
        for field in FIELDS:
            np.testing.assert_array_equal(event[field], wanted[event["X"].tobytes()][field])


def test_validation_events_are_taken_out_of_train(published, examples):
    train_split, valid = (open_split(NAME, source(published), name) for name in ("train", "valid"))
    assert train_split.num_events + valid.num_events == NUM_TRAIN
    assert 0 < valid.num_events < 20  # six expected
    kept, held_out = fingerprints(train_split), fingerprints(valid)
    assert set(kept).isdisjoint(held_out)
    assert {*kept, *held_out} == {example["X"].tobytes() for example in examples[:NUM_TRAIN]}
    rows = len(TARGETS), len(TRACK_FEATURES) + 1
    for split in (train_split, valid):
        events = split.fetch(range(split.num_events))
        assert split.lengths.tolist() == events.elements.counts.tolist()
        assert (events["ygen"].shape[1], events["X"].shape[1]) == rows
    assert fingerprints(open_split(NAME, source(published), "valid")) == held_out


@pytest.mark.parametrize("change", [{"valid_fraction": 0.5}, {"valid_seed": 1}])
def test_fraction_and_seed_change_the_share(published, change):
    before, after = (fingerprints(open_split(NAME, source(published, **k), "valid")) for k in ({}, change))
    assert before != after
    if "valid_fraction" in change:
        assert 20 <= len(after) <= 40  # 30 expected, standard deviation 3.9
        assert set(before) < set(after)  # a larger share keeps the events of a smaller one


def test_without_a_share_train_is_whole_and_valid_is_missing(published):
    whole = source(published, valid_fraction=0.0)
    assert open_split(NAME, whole, "train").num_events == NUM_TRAIN
    with pytest.raises(DataError, match="no split 'valid', it has test, train"):
        open_split(NAME, whole, "valid")
    with pytest.raises(DataError, match=r"no event is left for 'valid' with valid_fraction 1e-06 .* of 60"):
        open_split(NAME, source(published, valid_fraction=1e-6), "valid")


@pytest.mark.parametrize(
    ("key", "position", "message"),
    [
        ("x_features_cluster", 5, "x_features_cluster: cluster column 5 is 'wrong', expected 'energy'"),
        ("x_features_track", 1, "x_features_track: track column 1 is 'wrong', expected 'pt'"),
        ("y_features", 2, "y_features column 2 is 'wrong', expected 'pt'"),
    ],
)
def test_published_names_of_columns_are_compared(published, tmp_path, key, position, message):
    shutil.copytree(published / NAME, tmp_path / NAME)
    path = tmp_path / NAME / VERSION / "metadata.json"
    metadata = json.loads(path.read_text(encoding="utf-8"))
    metadata[key][position] = "wrong"
    path.write_text(json.dumps(metadata), encoding="utf-8")
    with pytest.raises(SchemaMismatch, match=message):
        open_split(NAME, source(tmp_path), "train")


def test_published_hits_have_no_jets_which_become_zero(tmp_path):
    schema = SCHEMAS["clic_hits"]
    made = make_examples(
        Events.from_parquet(write_parquet(tmp_path / "a.parquet", NUM_TRAIN + 2, schema)), "a"
    )
    metadata = {
        "x_features_track": list(HIT_TRACK_FEATURES.names),
        "x_features_hit": list(HIT_FEATURES.names),
        "y_features": Y_FEATURES[:-1],
    }
    publish(tmp_path, [made[i] for i in range(len(made))], metadata, len(TARGETS) - 1)
    test = open_split(NAME, source(tmp_path), "test", schema)
    for event in one_by_one(test.fetch(range(2), FIELDS)):
        assert event["ygen"].shape == (len(event["X"]), len(TARGETS))
        assert not event["ygen"][:, TARGETS.index("jet_idx")].any()
        assert event["ygen"][:, TARGETS.index("pt")].any()
    with pytest.raises(SchemaMismatch, match=r"X has shape \(None, 15\), expected \(None, 17\)"):
        open_split(NAME, source(tmp_path), "test")


def configuration(data_dir):
    return Config.model_validate(
        {
            "setup": {"num_epochs": 1, "lr_schedule": "none"},
            "batching": {"bucket_by_sequence_length": False},
            "parameters": TINY_NETWORK,
            "callbacks": {"tensorboard": False, "physics": {"every": 0}},
            "train_test_datasets": {"physical": {"batch_per_gpu": 8, "datasets": [NAME]}},
            "validation_dataset": NAME,
            "evaluation_datasets": {},
            "datasets": {NAME: {"version": VERSION, "data_dir": str(data_dir)}},
        }
    )


def test_a_model_trains_on_a_published_set(published, tmp_path):
    summary = train.run(configuration(published), tmp_path / "run", ntrain=16)
    (record,) = summary.history
    assert record["num_events"] == 16
    assert np.isfinite([record["loss"], record["val_loss"]]).all()


def test_a_damaged_record_met_while_training_is_one_line(published, tmp_path):
    """Of a set too large for memory, records are read by threads of TensorFlow."""
    shutil.copytree(published / NAME, tmp_path / NAME)
    (path,) = (tmp_path / NAME / VERSION).glob("*train.array_record*")
    assert len(open_split(NAME, source(tmp_path), "train").lengths)  # known from an earlier run
    before, content = path.stat(), bytearray(path.read_bytes())
    middle = slice(len(content) // 4, len(content) // 2)
    content[middle] = bytes(reversed(content[middle]))
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    config = configuration(tmp_path).with_overrides({"batching.memory_limit_gb": 0.0})
    with pytest.raises(DataError, match=r"split 'train' cannot be read .*build the dataset again$"):
        train.run(config, tmp_path / "run")
