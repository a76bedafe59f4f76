"""Flat tables of a chunk of events: what readers produce, and what features and truth are computed from.

All events of a chunk lie behind each other; ``offsets`` says where each begins. An index into a table is
always an index into the whole chunk, so no step needs a loop over events.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# Values of the hit column "system".
SYSTEM_ECAL = 0
SYSTEM_HCAL = 1
SYSTEM_OTHER = 2


def offsets_from_counts(counts: npt.NDArray[np.integer]) -> IntArray:
    """Return [0, n0, n0 + n1, ...], one longer than ``counts``."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


def expand_ranges(starts: npt.NDArray[np.integer], counts: npt.NDArray[np.integer]) -> IntArray:
    """Concatenate the ranges [start, start + count)."""
    total = offsets_from_counts(counts)
    return np.arange(total[-1]) + np.repeat(np.asarray(starts, dtype=np.int64) - total[:-1], counts)


@dataclass(frozen=True)
class Table:
    """Columns of equal length n over E events.

    Attributes:
        columns: name -> array of shape [n].
        offsets: [E + 1], rows of event e are offsets[e] to offsets[e + 1].
    """

    columns: dict[str, npt.NDArray]
    offsets: IntArray

    def __getitem__(self, name: str) -> npt.NDArray:
        """Return one column."""
        return self.columns[name]

    def __len__(self) -> int:
        """Return the number of rows n."""
        return int(self.offsets[-1])

    @property
    def counts(self) -> IntArray:
        """Rows per event, [E]."""
        return np.diff(self.offsets)

    @property
    def event(self) -> IntArray:
        """Event of each row, [n]."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.counts)


@dataclass(frozen=True)
class Relation:
    """Links between two tables, arrays of shape [L].

    Attributes:
        source: row of the first table.
        target: row of the second table.
        weight: weight of the link; ones where the file has none.
    """

    source: IntArray
    target: IntArray
    weight: FloatArray

    def __len__(self) -> int:
        """Return the number of links."""
        return len(self.source)


@dataclass(frozen=True)
class RawEvents:
    """A chunk of E events as the file has them, all tables flat.

    Attributes:
        number: [E] number of each event in its file.
        particles: pdg, status, charge, mass, px, py, pz; parent (row of the first parent, -1 = none).
        tracks: type, chi2, ndf, dEdx, dEdxError, radiusOfInnermostHit (mm), tanLambda, D0, phi, omega, Z0,
            time; type is 0 where the file has none.
        clusters: x, y, z, iTheta, phi, energy.
        hits: x, y, z, energy, time (ns), type (as stored), system (``SYSTEM_ECAL`` ...); time and type are 0
            where the file has none.
        candidates: pdg, charge, mass, px, py, pz of the baseline particle flow.
        cluster_hits: cluster -> hit.
        track_particles: track -> particle, weight = fraction of the track's hits.
        hit_particles: hit -> particle, weight proportional to the deposited energy.
        candidate_tracks, candidate_clusters: candidate -> element, in file order.
        bad: reason -> [E] True where the event cannot be used.
        counters: what was ignored while reading, by name.
    """

    number: IntArray
    particles: Table
    tracks: Table
    clusters: Table
    hits: Table
    candidates: Table
    cluster_hits: Relation
    track_particles: Relation
    hit_particles: Relation
    candidate_tracks: Relation
    candidate_clusters: Relation
    bad: dict[str, BoolArray] = field(default_factory=dict)
    counters: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        """Return the number of events E."""
        return len(self.number)
