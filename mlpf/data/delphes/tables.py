"""Flat tables of a chunk of Delphes events, and functions that find and stack their rows."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mlpf.data.flat_tables import BoolArray, IntArray, Relation, Table


@dataclass(frozen=True)
class RawDelphes:
    """A chunk of E events as in a Delphes file, all tables flat. GeV and rad.

    Attributes:
        number: [E] number of each event in its file.
        particles: pdg, charge, pt, eta, phi, energy of the generator particles; status (1 = stable) if the
            file has it.
        tracks: pt, eta, phi, charge, and eta_outer, phi_outer at the calorimeter.
        towers: et, eta, phi, energy, energy_em, energy_had.
        charged: cls (class index), charge, pt, eta, phi of the charged candidates of the baseline.
        neutral: cls, eta, phi, energy of its neutral candidates.
        track_particle: [T] row of the particle of each track, -1 = unknown.
        charged_particle: [C] row of the particle of each charged candidate, -1 = unknown.
        tower_particles: tower -> particle.
        bad: reason -> [E] True for unusable events.
        counters: number of ignored items, by name.
    """

    number: IntArray
    particles: Table
    tracks: Table
    towers: Table
    charged: Table
    neutral: Table
    track_particle: IntArray
    charged_particle: IntArray
    tower_particles: Relation
    bad: dict[str, BoolArray] = field(default_factory=dict)
    counters: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        """Return the number of events E."""
        return len(self.number)


class RowFinder:
    """Finds rows by an integer key.

    Args:
        keys: [n]; of equal keys the first counts.
    """

    def __init__(self, keys: npt.NDArray[np.integer]) -> None:
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]

    def rows(self, wanted: npt.NDArray[np.integer]) -> IntArray:
        """Return the row of each key [m], -1 for an unknown key."""
        if not len(self._sorted):
            return np.full(len(wanted), -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
        return np.where(self._sorted[place] == wanted, self._order[place], -1)


def occurrence(values: npt.NDArray[np.integer]) -> IntArray:
    """Return how often each value [n] occurs before: 0 for its first occurrence, 1 for the second."""
    order = np.argsort(values, kind="stable")
    new = np.ones(len(values), dtype=bool)
    new[1:] = np.diff(values[order]) != 0
    first = np.flatnonzero(new)
    rank = np.empty(len(values), dtype=np.int64)
    rank[order] = np.arange(len(values)) - np.repeat(first, np.diff(np.append(first, len(values))))
    return rank
