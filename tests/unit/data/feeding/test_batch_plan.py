import itertools
import math

import numpy as np
import pytest

from mlpf.data.feeding.batch_plan import (
    EMPTY_EVENT,
    WeightedEvents,
    bucket_edges,
    pad_events,
    pad_length,
    plan_epoch,
)
from mlpf.data.flat_tables import Table


def events_of(plan):
    return np.concatenate([b.indices[b.indices != EMPTY_EVENT] for b in plan.batches])


@pytest.mark.parametrize(("elements", "padded"), [(0, 32), (1, 32), (32, 32), (33, 64), (190, 192)])
def test_pad_length_is_the_next_multiple_of_the_unit(elements, padded):
    assert pad_length(elements, 32) == padded


def test_padding_hand_worked():
    table = Table({"a": np.array([[1], [2], [3]])}, np.array([0, 2, 2, 3]))
    padded = pad_events(table, np.array([2, EMPTY_EVENT, 0, 1, 0]), 3)["a"]
    assert padded[..., 0].tolist() == [[3, 0, 0], [0, 0, 0], [1, 2, 0], [0, 0, 0], [1, 2, 0]]
    assert padded.shape == (5, 3, 1)
    assert padded.dtype == np.float32


def test_bucket_edges_hand_worked():
    # 16 * 1.5 = 24 -> 32 -> 48 -> 72 -> 80 -> 120 -> 128 -> 192 > 150 -> 160
    assert bucket_edges(150, 16, 1.5) == (16, 32, 48, 80, 128, 160)


def test_bucket_edges_rise_by_whole_units_up_to_the_longest_event():
    edges = bucket_edges(401, 32, 1.3)

    assert edges[0] == 32
    assert edges[-1] == 416
    assert all(edge % 32 == 0 for edge in edges)
    assert all(b > a for a, b in itertools.pairwise(edges))


def test_larger_growth_makes_fewer_buckets():
    assert len(bucket_edges(1000, 32, 2.0)) < len(bucket_edges(1000, 32, 1.2))


def test_infinite_growth_makes_one_bucket():
    assert bucket_edges(401, 32, math.inf) == (416,)


def test_every_event_is_in_exactly_one_batch_of_its_group(rng):
    lengths = rng.integers(0, 200, 103)
    groups = [(np.arange(40), 8), (np.arange(40, 103), 5)]

    plan = plan_epoch(lengths, groups, bucket_edges(200, 16, 1.3), seed=3)

    assert sorted(events_of(plan)) == list(range(103))
    assert plan.num_events == 103
    for batch in plan.batches:
        used = batch.indices[batch.indices != EMPTY_EVENT]
        assert lengths[used].max() <= batch.length
        assert len(batch.indices) == (8 if used[0] < 40 else 5)


def test_at_most_one_batch_of_a_group_is_short(rng):
    plan = plan_epoch(rng.integers(1, 200, 103), [(np.arange(103), 8)], bucket_edges(200, 16, 1.3), seed=3)

    assert sum(EMPTY_EVENT in batch.indices for batch in plan.batches) == 1
    assert len(plan) == math.ceil(103 / 8)


def test_an_epoch_is_reproducible_and_differs_from_the_next(rng):
    lengths = rng.integers(1, 200, 64)
    edges = bucket_edges(200, 16, 1.3)

    def order(seed, epoch):
        return events_of(plan_epoch(lengths, [(np.arange(64), 8)], edges, seed=seed, epoch=epoch)).tolist()

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(1, 2)
    assert order(1, 1) != order(2, 1)


def test_buckets_are_interleaved_when_shuffled_and_ordered_when_not(rng):
    lengths = rng.integers(1, 200, 256)
    edges = bucket_edges(200, 16, 1.3)
    shuffled = [b.length for b in plan_epoch(lengths, [(np.arange(256), 8)], edges, seed=1).batches]
    ordered = [b.length for b in plan_epoch(lengths, [(np.arange(256), 8)], edges).batches]

    assert shuffled != sorted(shuffled)
    assert ordered == sorted(ordered)


def test_padded_fraction_counts_padding_and_empty_events():
    # Three events of 8 elements in batches of two events of 16: 24 of 64 slots are real.
    plan = plan_epoch(np.array([8, 8, 8]), [(np.arange(3), 2)], (16,))

    assert plan.padded_fraction == pytest.approx(1 - 24 / 64, abs=1e-12)


def test_no_events_make_no_batches():
    assert len(plan_epoch(np.empty(0, int), [(np.empty(0, int), 4)], (16,))) == 0


@pytest.mark.parametrize("seed", [None, (3, 0)])
@pytest.mark.parametrize("weight", [0.3, 0.5, 1.0, 2.0, 2.5])
def test_a_weight_is_the_number_of_passes_per_epoch(weight, seed):
    dataset = WeightedEvents(np.arange(100, 120), weight)

    taken = np.zeros(20, int)
    for epoch in range(1, 8):
        drawn = dataset.draw(epoch, seed)
        assert len(drawn) == dataset.num_draws == weight * 20
        np.testing.assert_array_equal(drawn, dataset.draw(epoch, seed))
        taken += np.bincount(drawn - 100, minlength=20)
        # No event is taken more than once more often than another, from the first epoch on.
        assert np.ptp(taken) <= 1


def test_half_of_the_events_are_in_one_epoch_and_the_others_in_the_next():
    dataset = WeightedEvents(np.arange(10), 0.5)
    first, second, third = (dataset.draw(epoch, (1, 0)).tolist() for epoch in (1, 2, 3))

    assert sorted(first + second) == list(range(10))
    assert sorted(third) != sorted(first)  # another order of the next pass


def test_a_small_weight_takes_one_event_and_no_events_none():
    assert len(WeightedEvents(np.arange(10), 0.01).draw(0, None)) == 1
    assert len(WeightedEvents(np.arange(0), 2.0).draw(0, (1, 0))) == 0


def test_batches_of_groups_are_mixed_over_the_epoch(rng):
    groups = [(np.arange(400), 4), (np.arange(400, 800), 4)]
    plan = plan_epoch(rng.integers(1, 60, 800), groups, (16, 32, 48, 64), seed=1)

    first = [batch.indices.max() < 400 for batch in plan.batches]
    # 200 batches; halves of an epoch hold about as many of each group (6 standard deviations)
    assert abs(sum(first[:100]) - 50) < 6 * 3.6


def test_elements_are_counted_without_padding():
    lengths = np.array([3, 40, 33, 64])
    plan = plan_epoch(lengths, [(np.array([0, 1, 3]), 2)], (32, 64))
    assert (plan.num_events, plan.num_elements) == (3, 107)
    slots = sum(batch.length * len(batch.indices) for batch in plan.batches)
    assert plan.padded_fraction == 1 - 107 / slots
