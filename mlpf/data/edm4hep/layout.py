"""The leaf of each column in a file."""

from collections.abc import Collection
from dataclasses import dataclass, field

from mlpf.config.detector import CLIC, CollectionsConfig
from mlpf.data.edm4hep.fields import HIT_COLUMNS, Column, Columns, Group, hit_systems, table_groups


@dataclass(frozen=True)
class FoundTable:
    """Leaves of one table.

    Attributes:
        leaves: column -> leaf.
        integers: columns that must hold integers.
        zeros: columns without a leaf -> name of the counter of their rows.
    """

    leaves: dict[str, str]
    integers: frozenset[str]
    zeros: dict[str, str]


@dataclass
class FoundLayout:
    """The layout of a file.

    Attributes:
        tables: name of the table -> its leaves.
        missing: what is needed and not there, each as a text.
        old_references: relations are called by number, as podio did up to 0.16.
        systems: collection of hits that the detector has -> its system.
    """

    tables: dict[str, FoundTable] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    old_references: bool = False
    systems: dict[str, int] = field(default_factory=dict)

    @property
    def hit_collections(self) -> list[str]:
        """Hit collections that the file has, in the order in which they are concatenated."""
        return [name for name in self.systems if name in self.tables]


def _leaf(column: Column, collection: str, leaves: Collection[str]) -> str | None:
    names = (pattern.format(collection) for pattern in column.patterns)
    return next((name for name in names if name in leaves), None)


def _find_table(columns: Columns, collection: str, leaves: Collection[str]) -> FoundTable:
    found = {name: _leaf(column, collection, leaves) for name, column in columns.items()}
    return FoundTable(
        {name: leaf for name, leaf in found.items() if leaf is not None},
        frozenset(name for name, column in columns.items() if column.integer),
        {name: columns[name].zeros for name, leaf in found.items() if leaf is None and columns[name].zeros},
    )


def _lacking(columns: Columns, table: FoundTable) -> list[str]:
    return [
        name
        for name, column in columns.items()
        if name not in table.leaves and name not in table.zeros and not column.optional
    ]


def _branches(columns: Columns, collections: Collection[str]) -> str:
    """Return the possible branches of the columns, e.g. ``X#1 or _X_hits``."""
    first = next(iter(columns.values()))
    names = dict.fromkeys(p.format(c).split(".")[0] for p in first.patterns for c in collections)
    return " or ".join(names)


def _missing(group: Group, collection: str, tables: dict[str, FoundTable]) -> list[str]:
    """Return what a collection lacks: names of whole branches, or of single leaves."""
    texts = []
    for position, (name, columns) in enumerate(group.tables.items()):
        lacking = _lacking(columns, tables[name])
        if not tables[name].leaves:
            whole = group.collections if position == 0 else (collection,)
            texts.append(_branches(columns, whole))
            if position == 0:
                break  # without the collection its relations need no message
        else:
            texts += [" or ".join(p.format(collection) for p in columns[c].patterns) for c in lacking]
    return texts


def _drop_replacements(layout: FoundLayout) -> None:
    """Leave out tables that replace existing leaves of tracks, and tables that are useless alone."""
    known = layout.tables["tracks"].leaves if "tracks" in layout.tables else {}
    places = {"state ranges", "state places"}
    if "radiusOfInnermostHit" in known or not places <= set(layout.tables):
        for name in places:
            layout.tables.pop(name, None)
    if "dEdx" in known:
        layout.tables.pop("dE/dx", None)


def find_layout(leaves: Collection[str], names: CollectionsConfig = CLIC.collections) -> FoundLayout:
    """Find the leaf of every column.

    Args:
        leaves: names of all leaves of a file.
        names: of the collections.

    Returns:
        The leaves found, and what is missing. Optional groups that are incomplete are left out.
    """
    systems = hit_systems(names)
    old = any("#" in leaf.split(".")[0] for leaf in leaves)
    layout = FoundLayout(old_references=old, systems=systems)
    for group in table_groups(names):
        tried = {
            collection: {
                name: _find_table(columns, collection, leaves) for name, columns in group.tables.items()
            }
            for collection in group.collections
        }
        lacks = {collection: _missing(group, collection, tables) for collection, tables in tried.items()}
        # An incomplete collection tells more about the problem than a missing one.
        num_found = {c: sum(len(t.leaves) for t in tables.values()) for c, tables in tried.items()}
        best = min(group.collections, key=lambda c: (bool(lacks[c]), -num_found[c] if lacks[c] else 0))
        if not lacks[best]:
            layout.tables |= tried[best]
        elif not group.optional or (set(group.tables) <= set(systems) and num_found[best]):
            layout.missing += lacks[best]
    _drop_replacements(layout)
    if not layout.hit_collections and not any(m.split(".")[0] in systems for m in layout.missing):
        layout.missing.append(f"hits (one of {', '.join(systems)} at least)")
    return layout


def collection_names(leaves: Collection[str]) -> list[str]:
    """Return the collections with their own data, without relations and subsets, sorted."""
    names = {leaf.split(".")[0] for leaf in leaves if "." in leaf}
    return sorted(n for n in names if "#" not in n and not n.startswith("_") and not n.endswith("_objIdx"))


def look_alikes(leaves: Collection[str], names: CollectionsConfig = CLIC.collections) -> dict[str, list[str]]:
    """Find collections of other names that have every member of a table of ours.

    Args:
        leaves: names of all leaves of a file.
        names: of the collections that are read.

    Returns:
        Name of the table -> similar collections that are not read.
    """
    groups = table_groups(names)
    known = {name for group in groups for name in group.collections}
    others = [name for name in collection_names(leaves) if name not in known]
    tables = {name: columns for group in groups for name, columns in group.tables.items()}
    tables["hits"] = HIT_COLUMNS
    alike = {
        name: [c for c in others if not _lacking(tables[name], _find_table(tables[name], c, leaves))]
        for name in ("particles", "tracks", "clusters", "hits", "candidates")
    }
    # Clusters have all members of a hit.
    alike["hits"] = [c for c in alike["hits"] if c not in alike["clusters"]]
    return {name: found for name, found in alike.items() if found}
