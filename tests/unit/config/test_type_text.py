from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen, MultipleOf
from pydantic import Field

from mlpf.config.explain import explain
from mlpf.config.type_text import type_text, value_text


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (bool, "bool"),
        (str | None, "str or null"),
        (Annotated[str, MinLen(1)], "str, not empty"),
        (Annotated[int, Ge(2), MultipleOf(2)], "int at least 2 and a multiple of 2"),
        (Annotated[int, Ge(0), Lt(4294967296)], "int at least 0 and below 4294967296"),
        (Annotated[float, Field(gt=0.0, lt=1.0)] | None, "float above 0 and below 1, or null"),
        (Annotated[int, Gt(0)] | Literal["epoch"], "int above 0, or epoch"),
        (Literal[False, True, "sqrt"], "one of false, true, sqrt"),
        (Literal[True] | None, "true or null"),
        (list[Annotated[float, Gt(0)]], "list of float above 0"),
        (Annotated[list[int], MinLen(2), MaxLen(2)] | None, "list of int, exactly 2, or null"),
        (Annotated[list[int], MaxLen(3)], "list of int, at most 3"),
        (dict[str, Annotated[float, Gt(0), Le(1000)]], "float above 0 and at most 1000, by name"),
        (dict[str, Any], "any value, by name"),
    ],
)
def test_a_type_in_words(annotation, text):
    assert type_text(annotation) == text


def test_values_are_those_of_yaml():
    assert [value_text(value) for value in (None, True, False, 0, "adam")] == [
        "null",
        "true",
        "false",
        "0",
        "adam",
    ]


def test_no_key_shows_a_type_of_python():
    for key in explain():
        assert not any(word in key.type for word in ("Annotated", "Optional", "Union", "[", "(")), key
