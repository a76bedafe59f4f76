"""Delphes ROOT files -> flat tables.

A reference holds the ``fUniqueID`` of its target within the event, not its position. The branches
of a file depend on its Delphes card, so the reader looks for them.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from mlpf.data.delphes.tables import RawDelphes, RowFinder
from mlpf.data.flat_tables import BoolArray, IntArray, Relation, Table, offsets_from_counts
from mlpf.data.source_file import SourceFile, readable_errors
from mlpf.errors import DataError
from mlpf.physics.particles import (
    CHARGED_HADRON,
    ELECTRON,
    MUON,
    NEUTRAL_HADRON,
    NONE,
    PHOTON,
    class_from_pdg,
)

TREE = "Delphes"
BAD_LENGTHS = "inconsistent lengths"
UNKNOWN_CHARGE = "charges that Delphes does not know"
# Delphes writes -999 for unknown codes; no particle has a charge of more than a few e.
MAX_CHARGE = 10
# Particles with pile-up first: references of towers reach them.
PARTICLE_BRANCHES = ("PileUpMix", "Particle")
TRACK_BRANCH, TOWER_BRANCH = "Track", "Tower"
# Branches of candidates and their class; NONE = class by PID.
CHARGED_BRANCHES = (
    {"PFChargedHadron": CHARGED_HADRON, "PFElectron": ELECTRON, "PFMuon": MUON},
    {"EFlowTrack": NONE},
)
NEUTRAL_BRANCHES = (
    {"PFNeutralHadron": NEUTRAL_HADRON, "PFPhoton": PHOTON},
    {"EFlowNeutralHadron": NEUTRAL_HADRON, "EFlowPhoton": PHOTON},
)
UNIQUE_ID = "fUniqueID"
STATUS = "Status"
TRACK_REFERENCE = "Particle"
TOWER_REFERENCES = "Particles"
# For files without nested lists: their lengths, and a branch with all references of an event.
TOWER_REFERENCE_COUNT = "Particles_size"
TOWER_REFERENCE_BRANCH = "TowerParticles"
TOWER_REFERENCE_LEAF = "ref"

Fields = dict[str, str]
PARTICLE_FIELDS: Fields = {
    "pdg": "PID",
    "charge": "Charge",
    "pt": "PT",
    "eta": "Eta",
    "phi": "Phi",
    "energy": "E",
    "id": UNIQUE_ID,
}
TRACK_FIELDS: Fields = {
    "pt": "PT",
    "eta": "Eta",
    "phi": "Phi",
    "eta_outer": "EtaOuter",
    "phi_outer": "PhiOuter",
    "charge": "Charge",
    "particle": TRACK_REFERENCE,
}
TOWER_FIELDS: Fields = {
    "et": "ET",
    "eta": "Eta",
    "phi": "Phi",
    "energy": "E",
    "energy_em": "Eem",
    "energy_had": "Ehad",
}
CHARGED_FIELDS: Fields = {
    "charge": "Charge",
    "pt": "PT",
    "eta": "Eta",
    "phi": "Phi",
    "particle": TRACK_REFERENCE,
}
NEUTRAL_FIELDS: Fields = {"eta": "Eta", "phi": "Phi", "energy": "E"}


@dataclass(frozen=True)
class _Found:
    """Branches of a file: the particles, and the candidates with their classes."""

    particles: str
    charged: dict[str, int]
    neutral: dict[str, int]


def read_events(source: SourceFile, chunk_events: int = 50) -> Iterator[RawDelphes]:
    """Read a file in chunks of events.

    Args:
        source: a ROOT file with a tree ``TREE``.
        chunk_events: largest number of events per chunk; bounds the memory.

    Yields:
        The chunks in file order.

    Raises:
        DataError: the file is damaged, or lacks a branch or leaf.
    """
    path = source.path
    with readable_errors(path):
        tree = source.root[TREE]
        leaves = {key.rsplit("/", 1)[-1] for key in tree.keys(full_paths=False)}
        num_events = int(tree.num_entries)
    found = _discover(path, leaves)
    for start in range(0, num_events, chunk_events):
        with readable_errors(path):
            chunk = _Chunk(tree, leaves, start, min(start + chunk_events, num_events)).read(found)
        yield chunk


def decode_references(array: ak.Array) -> ak.Array:
    """Return the numbers inside references as read by uproot.

    Args:
        array: ``TRef`` (records with ``ref``), ``TRefArray`` (records with ``refs``) or plain integers.

    Returns:
        Integers, one list level deeper for ``TRefArray``.
    """
    for name in ("ref", "refs"):
        if name in array.fields:
            return array[name]
    return array


def _discover(path: Path, leaves: set[str]) -> _Found:
    """Find the branches to read.

    Raises:
        DataError: a required branch is missing.
    """
    present = {leaf.split(".")[0] for leaf in leaves if "." in leaf}
    particles = next((name for name in PARTICLE_BRANCHES if name in present), None)
    families = [
        next((family for family in choices if present & set(family)), choices[0])
        for choices in (CHARGED_BRANCHES, NEUTRAL_BRANCHES)
    ]
    charged, neutral = ({n: v for n, v in family.items() if n in present} for family in families)
    needed = [(particles, PARTICLE_FIELDS), (TRACK_BRANCH, TRACK_FIELDS), (TOWER_BRANCH, TOWER_FIELDS)]
    needed += [(name, CHARGED_FIELDS | ({} if cls else {"pdg": "PID"})) for name, cls in charged.items()]
    needed += [(name, NEUTRAL_FIELDS) for name in neutral]
    for branch, fields in needed:
        if branch is None or branch not in present:
            raise DataError(
                f"{path}: no branch {branch or ' or '.join(PARTICLE_BRANCHES)}, found "
                f"{', '.join(sorted(present)) or 'none'}; add it to the Delphes card"
            )
        missing = [leaf for leaf in fields.values() if f"{branch}.{leaf}" not in leaves]
        if missing:
            raise DataError(
                f"{path}: leaf {branch}.{missing[0]} is missing; write branch {branch} with a class of "
                "Delphes that has it"
            )
    flat = {
        f"{TOWER_BRANCH}.{TOWER_REFERENCE_COUNT}",
        f"{TOWER_REFERENCE_BRANCH}.{TOWER_REFERENCE_LEAF}",
    }
    if f"{TOWER_BRANCH}.{TOWER_REFERENCES}" not in leaves and not flat <= leaves:
        raise DataError(
            f"{path}: leaf {TOWER_BRANCH}.{TOWER_REFERENCES} is missing, which says what particles a tower "
            "is made of; write the towers with the particles of Delphes"
        )
    assert particles is not None  # noqa: S101 - the loop above has checked it
    return _Found(particles, charged, neutral)


class _Chunk:
    """Reads the events start ... stop - 1 of a tree."""

    def __init__(self, tree: Any, leaves: set[str], start: int, stop: int):
        self._tree = tree
        self._leaves = leaves
        self._start, self._stop = start, stop
        self._bad: BoolArray = np.zeros(stop - start, dtype=bool)
        self._counters: Counter[str] = Counter()

    def read(self, found: _Found) -> RawDelphes:
        """Read all tables and resolve the references between them."""
        has_status = f"{found.particles}.{STATUS}" in self._leaves
        particles = self._table(found.particles, PARTICLE_FIELDS | ({"status": STATUS} if has_status else {}))
        tracks = self._table(TRACK_BRANCH, TRACK_FIELDS)
        towers, references = self._towers()
        charged = self._joined(found.charged, CHARGED_FIELDS)
        neutral = self._joined(found.neutral, NEUTRAL_FIELDS)
        finder = RowFinder(_keys(particles.event, particles["id"]))
        track_particle = self._resolve(finder, tracks.event, tracks["particle"])
        charged_particle = self._resolve(finder, charged.event, charged["particle"])
        target = self._resolve(finder, towers.event[references.source], references.target)
        known = target >= 0
        tower_particles = Relation(references.source[known], target[known], np.ones(int(known.sum())))
        number = np.arange(self._start, self._stop)
        return RawDelphes(
            number, particles, tracks, towers, charged, neutral, track_particle, charged_particle,
            tower_particles, {BAD_LENGTHS: self._bad}, self._counters,
        )  # fmt: skip

    def _array(self, leaf: str) -> ak.Array:
        array = self._tree[leaf].array(entry_start=self._start, entry_stop=self._stop, library="ak")
        return decode_references(array)

    def _table(self, branch: str, fields: Fields) -> Table:
        """Read one table. Events with columns of unequal length become empty and are marked bad."""
        arrays = {name: self._array(f"{branch}.{leaf}") for name, leaf in fields.items()}
        counts = {name: ak.to_numpy(ak.num(array, axis=1)).astype(np.int64) for name, array in arrays.items()}
        flat = {name: ak.to_numpy(ak.flatten(array, axis=1)) for name, array in arrays.items()}
        first = next(iter(counts.values()))
        unequal = np.any([count != first for count in counts.values()], axis=0)
        if unequal.any():
            self._bad |= unequal
            flat = {name: values[np.repeat(~unequal, counts[name])] for name, values in flat.items()}
            first = np.where(unequal, 0, first)
        if "charge" in flat:
            unknown = (flat["charge"] > MAX_CHARGE) | (flat["charge"] < -MAX_CHARGE)
            flat["charge"] = np.where(unknown, 0, flat["charge"])
            self._counters[UNKNOWN_CHARGE] += int(unknown.sum())
        return Table(flat, offsets_from_counts(first))

    def _towers(self) -> tuple[Table, Relation]:
        """Read the towers and their particles, as pairs of tower and unique id."""
        nested = f"{TOWER_BRANCH}.{TOWER_REFERENCES}"
        if nested in self._leaves:
            towers = self._table(TOWER_BRANCH, TOWER_FIELDS)
            lists = self._array(nested)
            agree = ak.to_numpy(ak.num(lists, axis=1)) == towers.counts
            lists = ak.flatten(lists[agree], axis=1)
            lengths, ids = ak.num(lists, axis=1), ak.flatten(lists, axis=1)
        else:
            towers = self._table(TOWER_BRANCH, TOWER_FIELDS | {"count": TOWER_REFERENCE_COUNT})
            all_ids = self._array(f"{TOWER_REFERENCE_BRANCH}.{TOWER_REFERENCE_LEAF}")
            given = np.bincount(towers.event, towers["count"], minlength=len(self._bad))
            agree = ak.to_numpy(ak.num(all_ids, axis=1)) == given
            agree[towers.event[towers["count"] < 0]] = False
            lengths, ids = towers["count"][agree[towers.event]], ak.flatten(all_ids[agree], axis=1)
        self._bad |= ~agree
        counts = np.zeros(len(towers), dtype=np.int64)
        counts[agree[towers.event]] = ak.to_numpy(lengths)
        source = np.repeat(np.arange(len(towers)), counts)
        return towers, Relation(source, ak.to_numpy(ids).astype(np.int64), np.ones(len(source)))

    def _joined(self, classes: dict[str, int], fields: Fields) -> Table:
        """Read candidates of several branches into one table; within an event, in the order of branches."""
        tables = [self._candidates(branch, cls, fields) for branch, cls in classes.items()]
        if not tables:
            columns = dict.fromkeys(("cls", *fields), np.zeros(0, dtype=np.int64))
            return Table(columns, offsets_from_counts(np.zeros(len(self._bad), dtype=np.int64)))
        order = np.argsort(np.concatenate([table.event for table in tables]), kind="stable")
        joined = {
            name: np.concatenate([table[name] for table in tables])[order] for name in tables[0].columns
        }
        return Table(joined, offsets_from_counts(np.sum([table.counts for table in tables], axis=0)))

    def _candidates(self, branch: str, cls: int, fields: Fields) -> Table:
        table = self._table(branch, fields if cls else fields | {"pdg": "PID"})
        columns = dict(table.columns)
        classes = np.full(len(table), cls)
        if not cls:
            # The branch holds charged particles only, whatever their codes are.
            classes = class_from_pdg(columns.pop("pdg"), np.ones(len(table)))
        return Table({"cls": classes, **columns}, table.offsets)

    def _resolve(self, finder: RowFinder, event: IntArray, ids: npt.NDArray) -> IntArray:
        """Return the row of the particle with each id. A missing particle becomes -1 and is counted."""
        row = finder.rows(_keys(event, ids))
        null = ids == 0
        row[null] = -1
        self._counters["null references"] += int(null.sum())
        self._counters["references to particles not in the file"] += int((~null & (row < 0)).sum())
        return row


def _keys(event: IntArray, ids: npt.NDArray) -> IntArray:
    """Return integers that are equal if event and unique id are."""
    return event << 32 | ids.astype(np.int64)
