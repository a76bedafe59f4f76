"""Hand-made events as the tables that a reader would produce: exact numbers, and no file to write."""

import numpy as np

from mlpf.data.edm4hep.raw_events import SYSTEM_ECAL, SYSTEM_HCAL, SYSTEM_OTHER, RawEvents
from mlpf.data.flat_tables import Relation, Table, offsets_from_counts
from tests.support.edm4hep_files import HIT_COLLECTIONS, HandEvent

_SYSTEMS = {"ECAL": SYSTEM_ECAL, "HCAL": SYSTEM_HCAL}
_QUALITY = ("chi2", "ndf", "dEdx", "dEdxError", "radiusOfInnermostHit")
_STATES = ("tanLambda", "D0", "phi", "omega", "Z0", "time", "type")


def raw_events(*events: HandEvent) -> RawEvents:
    """Put events behind each other; the hits of each in the order of ``HIT_COLLECTIONS``."""
    particles = _table(
        events,
        lambda e: e.particles,
        {"pdg": "PDG", "parent": "parent"} | {n: n for n in ("status", "charge", "mass", "px", "py", "pz")},
    )
    tracks = _table(events, lambda e: e.tracks, {n: n for n in (*_QUALITY, *_STATES)})
    clusters = _table(
        events, lambda e: e.clusters, {n: n for n in ("x", "y", "z", "iTheta", "phi", "energy")}
    )
    candidates = _table(
        events,
        lambda e: e.candidates,
        {"pdg": "type"} | {n: n for n in ("charge", "mass", "px", "py", "pz")},
    )
    hits = _table(events, _hits, {n: n for n in ("energy", "x", "y", "z", "time", "type", "system")})
    tables = {"particle": particles, "track": tracks, "cluster": clusters, "hit": hits}
    tables["candidate"] = candidates
    first = [{name: int(t.offsets[i]) for name, t in tables.items()} for i in range(len(events))]
    parent = [
        -1 if p["parent"] is None else p["parent"] + f["particle"]
        for e, f in zip(events, first, strict=True)
        for p in e.particles
    ]
    particles.columns["parent"] = np.array(parent, dtype=np.int64)

    def relation(links, source, target):
        rows = [
            (a + f[source], b + f[target], w)
            for e, f in zip(events, first, strict=True)
            for a, b, w in links(e)
        ]
        columns = np.array(rows, dtype=np.float64).reshape(-1, 3).T
        return Relation(columns[0].astype(np.int64), columns[1].astype(np.int64), columns[2])

    def elements(kind):
        return lambda e: [(i, j, 1.0) for i, c in enumerate(e.candidates) for j in c[kind]]

    return RawEvents(
        np.arange(len(events)), particles, tracks, clusters, hits, candidates,
        relation(lambda e: [(i, _place(e, h), 1.0) for i, c in enumerate(e.clusters) for h in c["hits"]],
                 "cluster", "hit"),
        relation(lambda e: e.track_links, "track", "particle"),
        relation(lambda e: [(_place(e, (n, i)), p, w) for n, i, p, w in e.hit_links], "hit", "particle"),
        relation(elements("tracks"), "candidate", "track"),
        relation(elements("clusters"), "candidate", "cluster"),
    )  # fmt: skip


def _hits(event: HandEvent) -> list[dict]:
    rows = []
    for name in HIT_COLLECTIONS:
        system = _SYSTEMS.get(name[:4], SYSTEM_OTHER)
        for energy, x, y, z in event.hits.get(name, []):
            rows.append({"energy": energy, "x": x, "y": y, "z": z, "system": system})
    return rows


def _place(event: HandEvent, hit: tuple[str, int]) -> int:
    """Row of a hit within its event."""
    before = HIT_COLLECTIONS[: HIT_COLLECTIONS.index(hit[0])]
    return sum(len(event.hits.get(name, [])) for name in before) + hit[1]


def _table(events, rows_of, names: dict[str, str]) -> Table:
    """Columns ``name`` from ``names[name]`` of each row; by default a quality is 1, the others 0."""
    rows = [row for e in events for row in rows_of(e)]
    columns = {}
    for name, key in names.items():
        kind = np.int64 if name in ("pdg", "status", "system", "type", "parent") else np.float64
        default = 1.0 if name in _QUALITY else 0.0
        values = [row.get(key, default) for row in rows]
        columns[name] = np.array([-1 if v is None else v for v in values], dtype=kind)
    return Table(columns, offsets_from_counts(np.array([len(rows_of(e)) for e in events])))
