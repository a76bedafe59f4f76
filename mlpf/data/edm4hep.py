"""EDM4HEP ROOT files -> flat tables.

Branches are found by leaf name (``edm4hep_fields``). Collection ids differ from file to file, so references
go through the id table in the file's metadata.
"""

import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import awkward as ak
import cramjam
import numpy as np
import numpy.typing as npt
import uproot

from mlpf.data.edm4hep_fields import (
    CANDIDATE_CLUSTER_REFERENCES,
    CANDIDATE_FIELDS,
    CANDIDATE_TRACK_REFERENCES,
    CLUSTER_FIELDS,
    CLUSTER_HIT_REFERENCES,
    EXPECTED_COLLECTIONS,
    HIT_LINK_FIELDS,
    HIT_SYSTEMS,
    OPTIONAL_HIT_FIELDS,
    OPTIONAL_TRACK_FIELDS,
    PARENT_FIELDS,
    PARENT_REFERENCES,
    PARTICLE_FIELDS,
    STATE_FIELDS,
    STATE_NAMES,
    TRACK_FIELDS,
    TRACK_LINK_FIELDS,
    Fields,
    hit_fields,
)
from mlpf.data.tables import (
    BoolArray,
    IntArray,
    RawEvents,
    Relation,
    Table,
    expand_ranges,
    offsets_from_counts,
)
from mlpf.errors import DataError

BAD_LENGTHS = "inconsistent lengths"
BAD_RANGES = "inconsistent ranges"
BAD_NUMBERS = "not a number"

# What uproot and the decompressors raise on bytes that are not what the headers promise.
_READ_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AssertionError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    cramjam.DecompressionError,
    uproot.DeserializationError,
)


class _EventTree:
    """The events tree of one open file: leaf look-up, id table, reading of chunks."""

    def __init__(self, path: Path, file: Any) -> None:
        self.path = path
        names = set(file.keys(cycle=False, recursive=False))
        if "events" not in names:
            raise DataError(
                f"{path}: no 'events' tree, found {', '.join(sorted(names)) or 'nothing'}; "
                "give an EDM4HEP file with events"
            )
        self.tree = file["events"]
        self.num_events = int(self.tree.num_entries)
        self.leaves = {key.rsplit("/", 1)[-1] for key in self.tree.keys(full_paths=False)}
        self.collection_ids = self._read_collection_ids(file, names)
        self.has_parents = self._exists(PARENT_FIELDS) and self._exists(PARENT_REFERENCES)
        for fields in (
            PARTICLE_FIELDS,
            TRACK_FIELDS,
            STATE_FIELDS,
            CLUSTER_FIELDS,
            CLUSTER_HIT_REFERENCES,
            *(hit_fields(name) for name in HIT_SYSTEMS),
            HIT_LINK_FIELDS,
            TRACK_LINK_FIELDS,
            CANDIDATE_FIELDS,
            CANDIDATE_CLUSTER_REFERENCES,
            CANDIDATE_TRACK_REFERENCES,
        ):
            for name, leaves in fields.items():
                if name not in OPTIONAL_HIT_FIELDS:
                    self.leaf(leaves)

    def _read_collection_ids(self, file: Any, names: set[str]) -> dict[str, int]:
        if "metadata" not in names:
            raise DataError(
                f"{self.path}: no 'metadata' tree, needed for the collection ids (m_names, m_collectionIDs); "
                "use the file as it was written, not a skim"
            )
        table = file["metadata"]
        keys = ak.to_list(table["m_names"].array()[0])
        return dict(zip(keys, ak.to_list(table["m_collectionIDs"].array()[0]), strict=True))

    def present(self, fields: Fields, optional: dict[str, str]) -> Fields:
        """Return ``fields`` without those of ``optional`` that the file lacks."""
        return {n: v for n, v in fields.items() if n not in optional or self._exists({n: v})}

    def _exists(self, fields: Fields) -> bool:
        return all(any(leaf in self.leaves for leaf in names) for names in fields.values())

    def leaf(self, names: tuple[str, ...]) -> str:
        """Return the first leaf out of ``names`` that exists.

        Raises:
            DataError: none does; names the collection and lists those expected.
        """
        for name in names:
            if name in self.leaves:
                return name
        collections = " or ".join(n.split(".")[0] for n in names)
        missing = (
            "collection"
            if not any(x.startswith(names[0].split(".")[0] + ".") for x in self.leaves)
            else "leaf"
        )
        what = collections if missing == "collection" else " or ".join(names)
        raise DataError(
            f"{self.path}: {missing} {what} is missing; expected collections are "
            f"{', '.join(EXPECTED_COLLECTIONS)}; keep them when the file is written"
        )

    def table(self, fields: Fields, start: int, stop: int, bad: dict[str, BoolArray]) -> Table:
        """Read one table; events whose columns differ in length become empty and are marked bad."""
        flat: dict[str, npt.NDArray] = {}
        counts: dict[str, IntArray] = {}
        for name, leaves in fields.items():
            array = self.tree[self.leaf(leaves)].array(entry_start=start, entry_stop=stop, library="ak")
            counts[name] = ak.to_numpy(ak.num(array, axis=1)).astype(np.int64)
            flat[name] = ak.to_numpy(ak.flatten(array, axis=1))
        first = next(iter(counts.values()))
        unequal = np.zeros(stop - start, dtype=bool)
        for count in counts.values():
            unequal |= count != first
        if unequal.any():
            bad[BAD_LENGTHS] |= unequal
            flat = {n: v[np.repeat(~unequal, counts[n])] for n, v in flat.items()}
            first = np.where(unequal, 0, first)
        return Table(flat, offsets_from_counts(first))


@contextmanager
def _translate_errors(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file provokes into one readable error."""
    try:
        yield
    except _READ_ERRORS as error:
        detail = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"{path}: cannot be read as a ROOT file, it is truncated, damaged or something else "
            f"({type(error).__name__}: {detail[0][:120]}); make or copy it again"
        ) from error


def read_events(path: Path, chunk_events: int = 200) -> Iterator[RawEvents]:
    """Read a file in chunks of events.

    Args:
        path: an EDM4HEP file with simulation truth (old podio layout).
        chunk_events: most events per chunk; bounds the memory.

    Yields:
        The chunks in file order.

    Raises:
        DataError: the file is missing, not ROOT, truncated, or lacks a tree or collection.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; give an existing EDM4HEP ROOT file")
    with _translate_errors(path):
        # The dictionary form keeps uproot from reading a colon in the path as an object name.
        file = uproot.open({str(path): None}, handler=uproot.MemmapSource)
    with file:
        with _translate_errors(path):
            tree = _EventTree(path, file)
        for start in range(0, tree.num_events, chunk_events):
            with _translate_errors(path):
                chunk = _read_chunk(tree, start, min(start + chunk_events, tree.num_events))
            yield chunk


def _read_chunk(tree: _EventTree, start: int, stop: int) -> RawEvents:
    bad: dict[str, BoolArray] = {
        reason: np.zeros(stop - start, dtype=bool) for reason in (BAD_LENGTHS, BAD_RANGES, BAD_NUMBERS)
    }
    counters: Counter[str] = Counter()

    def table(fields: Fields) -> Table:
        return tree.table(fields, start, stop, bad)

    particles = _with_parents(table, table(PARTICLE_FIELDS), tree.has_parents, bad, counters)

    def filled(fields: Fields, optional: dict[str, str]) -> Table:
        return _with_zeros(table(tree.present(fields, optional)), optional, counters)

    tracks = _with_states(filled(TRACK_FIELDS, OPTIONAL_TRACK_FIELDS), table(STATE_FIELDS), bad)
    clusters = table(CLUSTER_FIELDS)
    hits, within = _concatenate_hits(
        {name: filled(hit_fields(name), OPTIONAL_HIT_FIELDS) for name in HIT_SYSTEMS}
    )
    candidates = table(CANDIDATE_FIELDS)

    cluster_rows, references = _referenced(clusters, "hits", table(CLUSTER_HIT_REFERENCES), bad)
    ids = [tree.collection_ids.get(name, -1) for name in HIT_SYSTEMS]
    hit_rows = _hit_rows(
        clusters.event[cluster_rows],
        references["collection"],
        references["index"],
        ids,
        hits,
        within,
        counters,
    )
    keep = hit_rows >= 0
    cluster_hits = Relation(cluster_rows[keep], hit_rows[keep], np.ones(int(keep.sum())))

    links = table(HIT_LINK_FIELDS)
    source = _hit_rows(links.event, links["collection"], links["hit"], ids, hits, within, counters)
    hit_particles = _links(
        source, _rows(links.event, links["particle"], particles, counters), links["weight"]
    )
    links = table(TRACK_LINK_FIELDS)
    source = _rows(links.event, links["track"], tracks, counters)
    track_particles = _links(
        source, _rows(links.event, links["particle"], particles, counters), links["weight"]
    )

    relations = []
    for kind, fields, elements in (
        ("tracks", CANDIDATE_TRACK_REFERENCES, tracks),
        ("clusters", CANDIDATE_CLUSTER_REFERENCES, clusters),
    ):
        rows, chosen = _referenced(candidates, kind, table(fields), bad)
        target = _rows(candidates.event[rows], chosen["index"], elements, counters)
        relations.append(_links(rows, target, np.ones(len(rows))))

    raw = RawEvents(
        np.arange(start, stop), particles, tracks, clusters, hits, candidates,
        cluster_hits, track_particles, hit_particles, relations[0], relations[1], bad, counters,
    )  # fmt: skip
    _mark_numbers(raw)
    return raw


def _with_parents(
    table: Any, particles: Table, has_parents: bool, bad: dict[str, BoolArray], counters: Counter[str]
) -> Table:
    """Add the row of the first parent, -1 where there is none."""
    parent = np.full(len(particles), -1, dtype=np.int64)
    if has_parents:
        ranges = table(PARENT_FIELDS)
        if np.array_equal(ranges.offsets, particles.offsets):
            columns = {"parents_begin": ranges["begin"], "parents_end": ranges["end"]}
            rows, references = _referenced(
                Table(columns, particles.offsets), "parents", table(PARENT_REFERENCES), bad
            )
            target = _rows(particles.event[rows], references["index"], particles, counters)
            valid = target >= 0
            # Assigned backwards, so that the first parent of a particle is the one that stays.
            parent[rows[valid][::-1]] = target[valid][::-1]
        else:
            bad[BAD_LENGTHS] |= ranges.counts != particles.counts
    return Table({**particles.columns, "parent": parent}, particles.offsets)


def _with_zeros(table: Table, optional: dict[str, str], counters: Counter[str]) -> Table:
    """Add the optional columns that the file lacks, as zeros that are counted."""
    missing = {name: what for name, what in optional.items() if name not in table.columns}
    for what in missing.values():
        counters[what] += len(table)
    return Table(dict.fromkeys(missing, np.zeros(len(table))) | table.columns, table.offsets)


def _with_states(tracks: Table, states: Table, bad: dict[str, BoolArray]) -> Table:
    """Add the parameters of each track's first state, the one at the interaction point."""
    event = tracks.event
    begin = tracks["trackStates_begin"].astype(np.int64)
    outside = (begin < 0) | (begin >= states.counts[event])
    bad[BAD_RANGES][event[outside]] = True
    row = np.where(outside, 0, states.offsets[event] + begin)
    columns = dict(tracks.columns)
    for name in STATE_NAMES:
        columns[name] = states[name][row] if len(states) else np.zeros(len(tracks))
    return Table(columns, tracks.offsets)


def _concatenate_hits(collections: dict[str, Table]) -> tuple[Table, IntArray]:
    """Put the hit collections behind each other within every event.

    Returns:
        The hits, and [collections + 1, E] where each collection begins within its event.
    """
    counts = np.stack([t.counts for t in collections.values()])
    within = np.vstack([np.zeros_like(counts[:1]), np.cumsum(counts, axis=0)])
    offsets = offsets_from_counts(counts.sum(axis=0))
    columns: dict[str, npt.NDArray] = {
        name: np.zeros(offsets[-1]) for name in ("x", "y", "z", "energy", "time")
    }
    columns["type"] = np.zeros(offsets[-1], dtype=np.int64)
    system = np.zeros(offsets[-1], dtype=np.int64)
    for i, (name, table) in enumerate(collections.items()):
        event = table.event
        place = offsets[event] + within[i][event] + np.arange(len(table)) - table.offsets[event]
        for column, values in columns.items():
            values[place] = table[column]
        system[place] = HIT_SYSTEMS[name]
    return Table({**columns, "system": system}, offsets), within


def _referenced(
    table: Table, kind: str, references: Table, bad: dict[str, BoolArray]
) -> tuple[IntArray, dict[str, npt.NDArray]]:
    """Expand ``<kind>_begin/_end`` into pairs of (row of ``table``, its reference)."""
    event = table.event
    begin = table[f"{kind}_begin"].astype(np.int64)
    end = table[f"{kind}_end"].astype(np.int64)
    wrong = (begin < 0) | (begin > end) | (end > references.counts[event])
    bad[BAD_RANGES][event[wrong]] = True
    counts = np.where(wrong, 0, end - begin)
    place = expand_ranges(references.offsets[event] + begin, counts)
    return np.repeat(np.arange(len(table)), counts), {n: v[place] for n, v in references.columns.items()}


def _rows(event: IntArray, index: npt.NDArray, table: Table, counters: Counter[str]) -> IntArray:
    """Turn indices within an event into rows of ``table``; -1 and a count where that fails."""
    index = index.astype(np.int64)
    null = index < 0
    outside = index >= table.counts[event]
    counters["null references"] += int(null.sum())
    counters["references out of range"] += int(outside.sum())
    return np.where(null | outside, -1, table.offsets[event] + index)


def _hit_rows(
    event: IntArray,
    collection: npt.NDArray,
    index: npt.NDArray,
    ids: list[int],
    hits: Table,
    within: IntArray,
    counters: Counter[str],
) -> IntArray:
    """Turn (collection id, index) into rows of ``hits``; -1 and a count where that fails."""
    which = np.full(len(index), -1, dtype=np.int64)
    for i, collection_id in enumerate(ids):
        which[collection == collection_id] = i
    index = index.astype(np.int64)
    null = index < 0
    unknown = ~null & (which < 0)
    size = within[which + 1, event] - within[which, event]
    outside = ~null & ~unknown & (index >= size)
    counters["null references"] += int(null.sum())
    counters["references to unknown collections"] += int(unknown.sum())
    counters["references out of range"] += int(outside.sum())
    return np.where(null | unknown | outside, -1, hits.offsets[event] + within[which, event] + index)


def _links(source: IntArray, target: IntArray, weight: npt.NDArray) -> Relation:
    keep = (source >= 0) & (target >= 0)
    return Relation(source[keep], target[keep], weight[keep].astype(np.float64))


def _mark_numbers(raw: RawEvents) -> None:
    """Mark events whose truth would be NaN: features may be repaired, energies may not."""
    for table, names in (
        (raw.particles, ("charge", "mass", "px", "py", "pz")),
        (raw.hits, ("energy",)),
        (raw.candidates, ("charge", "mass", "px", "py", "pz")),
    ):
        broken = np.zeros(len(table), dtype=bool)
        for name in names:
            broken |= ~np.isfinite(table[name])
        raw.bad[BAD_NUMBERS][table.event[broken]] = True
    for relation, table in ((raw.hit_particles, raw.hits), (raw.track_particles, raw.tracks)):
        broken = ~np.isfinite(relation.weight)
        raw.bad[BAD_NUMBERS][table.event[relation.source[broken]]] = True
