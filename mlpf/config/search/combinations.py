"""Combinations of values of a search space, and the values that make a configuration refuse one."""

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mlpf.config.search.schema import ParameterSpace, full_conditions, same_value

Values = dict[str, Any]
Conditions = Mapping[str, Mapping[str, list[Any]]]

# Up to this number, all combinations of a space are checked. Of a larger space, a sample is checked.
MAX_GRID = 2000
NUM_RANDOM = 300
# Positions within a range that are checked, besides its ends.
_WITHIN = (0.1234, 0.3671, 0.6180, 0.8713)
_MAX_VALUES = 50


def some_values(space: ParameterSpace) -> list[Any]:
    """Return all values of a key; of a long range, both ends and a few in between."""
    known = space.values
    if known is not None and (space.choice is not None or len(known) <= _MAX_VALUES):
        return list(known)
    if known is not None:
        return [known[round(share * (len(known) - 1))] for share in (0, *_WITHIN, 1)]
    low, high = space.bounds or (0.0, 0.0)
    if space.log:
        return [low, *(low * (high / low) ** share for share in _WITHIN), high]
    return [low, *(low + (high - low) * share for share in _WITHIN), high]


def combinations(space: Mapping[str, ParameterSpace]) -> list[Values]:
    """Return combinations of values, each with the keys that are searched under it.

    A small space gives all combinations. A large one gives enough to contain every possible pair of values,
    and ``NUM_RANDOM`` random ones. The same space always gives the same combinations.
    """
    conditions = full_conditions(space)
    candidates = {key: some_values(space[key]) for key in conditions}
    grid = list(itertools.islice(_grid(list(conditions), candidates, conditions, {}), MAX_GRID + 1))
    if len(grid) <= MAX_GRID:
        return grid
    generator = random.Random(0)
    sets, seen = [], set()
    for a, b in itertools.combinations(conditions, 2):
        for i, j in itertools.product(range(len(candidates[a])), range(len(candidates[b]))):
            if (a, i, b, j) in seen:
                continue
            values = _drawn({a: candidates[a][i], b: candidates[b][j]}, candidates, conditions, generator)
            if values is not None:
                sets.append(values)
                seen |= set(_pairs(values, candidates))
    for _ in range(NUM_RANDOM):
        values = _drawn({}, candidates, conditions, generator)
        if values is not None:
            sets.append(values)
    return sets


def with_key(key: str, value: Any, conditions: Conditions) -> Values:
    """Return a value of a key together with the first values of the keys that it depends on."""
    return {**{name: wanted[0] for name, wanted in conditions[key].items()}, key: value}


def involved(
    refused: Values, space: Mapping[str, ParameterSpace], refuses: Callable[[Values], bool]
) -> Values:
    """Return the values of a refused combination for which a change of one alone makes it accepted.

    Args:
        refused: the combination.
        space: its search space.
        refuses: returns whether a combination is refused.

    Returns:
        Key -> value; empty if more than one value has to change.
    """
    conditions = full_conditions(space)
    return {
        key: value
        for key, value in refused.items()
        if any(
            not refuses(_completed({**refused, key: other}, space, conditions))
            for other in some_values(space[key])
            if not same_value(other, value)
        )
    }


def _completed(values: Values, space: Mapping[str, ParameterSpace], conditions: Conditions) -> Values:
    """Drop keys whose condition no longer holds. Give keys whose condition holds now their first value."""
    complete: Values = {}
    for key, needed in conditions.items():
        if _holds(needed, complete):
            complete[key] = values[key] if key in values else some_values(space[key])[0]
    return complete


def _holds(needed: Mapping[str, list[Any]], values: Values) -> bool:
    return all(
        name in values and any(same_value(values[name], value) for value in wanted)
        for name, wanted in needed.items()
    )


def _grid(
    keys: list[str], candidates: Mapping[str, list[Any]], conditions: Conditions, values: Values
) -> Iterator[Values]:
    if not keys:
        yield values
        return
    key, *rest = keys
    if not _holds(conditions[key], values):
        yield from _grid(rest, candidates, conditions, values)
        return
    for value in candidates[key]:
        yield from _grid(rest, candidates, conditions, {**values, key: value})


def _drawn(
    fixed: Values, candidates: Mapping[str, list[Any]], conditions: Conditions, generator: random.Random
) -> Values | None:
    """Return a random combination with the values in ``fixed``; None if they cannot occur together."""
    allowed = {key: [value] for key, value in fixed.items()}
    for key in fixed:
        for name, wanted in conditions[key].items():
            before = allowed.get(name, wanted)
            allowed[name] = [v for v in before if any(same_value(v, w) for w in wanted)]
            if not allowed[name]:
                return None
    values: Values = {}
    for key, needed in conditions.items():
        if _holds(needed, values):
            values[key] = generator.choice(allowed.get(key, candidates[key]))
    return values if fixed.keys() <= values.keys() else None


def _pairs(values: Values, candidates: Mapping[str, list[Any]]) -> Iterator[tuple[str, int, str, int]]:
    places = {
        key: next((i for i, v in enumerate(candidates[key]) if same_value(v, value)), -1)
        for key, value in values.items()
    }
    for a, b in itertools.combinations(places, 2):
        yield a, places[a], b, places[b]
