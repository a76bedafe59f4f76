import numpy as np
import pytest

from mlpf.data.feeding.batch_loader import BatchLoader, EventPool, length_buckets
from mlpf.data.feeding.batch_plan import EMPTY_EVENT, WeightedEvents
from mlpf.errors import DataError
from mlpf.physics.schemas import SCHEMAS
from tests.support.fake_split import FakeSplit


def one_event(split, index, field="X"):
    return split.fetch([index], (field,))[field]


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
    first, second = FakeSplit(5, seed=1), FakeSplit(3, seed=2)
    pool = EventPool([(first, None), (second, None)], memory_limit=memory_limit)

    found = pool.fetch(np.array([6, 3, 0, 7]), ("X",))

    assert found.fields == ("X",)
    expected = [one_event(second, 1), one_event(first, 3), one_event(first, 0), one_event(second, 2)]
    assert found.elements.counts.tolist() == [len(X) for X in expected]
    np.testing.assert_array_equal(found["X"], np.concatenate(expected))


@pytest.mark.parametrize("memory_limit", [0, 2**30])
def test_a_share_of_a_batch_without_any_event_is_empty(memory_limit):
    pool = EventPool([(FakeSplit(5, seed=1), None)], memory_limit=memory_limit)

    batch = pool.fetch_padded(np.array([EMPTY_EVENT, EMPTY_EVENT]), 64)

    assert {name: values.shape for name, values in batch.items()} == {"X": (2, 64, 17), "ygen": (2, 64, 8)}
    assert not any(values.any() for values in batch.values())


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
@pytest.mark.parametrize("rows", [1, 5])
def test_an_event_of_another_length_does_not_shift_those_behind_it(memory_limit, rows):
    split = FakeSplit(4, seed=1, min_elements=10)
    for field in ("X", "ygen"):
        split._events[2][field] = split._events[2][field][:rows]

    def fetched():
        pool = EventPool([(FakeSplit(3), None), (split, None)], memory_limit=memory_limit)
        return pool.fetch_padded(np.arange(7), 64)

    with pytest.raises(
        DataError, match=rf"dataset 2 of 2, event 2: {rows} rows, expected {split.lengths[2]}"
    ):
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


def of_ranks(num_ranks, seed=5, num_events=70, sizes=(12, 6), **changes):
    """The same loader on each of several ranks, over two groups, and its pool."""
    pool = EventPool([(FakeSplit(num_events, seed=1), None)], **changes)
    events = pool.events_of(0)
    groups = [(events[:40], sizes[0]), (events[40:], sizes[1])]
    edges = length_buckets([pool], 8, 1.3)
    return pool, [BatchLoader(pool, groups, edges, seed, (rank, num_ranks)) for rank in range(num_ranks)]


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_ranks_share_every_batch_of_one_plan(num_ranks):
    pool, loaders = of_ranks(num_ranks)
    whole = BatchLoader(pool, loaders[0]._groups, loaders[0]._edges, 5)

    epochs = [loader.epoch(3) for loader in loaders]
    by_rank = [[{k: v.numpy() for k, v in batch.items()} for batch in epoch.batches] for epoch in epochs]

    expected = list(whole.epoch(3).batches)
    assert [len(batches) for batches in by_rank] == [len(expected)] * num_ranks
    for parts, batch in zip(zip(*by_rank, strict=True), expected, strict=True):
        assert len({part["X"].shape for part in parts}) == 1
        for name in ("X", "ygen"):
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), batch[name])
    for epoch in epochs:
        assert len(epoch.plan) == len(expected)
        assert sorted(np.concatenate([b.indices[b.indices >= 0] for b in epoch.plan.batches])) == [*range(70)]


def test_a_rank_reads_only_its_own_events():
    class Counting(FakeSplit):
        read = ()

        def fetch(self, indices, fields=("X", "ygen")):
            self.read = [*self.read, *np.asarray(indices).tolist()]
            return super().fetch(indices, fields)

    read = []
    for rank in range(2):
        split = Counting(30, seed=1)
        pool = EventPool([(split, None)], memory_limit=0)
        loader = BatchLoader(pool, [(pool.events_of(0), 6)], length_buckets([pool], 8, 1.3), 2, (rank, 2))
        list(loader.epoch(1).batches)
        read += split.read

    assert sorted(read) == list(range(30))


@pytest.mark.parametrize("first_step", [0, 1, 5])
@pytest.mark.parametrize("rank", [0, 1])
def test_an_epoch_can_start_in_its_middle(first_step, rank):
    _, loaders = of_ranks(2)
    all_batches = list(loaders[rank].epoch(4).batches)

    epoch = loaders[rank].epoch(4, first_step)
    rest = list(epoch.batches)

    assert len(epoch.plan) == len(all_batches)
    assert len(rest) == len(all_batches) - first_step
    for batch, expected in zip(rest, all_batches[first_step:], strict=True):
        for name in ("X", "ygen"):
            np.testing.assert_array_equal(batch[name], expected[name])


def test_an_epoch_that_is_done_yields_nothing_more():
    _, (loader,) = of_ranks(1)
    num_steps = len(loader.plan(1))

    assert list(loader.epoch(1, num_steps).batches) == []
    with pytest.raises(ValueError, match=f"epoch 1 has {num_steps} batches, cannot start after"):
        loader.epoch(1, num_steps + 1)


@pytest.mark.parametrize("ranks", [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_that_does_not_exist_is_refused(ranks):
    pool, _ = of_ranks(1)
    with pytest.raises(ValueError, match=r"rank .* of \d"):
        BatchLoader(pool, [(pool.events_of(0), 4)], (40,), ranks=ranks)


def test_a_batch_that_ranks_cannot_share_evenly_is_refused():
    with pytest.raises(ValueError, match="a batch of 6 events is no multiple of 4 ranks"):
        of_ranks(4)


def test_the_fingerprint_tells_what_changes_the_batches():
    def of(**changes):
        return {loader.fingerprint() for loader in of_ranks(2, **changes)[1]}

    (same,) = of()
    assert of() == of(memory_limit=0) == {same}
    different = [of(seed=6), of(num_events=69), of(sizes=(12, 8)), of(sizes=(6, 6))]
    assert all(len(found) == 1 and found != {same} for found in different)
    pool, _ = of_ranks(1)
    edges = length_buckets([pool], 8, 1.3)
    shuffled = [
        BatchLoader(pool, [(e, 4)], edges, 5).fingerprint() for e in (np.arange(70), np.arange(70)[::-1])
    ]
    assert shuffled[0] != shuffled[1]
    assert BatchLoader(pool, [(np.arange(70), 4)], edges[1:], 5).fingerprint() != shuffled[0]


def test_weights_change_what_an_epoch_holds_and_not_how_many_batches():
    pool = EventPool([(FakeSplit(20, seed=1), None), (FakeSplit(30, seed=2), None)])
    datasets = [WeightedEvents(pool.events_of(0), 2.0), WeightedEvents(pool.events_of(1), 0.5)]
    loader = BatchLoader(pool, [(datasets, 4)], length_buckets([pool], 8, 1.3), seed=3)

    counts = []
    for epoch in (1, 2):
        plan = loader.plan(epoch)
        events = np.concatenate([batch.indices[batch.indices >= 0] for batch in plan.batches])
        counts.append(np.bincount(events, minlength=50))
        assert len(plan) == 14
        assert plan.num_events == 55 == len(events)
    assert (counts[0][:20] == 2).all()
    assert (counts[0][20:] + counts[1][20:] == 1).all()
    plain = BatchLoader(pool, [([WeightedEvents(s.events) for s in datasets], 4)], loader._edges, seed=3)
    assert plain.fingerprint() != loader.fingerprint()
    together = BatchLoader(pool, [(np.arange(50), 4)], loader._edges, seed=3).plan(1)
    for batch, same in zip(plain.plan(1).batches, together.batches, strict=True):
        np.testing.assert_array_equal(batch.indices, same.indices)
