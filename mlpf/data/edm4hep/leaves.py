"""The events of one open EDM4HEP file: names of its leaves, and their values for a range of events.

A ``TTree`` is read basket by basket directly into numpy. With hundreds of leaves and few events per file,
reading through awkward arrays takes several times as long.
"""

import re
from bisect import bisect_right
from collections.abc import Collection, Iterator
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt
import uproot

from mlpf.data.flat_tables import IntArray
from mlpf.data.source_file import SourceFile, readable_errors
from mlpf.errors import DataError

TREE = "events"
TTREE, RNTUPLE = "TTree", "RNTuple"
Values = tuple[npt.NDArray, IntArray]


class EventFile:
    """The events of one open file.

    Attributes:
        path: the file, for messages.
        kind: ``TTREE`` or ``RNTUPLE``.
        num_events: events in the file.
        leaves: names of all leaves, e.g. ``MCParticles.momentum.x``.
    """

    def __init__(self, source: SourceFile) -> None:
        """Find the leaves of a file with a tree ``TREE``.

        Raises:
            DataError: the file is damaged.
        """
        self.path = source.path
        with readable_errors(self.path):
            events = source.root[TREE]
            self.num_events = int(events.num_entries)
            self.kind = RNTUPLE if isinstance(events, uproot.behaviors.RNTuple.HasFields) else TTREE
            self._leaves: _TreeLeaves | _TupleLeaves
            self._leaves = _TupleLeaves(events) if self.kind == RNTUPLE else _TreeLeaves(events)
            self.leaves = frozenset(self._leaves.names)

    def select(self, leaves: Collection[str]) -> None:
        """Select the leaves to read: an RNTuple reads them together much faster than one by one."""
        self._leaves.select(leaves)

    def read(self, leaf: str, start: int, stop: int) -> Values:
        """Read one selected leaf of events start ... stop - 1.

        Returns:
            The values of all events [n], one event after the other, and their number per event [stop -
            start].

        Raises:
            DataError: the leaf does not hold one list of numbers per event, or the file is damaged.
        """
        with readable_errors(self.path):
            try:
                return self._leaves.read(leaf, start, stop)
            except _NotNumbers as error:
                raise DataError(
                    f"{self.path}: leaf {leaf} holds {error}, expected a list of numbers per event; "
                    "write the file with EDM4HEP's own types"
                ) from error


class _NotNumbers(Exception):
    """A leaf does not hold one list of numbers per event."""


class _TreeLeaves:
    """The branches of a ``TTree``."""

    def __init__(self, tree: Any) -> None:
        self._branches: dict[str, Any] = {}
        for branch in tree.itervalues(recursive=True):
            self._branches.setdefault(branch.name.rsplit("/", 1)[-1], branch)
        self._open: dict[str, _TreeLeaf] = {}
        self.names = list(self._branches)

    def select(self, leaves: Collection[str]) -> None:
        """Do nothing: branches are read one by one."""

    def read(self, leaf: str, start: int, stop: int) -> Values:
        """Read values and counts of events start ... stop - 1."""
        if leaf not in self._open:
            self._open[leaf] = _TreeLeaf(self._branches[leaf])
        return self._open[leaf].read(start, stop)


class _TreeLeaf:
    """A branch of a ``TTree``, read forwards. The last basket stays in memory: each is unpacked once."""

    def __init__(self, branch: Any) -> None:
        self._branch = branch
        self._dtype = _branch_dtype(branch)
        self._edges = [int(edge) for edge in branch.entry_offsets]
        self._basket: tuple[int, npt.NDArray, npt.NDArray] | None = None

    def read(self, start: int, stop: int) -> Values:
        """Read values and counts of events start ... stop - 1."""
        if self._dtype is None:
            array = self._branch.array(entry_start=start, entry_stop=stop, library="ak")
            return _split(ak.to_packed(array).layout, [])
        contents, counts = [np.zeros(0, self._dtype.newbyteorder("="))], [np.zeros(0, np.int64)]
        number = bisect_right(self._edges, start) - 1
        while start < stop:
            if number + 1 >= len(self._edges):
                raise ValueError(f"{self._branch.name} ends before event {stop}")
            first = self._edges[number]
            last = min(stop, self._edges[number + 1])
            if last > start:
                content, offsets = self._unpacked(number)
                limits = offsets[start - first : last - first + 1]
                contents.append(content[limits[0] : limits[-1]])
                counts.append(np.diff(limits))
                start = last
            number += 1
        return np.concatenate(contents), np.concatenate(counts)

    def _unpacked(self, number: int) -> tuple[npt.NDArray, npt.NDArray]:
        """Return the content of a basket and the start of each of its events."""
        if self._basket is None or self._basket[0] != number:
            basket = self._branch.basket(number)
            assert self._dtype is not None  # noqa: S101 - read() has returned where it is None
            ends = basket.byte_offsets
            size = self._edges[number + 1] - self._edges[number]
            if ends is None:
                ends = np.concatenate([[0], np.cumsum(basket.counts)]) * self._dtype.itemsize
            offsets = np.asarray(ends, dtype=np.int64) // self._dtype.itemsize
            content = basket.data[: len(basket.data) // self._dtype.itemsize * self._dtype.itemsize]
            content = content.view(self._dtype).astype(self._dtype.newbyteorder("="))
            if (
                len(offsets) <= size
                or offsets[0] < 0
                or offsets[-1] > len(content)
                or (np.diff(offsets) < 0).any()
            ):
                raise ValueError(f"{self._branch.name}: offsets of basket {number} make no sense")
            self._basket = number, content, offsets
        return self._basket[1], self._basket[2]


class _TupleLeaves:
    """The fields of an ``RNTuple``. Selected fields are read together, one range of events at a time."""

    def __init__(self, events: Any) -> None:
        self._events = events
        self._selected: list[str] = []
        self._range = (0, 0)
        self._records: Any = None
        self.names = list(_field_names(events, ""))

    def select(self, leaves: Collection[str]) -> None:
        """Select the leaves that later reads return."""
        self._selected = sorted(leaves)
        self._records = None

    def read(self, leaf: str, start: int, stop: int) -> Values:
        """Read values and counts of events start ... stop - 1."""
        if self._records is None or self._range != (start, stop):
            self._records = self._events.arrays(
                filter_name=self._selected, entry_start=start, entry_stop=stop, array_cache=None
            ).layout
            self._range = start, stop
        outer, *inner = leaf.split(".")
        lists = self._records.content(outer)
        if len(lists) != stop - start:
            raise ValueError(f"{leaf} has {len(lists)} events instead of {stop - start}")
        return _split(lists, inner)


def _field_names(parent: Any, prefix: str) -> Iterator[str]:
    """Yield the names of all fields without members, as ``outer.inner``."""
    for field in parent.fields:
        if field.fields:
            yield from _field_names(field, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


# uproot needs longer to find the type of a branch than to read a small one. The type depends on these only.
_KNOWN_TYPES: dict[tuple, np.dtype] = {}


def _type_key(branch: Any) -> tuple | None:
    """Return the properties that determine the type of a branch of numbers; None for other branches."""
    leaves = branch.member("fLeaves")
    if len(leaves) != 1 or len(branch.branches):
        return None
    leaf = leaves[0]
    return (
        branch.classname,
        branch.member("fStreamerType", none_if_missing=True),
        leaf.classname,
        leaf.member("fType", none_if_missing=True),
        leaf.member("fIsUnsigned"),
        leaf.member("fLen"),
        leaf.member("fLeafCount") is None,
        tuple(re.findall(r"\[(\d*)", leaf.member("fTitle"))),
    )


def _branch_dtype(branch: Any) -> np.dtype | None:
    """Return the type of the numbers in a branch; None if only uproot itself can unpack it."""
    key = _type_key(branch)
    if key in _KNOWN_TYPES:
        return _KNOWN_TYPES[key]
    interpretation = branch.interpretation
    if not isinstance(interpretation, uproot.AsJagged):
        raise _NotNumbers(str(getattr(interpretation, "typename", interpretation)))
    content = interpretation.content
    if interpretation.header_bytes or type(content) is not uproot.AsDtype or content.inner_shape:
        return None
    dtype = np.dtype(content.from_dtype)
    if key is not None:
        _KNOWN_TYPES[key] = dtype
    return dtype


def _split(lists: Any, members: list[str]) -> Values:
    """Split the layout of one list per event into the numbers of a (nested) member and counts."""
    if not isinstance(lists, ak.contents.ListOffsetArray):
        raise _NotNumbers(str(lists.form.type))
    offsets = np.asarray(lists.offsets.data, dtype=np.int64)
    content = lists.content
    for member in members:
        if not isinstance(content, ak.contents.RecordArray):
            raise _NotNumbers(f"lists of {content.form.type}")
        content = content.content(member)
    if not isinstance(content, ak.contents.NumpyArray) or content.data.ndim != 1:
        raise _NotNumbers(f"lists of {content.form.type}")
    return np.asarray(content.data)[offsets[0] : offsets[-1]], np.diff(offsets)
