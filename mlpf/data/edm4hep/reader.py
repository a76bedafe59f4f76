"""EDM4HEP ROOT files of any version -> flat tables.

Leaves are found by name (``fields``), collections of references by id (``collection_ids``). Version numbers
are not used, because productions mix versions.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mlpf.config.detector import CLIC, CollectionsConfig, DetectorConfig
from mlpf.data.conversion import BAD_NUMBERS
from mlpf.data.edm4hep.collection_ids import collection_ids, read_id_table
from mlpf.data.edm4hep.fields import HIT_COLUMNS, STATE_NAMES, collection_of, referred
from mlpf.data.edm4hep.layout import FoundLayout, collection_names, find_layout, look_alikes
from mlpf.data.edm4hep.leaves import EventFile
from mlpf.data.edm4hep.raw_events import RawEvents
from mlpf.data.edm4hep.references import HitRows, expand_references, link, rows_of
from mlpf.data.flat_tables import BoolArray, IntArray, Relation, Table, offsets_from_counts
from mlpf.data.source_file import SourceFile, readable_errors
from mlpf.errors import DataError

BAD_LENGTHS = "inconsistent lengths"
BAD_RANGES = "inconsistent ranges"
AT_FIRST_HIT = 2  # value of TrackState.location
_NAMES_IN_ERROR = 40


@dataclass(frozen=True)
class FileDescription:
    """Description of an EDM4HEP file.

    Attributes:
        path: the file.
        layout: text about the layout of podio.
        num_events: events in the file.
        id_table: source of the collection ids; empty if they are unknown.
        leaves: table -> column -> leaf.
        absent: table -> missing columns; they become 0 unless another leaf holds them.
        absent_hits: missing hit collections, which count as empty.
        missing: missing required parts; empty if the file can be converted.
        collections: all collections with their own data.
        look_alikes: table -> collections with other names and the same members.
    """

    path: Path
    layout: str
    num_events: int
    id_table: str
    leaves: dict[str, dict[str, str]]
    absent: dict[str, tuple[str, ...]]
    absent_hits: tuple[str, ...]
    missing: tuple[str, ...]
    collections: tuple[str, ...]
    look_alikes: dict[str, list[str]]


def describe(source: SourceFile, detector: DetectorConfig = CLIC) -> FileDescription:
    """Say what a file of a detector holds, also one that cannot be converted. Reads no events.

    Raises:
        DataError: the file is damaged.
    """
    events = EventFile(source)
    with readable_errors(source.path):
        table, id_table = read_id_table(source.root)
    found = find_layout(events.leaves, detector.collections)
    if not table and not found.old_references:
        id_table = "hashes of the names"
    style = "by number (podio 0.16 and older)" if found.old_references else "by name (podio 0.17 and newer)"
    return FileDescription(
        path=source.path,
        layout=f"{events.kind}, relations {style}",
        num_events=events.num_events,
        id_table=id_table,
        leaves={name: dict(t.leaves) for name, t in found.tables.items()},
        absent={name: tuple(t.zeros) for name, t in found.tables.items() if t.zeros},
        absent_hits=tuple(name for name in found.systems if name not in found.tables),
        missing=tuple(found.missing),
        collections=tuple(collection_names(events.leaves)),
        look_alikes=look_alikes(events.leaves, detector.collections),
    )


def read_events(
    source: SourceFile, chunk_events: int = 200, detector: DetectorConfig = CLIC
) -> Iterator[RawEvents]:
    """Read a file in chunks of events.

    Memory grows with ``chunk_events``, not with the file. A basket is unpacked as a whole: a file whose
    leaves are one huge basket each needs the memory of all leaves.

    Args:
        source: an EDM4HEP file with simulation truth, of any podio layout (TTree or RNTuple).
        chunk_events: most events per chunk; bounds the memory.
        detector: that the events were measured with.

    Yields:
        The chunks in file order.

    Raises:
        DataError: the file is damaged, or lacks collections or their ids.
    """
    reader = _Reader(source, detector)
    for start in range(0, reader.events.num_events, chunk_events):
        yield reader.chunk(start, min(start + chunk_events, reader.events.num_events))


def _check_complete(events: EventFile, layout: FoundLayout, collections: CollectionsConfig) -> None:
    if not layout.missing:
        return
    names = collection_names(events.leaves)
    found = ", ".join(names[:_NAMES_IN_ERROR]) + (" ..." if len(names) > _NAMES_IN_ERROR else "")
    advice = "keep these collections when the file is written"
    # Collections of the simulation, not of the detector.
    truth = (collections.particles, collections.hit_links, collections.track_links)
    if all(text.startswith(truth) for text in layout.missing):
        advice += (
            "; they are the truth of a simulation, which training and evaluation need. A file of data has "
            "none: for such events use the ONNX file (docs/export.md, Use)"
        )
    raise DataError(
        f"{events.path}: missing {', '.join(layout.missing)}; found {found or 'no collection'}; {advice}"
    )


class _Reader:
    """Turns ranges of events of one open file into tables."""

    def __init__(self, source: SourceFile, detector: DetectorConfig) -> None:
        self.detector = detector
        self.events = events = EventFile(source)
        self.layout = find_layout(events.leaves, detector.collections)
        _check_complete(events, self.layout, detector.collections)
        events.select({leaf for table in self.layout.tables.values() for leaf in table.leaves.values()})
        with readable_errors(source.path):
            table, _ = read_id_table(source.root)
        old, where = self.layout.old_references, source.path
        self.ids = collection_ids(table, self.layout.hit_collections, old_references=old, where=where)
        self.referred = {
            name: frozenset(collection_ids(table, list(names), old_references=old, where=where))
            for name, names in referred(detector.collections).items()
        }

    def chunk(self, start: int, stop: int) -> RawEvents:
        return _Chunk(self, start, stop).read()


class _Chunk:
    """Reads events start ... stop - 1 into tables."""

    def __init__(self, reader: _Reader, start: int, stop: int) -> None:
        self.events, self.layout, self.ids = reader.events, reader.layout, reader.ids
        self.referred, self.detector = reader.referred, reader.detector
        self.start, self.stop = start, stop
        self.bad: dict[str, BoolArray] = {
            reason: np.zeros(stop - start, dtype=bool) for reason in (BAD_LENGTHS, BAD_RANGES, BAD_NUMBERS)
        }
        self.counters: Counter[str] = Counter()

    def read(self) -> RawEvents:
        particles = self.particles()
        tracks = self.tracks()
        clusters = self.table("clusters")
        hits, hit_rows = self.hits()
        candidates = self.table("candidates")
        raw = RawEvents(
            number=np.arange(self.start, self.stop),
            particles=_without_ranges(particles),
            tracks=_without_ranges(tracks),
            clusters=_without_ranges(clusters),
            hits=hits,
            candidates=_without_ranges(candidates),
            cluster_hits=self.cluster_hits(clusters, hit_rows),
            track_particles=self.track_links(tracks, particles),
            hit_particles=self.hit_links(hit_rows, particles),
            candidate_tracks=self.candidate_elements(candidates, "tracks", tracks),
            candidate_clusters=self.candidate_elements(candidates, "clusters", clusters),
            bad=self.bad,
            counters=self.counters,
            detector=self.detector,
        )
        _mark_numbers(raw)
        return raw

    def table(self, *names: str, count_zeros: bool = True) -> Table:
        """Read tables of equal length as one; integers become int64, other numbers float64.

        Events with columns of unequal length become empty and are marked bad.
        """
        flat: dict[str, npt.NDArray] = {}
        counts: dict[str, IntArray] = {}
        zeros: dict[str, str] = {}
        for found in (self.layout.tables[name] for name in names):
            zeros |= found.zeros
            for column, leaf in found.leaves.items():
                values, counts[column] = self.events.read(leaf, self.start, self.stop)
                flat[column] = self.converted(leaf, values, column in found.integers)
        first = next(iter(counts.values()))
        unequal = np.zeros(self.stop - self.start, dtype=bool)
        for count in counts.values():
            unequal |= count != first
        if unequal.any():
            self.bad[BAD_LENGTHS] |= unequal
            flat = {n: v[np.repeat(~unequal, counts[n])] for n, v in flat.items()}
            first = np.where(unequal, 0, first)
        offsets = offsets_from_counts(first)
        for column in zeros:
            flat[column] = np.zeros(offsets[-1])
        if count_zeros:
            for what in set(zeros.values()):
                self.counters[what] += int(offsets[-1])
        return Table(flat, offsets)

    def converted(self, leaf: str, values: npt.NDArray, integer: bool) -> npt.NDArray:
        if values.dtype.kind not in ("iub" if integer else "iubf"):
            raise DataError(
                f"{self.events.path}: leaf {leaf} holds {values.dtype.name}, expected "
                f"{'integers' if integer else 'numbers'}; write the file with EDM4HEP's own types"
            )
        # Damaged files can hold signalling NaNs, which warn when they are converted; they stay NaN.
        with np.errstate(invalid="ignore"):
            return values.astype(np.int64 if integer else np.float64)

    def expanded(self, table: Table, kind: str, references: Table) -> tuple[IntArray, dict[str, npt.NDArray]]:
        rows, columns, bad = expand_references(table, kind, references)
        self.bad[BAD_RANGES] |= bad
        return rows, columns

    def rows_of(
        self,
        event: IntArray,
        references: Mapping[str, npt.NDArray],
        index: str,
        target: tuple[str, Table],
    ) -> IntArray:
        """Return the row of each reference in ``target`` (a name of ``REFERRED`` and its table), or -1."""
        name, table = target
        return rows_of(
            event,
            references[index],
            table,
            self.counters,
            collection=references.get(collection_of(index)),
            ids=self.referred[name],
        )

    def particles(self) -> Table:
        """Read particles and the row of the first parent of each, -1 without a parent."""
        if "parents" not in self.layout.tables:
            particles = self.table("particles")
            parent = np.full(len(particles), -1, dtype=np.int64)
            return Table({**particles.columns, "parent": parent}, particles.offsets)
        particles = self.table("particles", "parent ranges")
        parent = np.full(len(particles), -1, dtype=np.int64)
        rows, references = self.expanded(particles, "parents", self.table("parents"))
        target = self.rows_of(particles.event[rows], references, "index", ("particles", particles))
        valid = target >= 0
        # Assigned backwards: the last assignment of a particle, its first parent, stays.
        parent[rows[valid][::-1]] = target[valid][::-1]
        return Table({**particles.columns, "parent": parent}, particles.offsets)

    def tracks(self) -> Table:
        """Read tracks with the parameters of their first state, the one at the interaction point."""
        absent = self.layout.tables["tracks"].zeros | self.layout.tables["track states"].zeros
        by_place = "state places" in self.layout.tables
        tracks = self.table("tracks", *(["state ranges"] if by_place else []), count_zeros=False)
        states = self.table("track states", *(["state places"] if by_place else []), count_zeros=False)
        lacking = {column: np.ones(len(tracks), dtype=bool) for column in absent}
        columns = {**tracks.columns, **self.first_states(tracks, states)}
        if by_place:
            columns["radiusOfInnermostHit"] = self.innermost_radius(tracks, states)
            lacking["radiusOfInnermostHit"] = columns["radiusOfInnermostHit"] == 0
        if "dE/dx" in self.layout.tables:
            dedx = self.table("dE/dx")
            rows = self.rows_of(dedx.event, dedx.columns, "track", ("tracks", tracks))
            known = rows >= 0
            for column in ("dEdx", "dEdxError"):
                columns[column] = np.zeros(len(tracks))
                columns[column][rows[known]] = dedx[column][known]
                lacking[column][rows[known]] = False
        for column, what in absent.items():
            if column != "dEdxError":  # belongs to dEdx and has the same counter
                self.counters[what] += int(lacking[column].sum())
        return Table(columns, tracks.offsets)

    def first_states(self, tracks: Table, states: Table) -> dict[str, npt.NDArray]:
        event = tracks.event
        begin = tracks["trackStates_begin"]
        outside = (begin < 0) | (begin >= states.counts[event])
        self.bad[BAD_RANGES][event[outside]] = True
        if not len(states):
            return {name: np.zeros(len(tracks)) for name in STATE_NAMES}
        row = np.where(outside, 0, states.offsets[event] + np.where(outside, 0, begin))
        return {name: states[name][row] for name in STATE_NAMES}

    def innermost_radius(self, tracks: Table, states: Table) -> npt.NDArray:
        """Distance from the beam axis of the state at the first hit [T], 0 without such a state."""
        rows, state = self.expanded(tracks, "trackStates", states)
        at_hit = state["location"] == AT_FIRST_HIT
        radius = np.zeros(len(tracks))
        # Rounded like the leaf of older files, whose value it replaces.
        with np.errstate(over="ignore", invalid="ignore"):
            radius[rows[at_hit]] = np.hypot(state["x"], state["y"])[at_hit].astype(np.float32)
        return radius

    def hits(self) -> tuple[Table, HitRows]:
        """Join the hit collections within every event."""
        tables = {name: self.table(name) for name in self.layout.hit_collections}
        for name in self.layout.systems:
            if name not in tables:
                self.counters[f"events without collection {name}"] += self.stop - self.start
        counts = np.stack([t.counts for t in tables.values()])
        within = np.vstack([np.zeros_like(counts[:1]), np.cumsum(counts, axis=0)])
        offsets = offsets_from_counts(counts.sum(axis=0))
        columns: dict[str, npt.NDArray] = {
            name: np.zeros(offsets[-1], dtype=np.int64 if column.integer else np.float64)
            for name, column in HIT_COLUMNS.items()
        }
        system = np.zeros(offsets[-1], dtype=np.int64)
        for i, (name, table) in enumerate(tables.items()):
            # Rows of one event stay together; only the start of each event changes.
            place = np.arange(len(table)) + np.repeat(
                offsets[:-1] + within[i] - table.offsets[:-1], table.counts
            )
            for column, values in columns.items():
                values[place] = table[column]
            system[place] = self.layout.systems[name]
        hits = Table({**columns, "system": system}, offsets)
        return hits, HitRows(hits, within, self.ids)

    def cluster_hits(self, clusters: Table, hit_rows: HitRows) -> Relation:
        rows, references = self.expanded(clusters, "hits", self.table("cluster hits"))
        event = clusters.event[rows]
        collection = references[collection_of("index")]
        target = hit_rows.find(event, collection, references["index"], self.counters)
        return link(rows, target, np.ones(len(rows)))

    def hit_links(self, hit_rows: HitRows, particles: Table) -> Relation:
        links = self.table("hit links")
        event = links.event
        source = hit_rows.find(event, links[collection_of("hit")], links["hit"], self.counters)
        target = self.rows_of(event, links.columns, "particle", ("particles", particles))
        return link(source, target, links["weight"])

    def track_links(self, tracks: Table, particles: Table) -> Relation:
        links = self.table("track links")
        event = links.event
        source = self.rows_of(event, links.columns, "track", ("tracks", tracks))
        target = self.rows_of(event, links.columns, "particle", ("particles", particles))
        return link(source, target, links["weight"])

    def candidate_elements(self, candidates: Table, kind: str, elements: Table) -> Relation:
        rows, chosen = self.expanded(candidates, kind, self.table(f"candidate {kind}"))
        target = self.rows_of(candidates.event[rows], chosen, "index", (kind, elements))
        return link(rows, target, np.ones(len(rows)))


def _without_ranges(table: Table) -> Table:
    """Leave out the columns of relations."""
    columns = {n: v for n, v in table.columns.items() if not n.endswith(("_begin", "_end"))}
    return Table(columns, table.offsets)


def _mark_numbers(raw: RawEvents) -> None:
    """Mark events with NaN in truth. NaN in features is set to 0, but energies cannot be repaired."""
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
