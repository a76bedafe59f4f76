"""The split of a dataset: by file if there are enough files, else by event."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as pq

from mlpf.config.data_schema import SPLITS
from mlpf.errors import DataError

DEFAULT_FRACTIONS = (0.8, 0.1, 0.1)
MAX_SEEDS_TRIED = 100


def split_of_file(base_name: str, seed: int, fractions: Sequence[float]) -> str:
    """Return the split of a file, which depends on its name and the seed only.

    Args:
        base_name: file name without folder and suffix.
        seed: seed of the split.
        fractions: share of each of ``SPLITS``, summing to 1.
    """
    return _split_of(f"{seed}:{base_name}", fractions)


def split_of_event(key: str, seed: int, fractions: Sequence[float]) -> str:
    """Return the split of an event, which depends on its key and the seed only.

    Args:
        key: ``<file base name>_<event number>``.
        seed: seed of the split.
        fractions: share of each of ``SPLITS``, summing to 1.
    """
    return _split_of(f"{seed}:split:{key}", fractions)


def _split_of(text: str, fractions: Sequence[float]) -> str:
    """Return the split at the place in 0 ... 1 given by the hash of a text."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    position = int.from_bytes(digest, "big") / 2**64
    edges = np.cumsum(fractions)[:-1]
    return SPLITS[int(np.searchsorted(edges, position, side="right"))]


def event_keys(base_name: str, numbers: Sequence[int]) -> list[str]:
    """Return the keys of events of the file called ``base_name``."""
    return [f"{base_name}_{number}" for number in numbers]


@dataclass(frozen=True)
class EventSelection:
    """The events of a file that are in one split.

    Attributes:
        split: name of the split.
        seed: seed of the split.
        fractions: share of each of ``SPLITS``; empty = all events are in it, because the split is by file.
    """

    split: str
    seed: int = 0
    fractions: tuple[float, ...] = ()

    def holds(self, key: str) -> bool:
        """Return whether the event of this key is in the split."""
        return not self.fractions or split_of_event(key, self.seed, self.fractions) == self.split


@dataclass(frozen=True)
class Partition:
    """How files, or their events, are distributed over splits.

    Attributes:
        by: ``file`` or ``event``.
        files: split -> files with events of it, for the splits whose fraction is not zero.
        seed: seed of the split.
        fractions: share of each of ``SPLITS``.
    """

    by: Literal["file", "event"]
    files: dict[str, list[Path]]
    seed: int
    fractions: tuple[float, ...]

    def selection(self, split: str) -> EventSelection:
        """Return which events of ``files[split]`` are in this split."""
        return EventSelection(split, self.seed, self.fractions if self.by == "event" else ())

    def describe(self) -> str:
        """Return one line on a split by event."""
        count = len({path for paths in self.files.values() for path in paths})
        return (
            f"{count} {'file is' if count == 1 else 'files are'} too few for a split by file: events are "
            f"split one by one, by a hash of their key and seed {self.seed}"
        )


def partition(files: Sequence[Path], seed: int, fractions: Sequence[float]) -> Partition:
    """Distribute whole files over the splits, or single events if a split would get no file.

    Args:
        files: parquet files of ``mlpf postprocess``; read only if events are distributed.
        seed: seed of the split.
        fractions: share of each of ``SPLITS``, summing to 1.

    Raises:
        DataError: a split gets no event.
    """
    shares = tuple(float(fraction) for fraction in fractions)
    splits: dict[str, list[Path]] = {n: [] for n, f in zip(SPLITS, shares, strict=True) if f > 0}
    for path in files:
        splits[split_of_file(path.stem, seed, shares)].append(path)
    if all(splits.values()):
        return Partition("file", splits, seed, shares)
    keys = [key for path in files for key in stored_keys(path)]
    counts = _counts(keys, seed, shares)
    for name in splits:
        if not counts[name]:
            raise DataError(_no_events(name, len(keys), len(files), seed, shares, keys))
    return Partition("event", {name: list(files) for name in splits}, seed, shares)


def stored_keys(path: Path) -> list[str]:
    """Return the keys of all events in a parquet file."""
    return event_keys(path.stem, pq.read_table(path, columns=["event"])["event"].to_pylist())


def _counts(keys: Sequence[str], seed: int, fractions: Sequence[float]) -> dict[str, int]:
    """Return split -> number of events."""
    found = [split_of_event(key, seed, fractions) for key in keys]
    return {name: found.count(name) for name in SPLITS}


def _no_events(
    split: str, num_events: int, num_files: int, seed: int, fractions: Sequence[float], keys: Sequence[str]
) -> str:
    wanted = [name for name, fraction in zip(SPLITS, fractions, strict=True) if fraction > 0]
    good = "none"
    if num_events >= len(wanted):
        seeds = range(MAX_SEEDS_TRIED)
        found = (s for s in seeds if all(_counts(keys, s, fractions)[name] for name in wanted))
        good = str(next(found, "none"))
    return (
        f"split {split!r} has no events: none of {num_events} events in {num_files} file(s) falls into it "
        f"with seed {seed} and fractions {','.join(f'{f:g}' for f in fractions)}; give more events, other "
        f"--split-fractions or another --split-seed (first that works: {good})"
    )
