"""Random streams, with which every event and every stage of it can be made alone and in any order."""

import hashlib
from enum import IntEnum

import numpy as np

_PYTHIA_SEEDS = 899_999_999  # Pythia accepts 1 ... 900 000 000


class Stage(IntEnum):
    """Independent random streams of one event; a change in one does not change the others."""

    TRACKS = 0
    SHOWERS = 1
    NOISE = 2
    OVERLAY = 3
    GUN = 4


def _hash32(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")


def event_rng(seed: int, sample: str, event: int, stage: Stage) -> np.random.Generator:
    """Return the random stream of one stage of one event."""
    return np.random.default_rng([seed, _hash32(sample), event, int(stage)])


def pythia_seed(seed: int, sample: str, event: int) -> int:
    """Return the generator seed of one event, distinct for all events of a sample.

    Seeds are consecutive from a hashed start. Hashes of single events would collide in a large sample.
    """
    return 1 + (_hash32(f"{seed}/{sample}") + event) % _PYTHIA_SEEDS
