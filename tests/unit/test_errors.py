"""What the command line says of an error of a library is one line."""

import pytest

from mlpf.errors import one_line


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("no such key"), "ValueError: no such key"),
        (OSError("first\n\n  second\tthird\n"), "OSError: first second third"),
        (EOFError(), "EOFError"),
        (RuntimeError(" \n "), "RuntimeError"),
    ],
)
def test_type_and_message_on_one_line(error, expected):
    assert one_line(error) == expected


def test_a_long_message_is_cut():
    assert one_line(ValueError("x" * 1000)) == "ValueError: " + "x" * 188
    assert one_line(ValueError("x" * 1000), 14) == "ValueError: xx"
