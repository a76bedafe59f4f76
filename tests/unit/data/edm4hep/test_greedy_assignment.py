from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from mlpf.data.edm4hep.greedy_assignment import choose_in_turn, leading_rows
from mlpf.data.edm4hep.truth import TruthLinks, assign_elements, track_claims, visible_particles


def matrix(rows):
    return sparse.coo_array(np.array(rows, dtype=np.float64))


def played_one_by_one(wishes, queue):
    """The turns as they are told: an independent answer."""
    dense = wishes.toarray()
    chosen, taken = [-1] * len(dense), set()
    for row in queue:
        order = sorted(np.flatnonzero(dense[row]).tolist(), key=lambda c: (-dense[row, c], c))
        free = [c for c in order if c not in taken]
        if free:
            chosen[row] = free[0]
            taken.add(free[0])
    return chosen


def test_the_first_in_the_queue_gets_the_best_and_the_second_what_is_left():
    wishes = matrix([[5, 3, 0], [9, 3, 1]])
    assert choose_in_turn(wishes, np.array([0, 1])).tolist() == [0, 1]
    assert choose_in_turn(wishes, np.array([1, 0])).tolist() == [1, 0]


def test_who_is_displaced_asks_on_and_may_displace_another():
    # Column 0 keeps row 0; row 2, refused there, drives row 1 from column 1 to column 2.
    wishes = matrix([[9, 0, 0], [0, 5, 4], [9, 8, 0]])
    assert choose_in_turn(wishes, np.array([0, 2, 1])).tolist() == [0, 2, 1]


def test_who_finds_everything_taken_goes_without():
    assert choose_in_turn(matrix([[1], [2], [3]]), np.array([2, 1, 0])).tolist() == [-1, -1, 0]


def test_who_is_not_in_the_queue_takes_nothing():
    assert choose_in_turn(matrix([[9, 1], [1, 9]]), np.array([1])).tolist() == [-1, 1]


def test_of_equal_wishes_the_lower_column_comes_first():
    assert choose_in_turn(matrix([[2, 2, 2], [2, 2, 2]]), np.array([1, 0])).tolist() == [1, 0]


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (3, 2)])
def test_without_wishes_nobody_gets_anything(shape):
    nothing = sparse.coo_array(shape)
    assert choose_in_turn(nothing, np.arange(shape[0])).tolist() == [-1] * shape[0]


@given(st.data(), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_rounds_of_proposals_give_what_turns_give(data, rows, cols):
    # Few different weights, so that ties are common.
    dense = data.draw(
        st.lists(st.lists(st.integers(0, 4), min_size=cols, max_size=cols), min_size=rows, max_size=rows)
    )
    queue = np.array(
        data.draw(st.permutations(range(rows)))[: data.draw(st.integers(0, rows))], dtype=np.int64
    )
    wishes = matrix(dense)
    assert choose_in_turn(wishes, queue).tolist() == played_one_by_one(wishes, queue)


def test_the_worst_case_of_equal_wishes_is_right_too(rng):
    wishes = matrix(np.tile(rng.permutation(60) + 1.0, (60, 1)))
    queue = rng.permutation(60)
    assert choose_in_turn(wishes, queue).tolist() == played_one_by_one(wishes, queue)


def test_large_sparse_instances_agree(rng):
    wishes = sparse.random_array((300, 400), density=0.03, rng=rng, format="coo")
    queue = rng.permutation(300)[:250]
    assert choose_in_turn(wishes, queue).tolist() == played_one_by_one(wishes, queue)


def test_the_leading_row_has_the_largest_weight_and_the_lower_one_wins_a_tie():
    row, col = np.array([0, 1, 2, 3, 3]), np.array([0, 0, 2, 2, 0])
    assert leading_rows(row, col, np.array([1.0, 5.0, 7.0, 7.0, 2.0]), 4).tolist() == [1, -1, 2, -1]


def random_links(rng, particles=60, tracks=15, elements=12):
    """Crowded: few tracks and elements, weights and energies of few values."""

    def entries(num_cols, density, values):
        chosen = rng.random((particles, num_cols)) < density
        return sparse.csr_array(chosen * rng.choice(values, (particles, num_cols)))

    element_energy = entries(elements, 0.15, [0.5, 1.0, 1.0, 2.0])
    return TruthLinks(
        stable=rng.random(particles) < 0.9,
        energy=rng.choice([0.005, 1.0, 2.0, 2.0, 3.0, 40.0], particles),
        track_weight=entries(tracks, 0.1, [0.1, 0.3, 0.5, 0.7, 1.0]),
        hit_energy=element_energy,
        cluster_energy=element_energy,
        element_energy=element_energy,
        counters=Counter(),
    )


def assigned_one_by_one(links, charge):
    """The rules as they are told, particle by particle: an independent answer."""
    num = len(links.stable)
    visible = np.flatnonzero(visible_particles(links))
    queue = visible[np.argsort(-links.energy[visible], kind="stable")].tolist()
    claims, deposits = track_claims(links, charge).toarray(), links.element_energy.toarray()
    track_of, element_of, merged = [-1] * num, [-1] * num, [-1] * num
    tracks: dict[int, int] = {}
    owner: dict[int, int] = {}

    def best(row, allowed):
        columns = [c for c in np.flatnonzero(row).tolist() if allowed(c)]
        return min(columns, key=lambda c: (-row[c], c), default=-1)

    for p in queue:
        track_of[p] = best(claims[p], lambda t: t not in tracks)
        if track_of[p] >= 0:
            tracks[track_of[p]] = p
            continue
        element_of[p] = best(deposits[p], lambda c: c not in owner)
        if element_of[p] >= 0:
            owner[element_of[p]] = p
    for p in queue:
        if track_of[p] < 0 and element_of[p] < 0:
            merged[p] = owner.get(best(deposits[p], lambda c: c in owner), -1)
    return track_of, element_of, merged


@pytest.mark.parametrize("seed", range(60))
def test_all_particles_at_once_get_what_they_get_one_by_one(seed):
    rng = np.random.default_rng(seed)
    links, charge = random_links(rng), rng.choice([-1.0, 0.0, 1.0], 60)
    found = assign_elements(links, charge)
    assert [of.tolist() for of in found] == list(assigned_one_by_one(links, charge))
    assert (found[0] >= 0).any()
    assert (found[1] >= 0).any()
    assert (found[2] >= 0).any()
