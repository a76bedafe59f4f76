"""Hand-made events written as small EDM4HEP files of the old or the new podio layout."""

from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import awkward as ak
import numpy as np
import uproot

from mlpf.data.edm4hep.collection_ids import murmur3_32
from mlpf.simulation.clic.edm4hep_writer import nested_records

HIT_COLLECTIONS = ("ECALBarrel", "ECALEndcap", "ECALOther", "HCALBarrel", "HCALEndcap", "HCALOther", "MUON")
IDS = {
    name: 31 + i
    for i, name in enumerate(
        (
            "MCParticles",
            "SiTracks_Refitted",
            "PandoraClusters",
            *HIT_COLLECTIONS,
            "LumiCalClusters",
            "SiTracks",
        )
    )
}
UNKNOWN_ID = 999


@dataclass
class HandEvent:
    """One event; every reference is an index within it, a hit is (collection, index).

    Clusters and tracks of candidates may be (collection, index) as well.
    """

    particles: list[dict] = field(default_factory=list)
    tracks: list[dict] = field(default_factory=list)
    hits: dict[str, list[tuple[float, float, float, float]]] = field(default_factory=dict)  # energy, x, y, z
    clusters: list[dict] = field(default_factory=list)
    hit_links: list[tuple[str, int, int, float]] = field(
        default_factory=list
    )  # collection, index, particle, weight
    track_links: list[tuple[int, int, float]] = field(default_factory=list)  # track, particle, weight
    candidates: list[dict] = field(default_factory=list)

    def particle(self, pdg, charge, px, py=0.0, pz=0.0, mass=0.0, status=1, parent=None) -> int:
        row = {"PDG": pdg, "charge": charge, "px": px, "py": py, "pz": pz, "mass": mass}
        self.particles.append({**row, "status": status, "parent": parent})
        return len(self.particles) - 1

    def track(self, links=(), pt=1.0, phi=0.0, tan_lambda=0.0, **leaves) -> int:
        self.tracks.append({"phi": phi, "omega": 3e-4 * 4.0 / pt, "tanLambda": tan_lambda, **leaves})
        self.track_links += [(len(self.tracks) - 1, particle, weight) for particle, weight in links]
        return len(self.tracks) - 1

    def hit(self, energy, links=(), collection="ECALBarrel", x=1500.0, y=0.0, z=0.0) -> tuple[str, int]:
        hits = self.hits.setdefault(collection, [])
        hits.append((energy, x, y, z))
        self.hit_links += [(collection, len(hits) - 1, particle, weight) for particle, weight in links]
        return collection, len(hits) - 1

    def cluster(self, hits=(), **leaves) -> int:
        energy = sum(self.hits[name][i][0] for name, i in hits)
        row = {"energy": energy, "x": 1500.0, "y": 0.0, "z": 0.0, "iTheta": np.pi / 2, "phi": 0.0}
        self.clusters.append({**row, "hits": list(hits), **leaves})
        return len(self.clusters) - 1

    def deposit(self, links, collection="ECALBarrel") -> int:
        """One cluster of one hit per (particle, energy)."""
        return self.cluster(
            [self.hit(energy, [(particle, energy)], collection) for particle, energy in links]
        )

    def candidate(self, pdg, charge, px, py=0.0, pz=0.0, mass=0.0, tracks=(), clusters=()) -> None:
        row = {"type": pdg, "charge": charge, "px": px, "py": py, "pz": pz, "mass": mass}
        self.candidates.append({**row, "tracks": list(tracks), "clusters": list(clusters)})


def simple_event(energy: float = 10.0) -> HandEvent:
    """A charged pion with a track and an absorbed cluster, and a photon with its own cluster."""
    event = HandEvent()
    pion = event.particle(211, 1.0, energy, mass=0.1396)
    photon = event.particle(22, 0.0, 0.0, energy / 2, 1.0)
    event.track([(pion, 1.0)], pt=energy)
    event.deposit([(pion, 0.6 * energy)], "HCALBarrel")
    event.deposit([(photon, energy / 2)])
    event.candidate(211, 1.0, energy, mass=0.1396, tracks=[0])
    event.candidate(22, 0.0, 0.0, energy / 2, clusters=[1])
    return event


def _ranges(lists):
    ends = np.cumsum([len(x) for x in lists], dtype=int).tolist()
    return [0, *ends][: len(lists)], ends


def _references(collection: str, items) -> dict[str, list]:
    """Entries of a relation to items, each an index in ``collection`` or (another collection, index)."""
    pairs = [item if isinstance(item, tuple) else (collection, item) for item in items]
    return {
        "index": [index for _, index in pairs],
        "collectionID": [IDS.get(name, UNKNOWN_ID) for name, _ in pairs],
    }


def _event_leaves(e: HandEvent, parents: bool) -> dict[str, dict[str, list]]:
    """Collection -> leaf -> values of one event."""
    mc = {"PDG": "PDG", "generatorStatus": "status", "charge": "charge", "mass": "mass"}
    mc |= {f"momentum.{a}": f"p{a}" for a in "xyz"}
    out = {"MCParticles": {leaf: [p[key] for p in e.particles] for leaf, key in mc.items()}}
    if parents:
        lists = [[] if p["parent"] is None else [p["parent"]] for p in e.particles]
        begin, end = _ranges(lists)
        out["MCParticles"] |= {"parents_begin": begin, "parents_end": end}
        out["MCParticles#0"] = _references("MCParticles", chain.from_iterable(lists))
    quality = ("chi2", "ndf", "dEdx", "dEdxError", "radiusOfInnermostHit")
    out["SiTracks_Refitted"] = {name: [t.get(name, 1.0) for t in e.tracks] for name in quality}
    # Two states per track, as CLIC files have: the second must not be read.
    out["SiTracks_Refitted"]["trackStates_begin"] = [2 * i for i in range(len(e.tracks))]
    states = ("tanLambda", "D0", "phi", "omega", "Z0", "time")
    out["SiTracks_1"] = {n: [v for t in e.tracks for v in (t.get(n, 0.0), -99.0)] for n in states}
    for name in HIT_COLLECTIONS:
        hits = e.hits.get(name, [])
        leaves = ("energy", "position.x", "position.y", "position.z")
        out[name] = {leaf: [h[i] for h in hits] for i, leaf in enumerate(leaves)}
    members = [c["hits"] for c in e.clusters]
    begin, end = _ranges(members)
    out["PandoraClusters"] = {name: [c[name] for c in e.clusters] for name in ("energy", "iTheta", "phi")}
    out["PandoraClusters"] |= {f"position.{a}": [c[a] for c in e.clusters] for a in "xyz"}
    out["PandoraClusters"] |= {"hits_begin": begin, "hits_end": end}
    out["PandoraClusters#1"] = _references("", chain.from_iterable(members))
    out["CalohitMCTruthLink"] = {"weight": [link[3] for link in e.hit_links]}
    out["CalohitMCTruthLink#0"] = _references("", [link[:2] for link in e.hit_links])
    out["CalohitMCTruthLink#1"] = _references("MCParticles", [link[2] for link in e.hit_links])
    out["SiTracksMCTruthLink"] = {"weight": [link[2] for link in e.track_links]}
    out["SiTracksMCTruthLink#0"] = _references("SiTracks_Refitted", [link[0] for link in e.track_links])
    out["SiTracksMCTruthLink#1"] = _references("MCParticles", [link[1] for link in e.track_links])
    cand = {"type": "type", "charge": "charge", "mass": "mass"} | {f"momentum.{a}": f"p{a}" for a in "xyz"}
    out["MergedRecoParticles"] = {leaf: [c[key] for c in e.candidates] for leaf, key in cand.items()}
    for number, (kind, collection) in enumerate(
        {"clusters": "PandoraClusters", "tracks": "SiTracks_Refitted"}.items()
    ):
        lists = [c[kind] for c in e.candidates]
        begin, end = _ranges(lists)
        out["MergedRecoParticles"] |= {f"{kind}_begin": begin, f"{kind}_end": end}
        out[f"MergedRecoParticles#{number}"] = _references(collection, chain.from_iterable(lists))
    return out


RENAMED = {
    "MCParticles#0": "_MCParticles_parents",
    "SiTracks_1": "_SiTracks_Refitted_trackStates",
    "PandoraClusters#1": "_PandoraClusters_hits",
    "CalohitMCTruthLink#0": "_CalohitMCTruthLink_from",
    "CalohitMCTruthLink#1": "_CalohitMCTruthLink_to",
    "SiTracksMCTruthLink#0": "_SiTracksMCTruthLink_from",
    "SiTracksMCTruthLink#1": "_SiTracksMCTruthLink_to",
    "MergedRecoParticles": "PandoraPFOs",
    "MergedRecoParticles#0": "_PandoraPFOs_clusters",
    "MergedRecoParticles#1": "_PandoraPFOs_tracks",
}


def as_new_layout(leaves: dict[str, dict[str, list]], hashes: bool = True) -> None:
    """Rename the leaves of one event as podio 0.17 and EDM4hep 1.0 do; ids become hashes of the names."""
    names = {number: murmur3_32(name) for name, number in IDS.items()} if hashes else {}
    for collection in list(leaves):
        columns = leaves.pop(collection)
        if "collectionID" in columns:
            columns["collectionID"] = [names.get(number, number) for number in columns["collectionID"]]
        leaves[RENAMED.get(collection, collection)] = columns
    leaves["PandoraPFOs"]["PDG"] = leaves["PandoraPFOs"].pop("type")
    leaves["PandoraClusters"]["iPhi"] = leaves["PandoraClusters"].pop("phi")
    for gone in ("dEdx", "dEdxError", "radiusOfInnermostHit"):
        del leaves["SiTracks_Refitted"][gone]


_INTEGERS = {"location", "track", "PDG", "generatorStatus", "ndf", "type", "index", "collectionID"}


def _typed(leaf: str, values: list[list], real=()) -> ak.Array:
    if leaf in real:
        kind = np.float32
    elif leaf.endswith(("_begin", "_end")):
        kind = np.uint32
    else:
        kind = (
            np.int64
            if leaf == "collectionID"
            else np.int32
            if leaf in _INTEGERS
            else np.float64
            if leaf == "mass"
            else np.float32
        )
    flat = np.array([x for event in values for x in event], dtype=kind)
    return ak.unflatten(ak.Array(flat), [len(event) for event in values])


def _grouped(name: str, leaves: dict[str, ak.Array]) -> dict[str, ak.Array]:
    """One group with one counter, which is faster; leaves that differ in length stay alone."""
    lengths = [ak.num(array).tolist() for array in leaves.values()]
    if any(length != lengths[0] for length in lengths):
        return {f"{name}.{leaf}": array for leaf, array in leaves.items()}
    return {name: ak.zip(leaves, depth_limit=2)}


def write_edm4hep(
    path: Path,
    events: list[HandEvent],
    *,
    drop=(),
    parents=True,
    change=None,
    tree="events",
    ids="metadata",
    real=(),
    tuples=False,
) -> Path:
    """Write events without the collections in ``drop``; ``change(leaves)`` edits the leaves of each.

    Leaves named in ``real`` become floating-point numbers; ``ids`` is the id table that is written:
    ``metadata``, ``idTable``, ``typeInfo`` or none; ``tuples`` writes an
    RNTuple without id table.
    """
    per_event = [_event_leaves(e, parents) for e in events]
    for leaves in per_event:
        if change is not None:
            change(leaves)
    groups = {}
    for name, columns in per_event[0].items():
        if name not in drop:
            leaves = {
                leaf: _typed(leaf, [event[name][leaf] for event in per_event], real) for leaf in columns
            }
            groups |= (
                {name: nested_records(ak.zip(leaves, depth_limit=2))} if tuples else _grouped(name, leaves)
            )
    with uproot.recreate(path, compression=None) as file:
        if tuples:
            file.mkrntuple(tree, groups)
            return path
        types = {k: v.type.content for k, v in groups.items()}
        names = {"counter_name": lambda n: f"n_{n}", "field_name": lambda outer, inner: f"{outer}.{inner}"}
        file.mktree(tree, types, **names)
        file[tree].extend(groups)
        _write_id_table(file, ids)
    return path


def _write_id_table(file, kind: str) -> None:
    # Names are strings, which uproot writes as RNTuple only; readers look leaves up the same way.
    names, numbers = list(IDS), list(IDS.values())
    if kind == "metadata":
        file["metadata"] = {"m_names": ak.Array([names]), "m_collectionIDs": ak.Array([numbers])}
    elif kind == "idTable":
        other = {"m_names": ak.Array([["MUON"]]), "m_collectionIDs": ak.Array([[5]])}
        table = {"m_names": ak.Array([names]), "m_collectionIDs": ak.Array([numbers])}
        file["podio_metadata"] = {
            "runs___idTable": ak.zip(other, depth_limit=1),
            "events___idTable": ak.zip(table, depth_limit=1),
        }
    elif kind == "typeInfo":
        rows = ak.zip({"collectionID": [numbers], "name": [names]}, depth_limit=2)
        file["podio_metadata"] = {"events___CollectionTypeInfo": rows}
