import numpy as np
import pytest

from mlpf.data.batching import EMPTY_EVENT
from mlpf.data.input_pipeline import BatchLoader, EventPool, length_buckets
from mlpf.errors import DataError
from mlpf.physics.schemas import SCHEMAS
from tests.support.fake_split import FakeSplit


def one_event(split, index, field="X"):
    return split.fetch([index], (field,))[0][field]


@pytest.mark.parametrize("memory_limit", [0, 2**30])
def test_fetch_pads_with_zeros_and_crosses_datasets(memory_limit):
    first, second = FakeSplit(5, seed=1), FakeSplit(7, seed=2)
    pool = EventPool([(first, None), (second, 4)], memory_limit=memory_limit)

    batch = pool.fetch_padded(np.array([6, EMPTY_EVENT, 0]), 64)

    assert pool.num_events == 9
    assert pool.in_memory == (memory_limit > 0)
    assert batch["X"].shape == (3, 64, 17)
    np.testing.assert_array_equal(batch["X"][0, : second.lengths[1]], one_event(second, 1))
    np.testing.assert_array_equal(batch["ygen"][2, : first.lengths[0]], one_event(first, 0, "ygen"))
    assert not batch["X"][1].any()
    assert not batch["X"][0, second.lengths[1] :].any()


def test_events_are_located_in_their_dataset():
    pool = EventPool([(FakeSplit(5), 3), (FakeSplit(7), None)])

    number, position = pool.locate(np.array([0, 2, 3, 9]))

    assert number.tolist() == [0, 0, 1, 1]
    assert position.tolist() == [0, 2, 0, 6]


@pytest.mark.parametrize("memory_limit", [0, 2**30])
def test_events_can_be_fetched_without_padding(memory_limit):
    split = FakeSplit(5, seed=1)
    pool = EventPool([(split, None)], memory_limit=memory_limit)

    found = pool.fetch(np.array([3, 0]), ("X",))

    assert [event.keys() for event in found] == [{"X"}, {"X"}]
    np.testing.assert_array_equal(found[0]["X"], one_event(split, 3))
    np.testing.assert_array_equal(found[1]["X"], one_event(split, 0))


@pytest.mark.parametrize("memory_limit", [0, 2**30])
@pytest.mark.parametrize("schema", list(SCHEMAS.values()), ids=lambda schema: schema.name)
def test_widths_are_those_of_the_schema(schema, memory_limit):
    split = FakeSplit(3, seed=1, schema=schema.name)
    pool = EventPool([(split, None)], memory_limit=memory_limit, schema=schema)

    assert pool.fetch_padded(np.arange(3), 64)["X"].shape == (3, 64, schema.num_features)
    (batch,) = BatchLoader(pool, [(np.arange(3), 3)], [64]).epoch(0).batches
    assert batch["X"].shape == (3, 64, schema.num_features)
    assert batch["ygen"].shape == (3, 64, 8)


@pytest.mark.parametrize("memory_limit", [0, 2**30])
def test_bad_values_are_zeroed_and_counted(memory_limit):
    split = FakeSplit(3, seed=1)
    split._events[1]["X"][0, 3:5] = [np.nan, np.inf]
    pool = EventPool([(split, None)], memory_limit=memory_limit)

    batch = pool.fetch_padded(np.arange(3), 64)

    assert np.isfinite(batch["X"]).all()
    assert pool.num_bad_values == 2


@pytest.mark.parametrize("memory_limit", [0, 2**30])
@pytest.mark.parametrize("field", ["X", "ygen"])
@pytest.mark.parametrize("rows", [1, 5])
def test_targets_of_another_length_do_not_shift_those_behind_them(memory_limit, field, rows):
    split = FakeSplit(4, seed=1, min_elements=10)
    split._events[2][field] = split._events[2][field][:rows]

    def fetched():
        pool = EventPool([(FakeSplit(3), None), (split, None)], memory_limit=memory_limit)
        return pool.fetch_padded(np.arange(7), 64)

    with pytest.raises(DataError, match=rf"dataset 2 of 2, event 2: {field} has {rows} rows, expected"):
        fetched()


def test_an_epoch_yields_its_plan():
    pool = EventPool([(FakeSplit(30, seed=1), None)])
    loader = BatchLoader(pool, [(pool.events_of(0), 4)], length_buckets([pool], 8, 1.3), seed=5)

    epoch = loader.epoch(2)
    batches = list(epoch.batches)

    assert len(batches) == len(epoch.plan) == 8
    for planned, batch in zip(epoch.plan.batches, batches, strict=True):
        expected = pool.fetch_padded(planned.indices, planned.length)
        np.testing.assert_array_equal(batch["X"], expected["X"])
        np.testing.assert_array_equal(batch["ygen"], expected["ygen"])


def test_events_in_memory_are_read_once():
    split = FakeSplit(30, seed=1)
    pool = EventPool([(split, None)])
    reads = split.num_fetches
    loader = BatchLoader(pool, [(pool.events_of(0), 4)], length_buckets([pool], 8, 1.3))

    for epoch in range(3):
        list(loader.epoch(epoch).batches)

    assert split.num_fetches == reads
