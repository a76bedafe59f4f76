"""Keys that shape the batches change them."""

import numpy as np
import pytest

from mlpf.config.schema import Config
from mlpf.errors import DataError
from mlpf.runs import data as training_data
from tests.support.configs import SMALL
from tests.support.fake_split import FakeSplit


@pytest.fixture(autouse=True)
def _fake_data(monkeypatch):
    monkeypatch.setattr(training_data, "open_split", lambda *_: FakeSplit(24, seed=1, max_elements=40))


def plans(changes, **limits):
    """Shapes and number of the batches of training and validation."""
    config = Config.model_validate(SMALL).with_overrides(changes)
    train_loader, valid_loader = training_data.build_loaders(config, 1, **limits)
    return tuple(
        sorted((len(batch.indices), batch.length) for batch in loader.plan(epoch).batches)
        for loader, epoch in ((train_loader, 1), (valid_loader, 0))
    )


@pytest.mark.parametrize(
    ("changes", "which"),
    [
        ({"batching.batch_multiplier": 2}, 0),
        ({"batching.bucket_growth": 3.0}, 0),
        ({"batching.bucket_by_sequence_length": False}, 0),
        ({"train_test_datasets.physical.batch_per_gpu": 6}, 0),
        ({"train_test_datasets.physical.weights": {"a": 2.0}}, 0),
        ({"validation_batch_size": 5}, 1),
        ({"validation_num_events": 9}, 1),
    ],
)
def test_key_changes_the_batches(changes, which):
    assert plans(changes)[which] != plans({})[which]


def test_bucket_size_of_the_transformer_changes_the_batches():
    def lengths(size):
        parameters = {"model": "transformer", "bucket_size": size}
        config = Config.model_validate({**SMALL, "parameters": parameters})
        return {batch.length for batch in training_data.build_loaders(config, 1)[0].plan(1).batches}

    assert all(length % 8 == 0 for length in lengths(8))
    assert lengths(8) != lengths(20)


def test_one_bucket_is_as_long_as_the_longest_event():
    longest = int(np.ceil(FakeSplit(24, seed=1, max_elements=40).lengths.max() / 8)) * 8
    assert {length for _, length in plans({"batching.bucket_by_sequence_length": False})[0]} == {longest}


@pytest.mark.parametrize(("limit", "which"), [("ntrain", 0), ("ntest", 1)])
def test_limits_change_the_number_of_events(limit, which):
    assert plans({}, **{limit: 7})[which] != plans({})[which]


def test_setup_seed_changes_the_order():
    def order(seed):
        config = Config.model_validate(SMALL).with_overrides({"setup.seed": seed})
        return [batch.indices.tolist() for batch in training_data.build_loaders(config, 1)[0].plan(1).batches]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_events_that_need_more_bins_than_the_model_has_are_refused():
    with pytest.raises(DataError, match=r"an event has \d+ elements, the model takes 16; raise"):
        plans({"parameters.combined_graph_layer.max_num_bins": 2})


def test_ranks_share_batches_of_all_devices():
    config = Config.model_validate(SMALL)
    pairs = [training_data.build_loaders(config, 4, ranks=(rank, 2)) for rank in range(2)]

    for loaders in zip(*pairs, strict=True):
        epochs = [loader.epoch(1) for loader in loaders]
        sizes = [[batch["X"].shape[0] for batch in epoch.batches] for epoch in epochs]
        assert sizes[0] == sizes[1] == [len(batch.indices) // 2 for batch in epochs[0].plan.batches]
    assert len(pairs[0][0].plan(1).batches[0].indices) == 4 * 4


def test_weights_take_datasets_of_a_group_in_turn(monkeypatch):
    sizes = {"a": 24, "b": 10, "c": 8}
    monkeypatch.setattr(training_data, "open_split", lambda name, *_: FakeSplit(sizes[name], seed=1))
    groups = {
        "physical": {"batch_per_gpu": 4, "datasets": ["a", "b"], "weights": {"b": 1.5}},
        "gun": {"batch_per_gpu": 2, "datasets": ["c"], "weights": {"c": 0.5}},
    }
    datasets = {name: {"version": "1.0.0"} for name in sizes}
    config = Config.model_validate({**SMALL, "train_test_datasets": groups, "datasets": datasets})
    plan = training_data.build_loaders(config, 1)[0].plan(1)

    taken = np.zeros(3, int)
    for batch in plan.batches:
        events = batch.indices[batch.indices >= 0]
        owner = np.searchsorted([24, 34], events, side="right")
        assert len(batch.indices) == (2 if 2 in owner else 4)
        assert len({"gun" if number == 2 else "physical" for number in owner}) == 1
        taken += np.bincount(owner, minlength=3)
    assert taken.tolist() == [24, 15, 4]


def test_the_memory_limit_decides_what_stays_in_memory():
    def in_memory(limit):
        config = Config.model_validate(SMALL).with_overrides({"batching.memory_limit_gb": limit})
        return [loader.pool.in_memory for loader in training_data.build_loaders(config, 1)]

    assert in_memory(4.0) == [True, True]
    assert in_memory(0.0) == [False, False]
    # 24 events of at most 40 elements of (17 + 8) numbers of 4 bytes are less than 96,000 bytes.
    assert in_memory(96_000 / 1024**3) == [True, True]
    assert in_memory(5_000 / 1024**3) == [False, False]
