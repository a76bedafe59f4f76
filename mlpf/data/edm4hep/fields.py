"""Leaves of EDM4HEP: for every column the possible leaves, of which the first existing one is taken.

The names of the collections are those of a detector (``mlpf.config.detector``).
In a pattern ``{}`` stands for the name of the collection. ``X#n`` is the n-th relation and ``X_n`` the n-th
vector member of X up to podio 0.16, ``_X_name`` is both from 0.17 on. A new name is one more pattern.
"""

from dataclasses import dataclass

from mlpf.config.detector import CollectionsConfig
from mlpf.data.edm4hep.raw_events import SYSTEM_ECAL, SYSTEM_HCAL, SYSTEM_OTHER


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        patterns: possible leaves.
        integer: the column must hold integers, such as indices.
        zeros: if no leaf exists, the column is 0 and its rows are counted under this name; empty = required.
        optional: if no leaf exists, the table has no such column.
    """

    patterns: tuple[str, ...]
    integer: bool = False
    zeros: str = ""
    optional: bool = False


Columns = dict[str, Column]


@dataclass(frozen=True)
class Group:
    """Tables that must come from the same collection.

    Attributes:
        collections: possible names; the first complete one is taken.
        tables: name of the table -> its columns. Tables after the first are relations of the first.
        optional: the collections may all be missing.
    """

    collections: tuple[str, ...]
    tables: dict[str, Columns]
    optional: bool = False


def _members(*names: str, integer: bool = False, zeros: str = "") -> Columns:
    return {name: Column((f"{{}}.{name}",), integer, zeros) for name in names}


def _vector(member: str, prefix: str = "") -> Columns:
    return {f"{prefix}{axis}": Column((f"{{}}.{member}.{axis}",)) for axis in "xyz"}


def _relation(number: int, *names: str) -> tuple[str, ...]:
    """Patterns of the n-th relation, which has one of ``names`` in newer layouts."""
    return (f"{{}}#{number}", *(f"_{{}}_{name}" for name in names))


def _reference(number: int, *names: str, mixed: bool = False, index: str = "index") -> Columns:
    """An index and the id of its collection, which is required only for ``mixed`` collections."""
    bases = _relation(number, *names)
    return {
        index: Column(tuple(f"{base}.index" for base in bases), integer=True),
        collection_of(index): Column(
            tuple(f"{base}.collectionID" for base in bases), integer=True, optional=not mixed
        ),
    }


def collection_of(index: str) -> str:
    """Return the name of the column with the collection ids of the column ``index``."""
    return f"{index} collection"


def _link(source: str, *, mixed: bool = False) -> Columns:
    """A weighted link, with ends rec and sim up to EDM4hep 0.10, from and to afterwards."""
    return {
        **_members("weight"),
        **_reference(0, "from", "rec", index=source, mixed=mixed),
        **_reference(1, "to", "sim", index="particle"),
    }


_PARTICLE = {**_members("charge", "mass"), **_vector("momentum", "p")}
STATE_NAMES = ("tanLambda", "D0", "phi", "omega", "Z0", "time")


def referred(names: CollectionsConfig) -> dict[str, tuple[str, ...]]:
    """Return table -> collections whose indices are those of its rows.

    Others have members of their own: candidates of CLIC made by the forward calorimeters count in
    LumiCalClusters. Refitting keeps the order of tracks, so that references to the tracks before are as good.
    """
    before = () if names.first_tracks is None else (names.first_tracks,)
    return {
        "particles": (names.particles,),
        "tracks": (names.tracks, *before),
        "clusters": (names.clusters,),
    }


def hit_systems(names: CollectionsConfig) -> dict[str, int]:
    """Return collection of hits -> its system; they are concatenated in this order within each event."""
    return {
        **dict.fromkeys(names.ecal_hits, SYSTEM_ECAL),
        **dict.fromkeys(names.hcal_hits, SYSTEM_HCAL),
        **dict.fromkeys(names.muon_hits, SYSTEM_OTHER),
    }


HIT_COLUMNS: Columns = {
    **_vector("position"),
    **_members("energy"),
    **_members("time", zeros="hits without time"),
    **_members("type", integer=True, zeros="hits without type"),
}


def _particle_groups(names: CollectionsConfig) -> list[Group]:
    return [
        Group(
            (names.particles,),
            {
                "particles": {
                    "pdg": Column(("{}.PDG",), integer=True),
                    "status": Column(("{}.generatorStatus",), integer=True),
                    **_PARTICLE,
                }
            },
        ),
        # Without parents links of secondaries cannot be traced to a stable ancestor.
        Group(
            (names.particles,),
            {
                "parent ranges": _members("parents_begin", "parents_end", integer=True),
                "parents": _reference(0, "parents"),
            },
            optional=True,
        ),
    ]


def _track_groups(names: CollectionsConfig) -> list[Group]:
    states: tuple[str, ...] = (f"{names.tracks}_1", f"_{names.tracks}_trackStates")
    if names.first_tracks is not None:  # older productions keep the states of the unrefitted tracks only
        states = (*states, f"{names.first_tracks}_1")
    return [
        Group(
            (names.tracks,),
            {
                "tracks": {
                    **_members("trackStates_begin", "ndf", integer=True),
                    **_members("type", integer=True, zeros="tracks without type"),
                    **_members("chi2"),
                    **_members("dEdx", "dEdxError", zeros="tracks without dE/dx"),
                    **_members("radiusOfInnermostHit", zeros="tracks without innermost hit"),
                }
            },
        ),
        # EDM4hep 0.4 has no time.
        Group(
            states,
            {
                "track states": {
                    **_members(*(name for name in STATE_NAMES if name != "time")),
                    **_members("time", zeros="tracks without time"),
                }
            },
        ),
        # From EDM4hep 0.99 on tracks have no dE/dx and no innermost radius of their own.
        Group(
            (f"{names.tracks}_dQdx",),
            {
                "dE/dx": {
                    "dEdx": Column(("{}.dQdx.value",)),
                    "dEdxError": Column(("{}.dQdx.error",)),
                    "track": Column(("_{}_track.index", "{}#0.index"), integer=True),
                    collection_of("track"): Column(
                        ("_{}_track.collectionID", "{}#0.collectionID"), integer=True, optional=True
                    ),
                }
            },
            optional=True,
        ),
        Group(
            (names.tracks,),
            {"state ranges": _members("trackStates_begin", "trackStates_end", integer=True)},
            optional=True,
        ),
        Group(
            states,
            {
                "state places": {
                    **_members("location", integer=True),
                    "x": Column(("{}.referencePoint.x",)),
                    "y": Column(("{}.referencePoint.y",)),
                }
            },
            optional=True,
        ),
    ]


def _calorimeter_groups(names: CollectionsConfig) -> list[Group]:
    return [
        Group(
            (names.clusters,),
            {
                "clusters": {
                    **_vector("position"),
                    **_members("iTheta", "energy"),
                    "phi": Column(("{}.phi", "{}.iPhi")),
                    **_members("hits_begin", "hits_end", integer=True),
                },
                "cluster hits": _reference(1, "hits", mixed=True),
            },
        ),
        Group((names.hit_links,), {"hit links": _link("hit", mixed=True)}),
        Group((names.track_links,), {"track links": _link("track")}),
        Group(
            tuple(names.candidates),
            {
                "candidates": {
                    "pdg": Column(("{}.type", "{}.PDG"), integer=True),
                    **_PARTICLE,
                    **_members("clusters_begin", "clusters_end", "tracks_begin", "tracks_end", integer=True),
                },
                "candidate clusters": _reference(0, "clusters"),
                "candidate tracks": _reference(1, "tracks"),
            },
        ),
        # Collections of hits: which of them a production keeps differs; one at least is needed.
        *(Group((name,), {name: HIT_COLUMNS}, optional=True) for name in hit_systems(names)),
    ]


def table_groups(names: CollectionsConfig) -> list[Group]:
    """Return all tables and the collections of a detector that they can be read from."""
    return [*_particle_groups(names), *_track_groups(names), *_calorimeter_groups(names)]
