import itertools
import math

import numpy as np
import pytest

from mlpf.data.batching import EMPTY_EVENT, bucket_edges, pad_length, plan_epoch


def events_of(plan):
    return np.concatenate([b.indices[b.indices != EMPTY_EVENT] for b in plan.batches])


@pytest.mark.parametrize(("elements", "padded"), [(0, 32), (1, 32), (32, 32), (33, 64), (190, 192)])
def test_pad_length_is_the_next_multiple_of_the_bin_size(elements, padded):
    assert pad_length(elements, 32) == padded


@pytest.mark.parametrize(
    ("elements", "padded"), [(0, 32), (32, 32), (33, 64), (97, 128), (225, 256), (257, 512)]
)
def test_events_that_fit_into_one_bin_do_not_fill_it(elements, padded):
    assert pad_length(elements, 256) == padded


def test_bins_that_are_no_multiple_of_the_short_unit_are_never_exceeded():
    assert [pad_length(n, 48) for n in (1, 33, 48, 49)] == [32, 48, 48, 96]


def test_buckets_start_below_one_bin():
    assert bucket_edges(300, 128, 1.3) == (32, 64, 96, 128, 256, 384)


def test_bucket_edges_rise_by_whole_bins_up_to_the_longest_event():
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


def test_elements_are_counted_without_padding():
    lengths = np.array([3, 40, 33, 64])
    plan = plan_epoch(lengths, [(np.array([0, 1, 3]), 2)], (32, 64))
    assert (plan.num_events, plan.num_elements) == (3, 107)
    slots = sum(batch.length * len(batch.indices) for batch in plan.batches)
    assert plan.padded_fraction == 1 - 107 / slots
