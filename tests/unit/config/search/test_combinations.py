import itertools

import pytest
from pydantic import TypeAdapter

from mlpf.config.search.combinations import MAX_GRID, combinations, involved, some_values
from mlpf.config.search.schema import ParameterSpace, SearchedKeys


def searched(keys):
    return TypeAdapter(SearchedKeys).validate_python(keys)


def test_a_small_space_is_walked_through():
    space = searched(
        {
            "a": {"choice": ["x", "y"]},
            "b": {"int": [1, 3], "when": {"a": "x"}},
            "c": {"boolean": True},
        }
    )
    found = combinations(space)
    assert len(found) == 2 * (3 + 1)
    assert {"a": "x", "b": 3, "c": False} in found
    assert {"a": "y", "c": True} in found


LARGE = {f"k{i}": {"choice": list(range(5))} for i in range(6)} | {
    "only": {"choice": ["p", "q"], "when": {"k0": [1, 2], "k1": 3}},
    "below": {"boolean": True, "when": {"only": "q"}},
}


def test_of_a_large_space_every_two_values_meet_that_can():
    space = searched(LARGE)
    found = combinations(space)
    assert 5**6 > MAX_GRID > len(found)
    for a, b in itertools.combinations([f"k{i}" for i in range(6)], 2):
        assert {(v[a], v[b]) for v in found} == set(itertools.product(range(5), range(5)))
    assert {(v["only"], v["k5"]) for v in found if "only" in v} == set(itertools.product("pq", range(5)))
    assert {(v["below"], v["k0"]) for v in found if "below" in v} == set(
        itertools.product([False, True], [1, 2])
    )
    assert all(("only" in v) == (v["k0"] in (1, 2) and v["k1"] == 3) for v in found)
    assert all(("below" in v) == (v.get("only") == "q") for v in found)


def test_the_same_space_gives_the_same_combinations():
    assert combinations(searched(LARGE)) == combinations(searched(LARGE))


@pytest.mark.parametrize(
    "given", [{"float": [1.0, 9.0]}, {"float": [1e-4, 1e-1], "log": True}, {"int": [1, 10**6]}]
)
def test_of_a_long_range_both_ends_and_some_within_are_looked_at(given):
    space = ParameterSpace.model_validate(given)
    values = some_values(space)
    assert (values[0], values[-1]) == pytest.approx(space.bounds, rel=1e-12)
    assert values == sorted(values)
    assert len(values) == 6


def test_numbers_within_a_range_are_not_whole_by_chance():
    assert any(value != int(value) for value in some_values(ParameterSpace(float=[16, 64])))


def test_values_that_have_to_do_with_a_refusal():
    space = searched({"a": {"int": [1, 4]}, "b": {"int": [1, 4]}, "c": {"int": [1, 4]}})
    found = involved({"a": 4, "b": 1, "c": 4}, space, lambda v: v["a"] + v["c"] > 6)
    assert found == {"a": 4, "c": 4}


def test_no_single_value_is_to_blame_for_two_refusals_at_once():
    space = searched({"a": {"int": [1, 4]}, "b": {"int": [1, 4]}})
    assert involved({"a": 4, "b": 4}, space, lambda v: v["a"] == 4 or v["b"] == 4) == {}


def test_a_changed_condition_changes_what_is_searched():
    space = searched({"a": {"choice": ["x", "y"]}, "b": {"int": [1, 2], "when": {"a": "x"}}})
    assert involved({"a": "x", "b": 2}, space, lambda v: v.get("b") == 2) == {"a": "x", "b": 2}
