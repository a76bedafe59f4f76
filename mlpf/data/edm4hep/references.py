"""Ranges and references of EDM4HEP -> rows of flat tables, for all events of a chunk at once."""

from collections import Counter
from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from mlpf.data.edm4hep.collection_ids import ID_BITS, positions
from mlpf.data.flat_tables import BoolArray, IntArray, Relation, Table, expand_ranges

NULL = "null references"
OUT_OF_RANGE = "references out of range"
UNKNOWN_COLLECTION = "references to unknown collections"


def expand_references(
    table: Table, kind: str, references: Table
) -> tuple[IntArray, dict[str, npt.NDArray], BoolArray]:
    """Expand ``<kind>_begin`` and ``<kind>_end``, half-open ranges within an event.

    Args:
        table: rows with the two columns.
        kind: name of the relation.
        references: table of the references.

    Returns:
        Row of ``table`` of each reference [R]; columns of the references [R]; events [E] with a range that
        is swapped or exceeds the references of its event. Such a range counts as empty.
    """
    event = table.event
    begin, end = table[f"{kind}_begin"], table[f"{kind}_end"]
    wrong = (begin < 0) | (begin > end) | (end > references.counts[event])
    bad = np.zeros(len(table.counts), dtype=bool)
    bad[event[wrong]] = True
    counts = np.where(wrong, 0, end - begin)
    place = expand_ranges(references.offsets[event] + np.where(wrong, 0, begin), counts)
    return np.repeat(np.arange(len(table)), counts), {n: v[place] for n, v in references.columns.items()}, bad


def rows_of(
    event: IntArray,
    index: IntArray,
    table: Table,
    counters: Counter[str],
    *,
    collection: IntArray | None = None,
    ids: Collection[int] = (),
) -> IntArray:
    """Turn indices within an event into rows of ``table``.

    Args:
        event: event of each reference [n].
        index: row within the event of each reference [n]; negative = none.
        table: target of the references.
        counters: gets the number of references that fail, by reason.
        collection: id of the collection of each index [n]; None if the file does not have it.
        ids: ids of the collections with the indices of ``table``, modulo 2^32; empty if they are unknown.
            References are checked only if both are known.

    Returns:
        Row of each reference [n]; -1 if it fails.
    """
    null = index < 0
    unknown = np.zeros(len(index), dtype=bool)
    if collection is not None and ids:
        unknown = ~null & ~np.isin(collection & ID_BITS, list(ids))
    outside = ~unknown & (index >= table.counts[event])
    counters[NULL] += int(null.sum())
    counters[UNKNOWN_COLLECTION] += int(unknown.sum())
    counters[OUT_OF_RANGE] += int(outside.sum())
    return np.where(null | unknown | outside, -1, table.offsets[event] + index)


class HitRows:
    """Rows of hits by (collection id, index), if one table holds the hits of several collections.

    Attributes:
        hits: hits of all collections.
        within: [collections + 1, E] start of each collection within its event.
        ids: collection id -> number of the collection.
    """

    def __init__(self, hits: Table, within: IntArray, ids: dict[int, int]) -> None:
        self.hits, self.within, self.ids = hits, within, ids

    def find(
        self, event: IntArray, collection: IntArray, index: IntArray, counters: Counter[str]
    ) -> IntArray:
        """Return the row of each reference [n]. A reference without a target becomes -1 and is counted."""
        which = positions(collection, self.ids)
        null = index < 0
        unknown = ~null & (which < 0)
        size = self.within[which + 1, event] - self.within[which, event]
        outside = ~null & ~unknown & (index >= size)
        counters[NULL] += int(null.sum())
        counters[UNKNOWN_COLLECTION] += int(unknown.sum())
        counters[OUT_OF_RANGE] += int(outside.sum())
        rows = self.hits.offsets[event] + self.within[which, event] + index
        return np.where(null | unknown | outside, -1, rows)


def link(source: IntArray, target: IntArray, weight: npt.NDArray) -> Relation:
    """Return the links of which both ends exist (are not -1)."""
    keep = (source >= 0) & (target >= 0)
    return Relation(source[keep], target[keep], weight[keep].astype(np.float64))
