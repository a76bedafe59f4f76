"""Ways to damage a file, each drawn from a random generator."""

import numpy as np


def truncate(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(0, len(data))]


def flip_bits(data: bytes, rng: np.random.Generator) -> bytes:
    out = bytearray(data)
    for position in rng.integers(0, len(out), rng.integers(1, 9)):
        out[position] ^= 1 << rng.integers(0, 8)
    return bytes(out)


def zero_block(data: bytes, rng: np.random.Generator) -> bytes:
    start, length = rng.integers(0, len(data)), rng.integers(1, 400)
    return data[:start] + bytes(len(data[start : start + length])) + data[start + length :]


def random_block(data: bytes, rng: np.random.Generator) -> bytes:
    start, length = rng.integers(0, len(data)), rng.integers(1, 60)
    return data[:start] + rng.bytes(len(data[start : start + length])) + data[start + length :]


def drop_block(data: bytes, rng: np.random.Generator) -> bytes:
    start = rng.integers(0, len(data))
    return data[:start] + data[start + rng.integers(1, 100) :]


def repeat_block(data: bytes, rng: np.random.Generator) -> bytes:
    start = rng.integers(0, len(data))
    block = data[start : start + rng.integers(1, 100)]
    return data[:start] + block + data[start:]


def swap_blocks(data: bytes, rng: np.random.Generator) -> bytes:
    length = int(rng.integers(1, max(2, len(data) // 4)))
    a, b = sorted(int(i) for i in rng.integers(0, max(1, len(data) - length), 2))
    b = max(b, a + length)
    first, second = data[a : a + length], data[b : b + length]
    return data[:a] + second + data[a + length : b] + first + data[b + length :]


def something_else(data: bytes, rng: np.random.Generator) -> bytes:
    return (b"", b"\0" * 100, rng.bytes(1000), b"<html>404</html>", data[4:])[rng.integers(0, 5)]


BYTES = (
    truncate,
    flip_bits,
    flip_bits,
    zero_block,
    random_block,
    drop_block,
    repeat_block,
    swap_blocks,
    something_else,
)


def damage(data: bytes, number: int, seed: int = 0) -> bytes:
    """Return ``data`` damaged in the way ``number``; the same number gives the same damage."""
    rng = np.random.default_rng([seed, number])
    return BYTES[number % len(BYTES)](data, rng)
