"""Events of a prepared dataset as tables: the result of a split and the input of the evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlpf.data.flat_tables import BoolArray, IntArray, Table, offsets_from_counts

# Fields with one row per element. Other fields have other rows, or one value per event.
ELEMENT_FIELDS = ("X", "ygen", "ycand")


@dataclass(frozen=True)
class PreparedEvents:
    """E events with the requested fields. ``events[name]`` is the array of a field.

    Attributes:
        elements: ``X`` [n, F], ``ygen`` [n, 8], ``ycand`` [n, 8], if requested.
        lists: name -> table with one column of that name, e.g. ``gen_particles`` [P, 7].
        values: name -> [E] one value per event, e.g. ``event``, its identifier.
    """

    elements: Table
    lists: dict[str, Table]
    values: dict[str, npt.NDArray]

    @property
    def num_events(self) -> int:
        """Number of events E."""
        return self.elements.num_events

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields."""
        return (*self.elements.columns, *self.lists, *self.values)

    @property
    def names(self) -> list[str]:
        """Identifier of each event, or its position among these events if the dataset has no identifiers."""
        found = self.values.get("event", np.arange(self.num_events)).tolist()
        return [name.decode() if isinstance(name, bytes) else str(name) for name in found]

    def __contains__(self, name: str) -> bool:
        """Return whether the events have a field."""
        return name in self.fields

    def __getitem__(self, name: str) -> npt.NDArray:
        """Return the array of a field: all its rows, or one value per event."""
        return self.values[name] if name in self.values else self.table(name)[name]

    def table(self, name: str) -> Table:
        """Return the table that has a field as a column."""
        return self.lists.get(name, self.elements)

    def take(self, events: IntArray | BoolArray) -> "PreparedEvents":
        """Return some events, as ``Table.take`` does."""
        return PreparedEvents(
            self.elements.take(events),
            {name: table.take(events) for name, table in self.lists.items()},
            {name: values[events] for name, values in self.values.items()},
        )

    @classmethod
    def concatenate(cls, parts: Sequence["PreparedEvents"]) -> "PreparedEvents":
        """Join events of the same fields in order; at least one part.

        Raises:
            ValueError: no part, or their fields differ.
        """
        if not parts or any(set(part.fields) != set(parts[0].fields) for part in parts):
            raise ValueError("events to concatenate: expected one part at least, all with the same fields")
        return cls(
            Table.concatenate([part.elements for part in parts]),
            {name: Table.concatenate([part.lists[name] for part in parts]) for name in parts[0].lists},
            {name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values},
        )

    @classmethod
    def from_events(cls, events: Sequence[Mapping[str, npt.NDArray]]) -> "PreparedEvents":
        """Make tables of at least one event.

        Args:
            events: per event, field -> array whose first axis are rows; without an axis for a value.

        Raises:
            ValueError: no event, or an event has fields of elements that differ in length.
        """
        if not events:
            raise ValueError("no event to make tables of")
        of_elements = [name for name in events[0] if name in ELEMENT_FIELDS]
        of_values = [name for name in events[0] if np.ndim(events[0][name]) == 0]
        elements = (
            Table.from_events(events, of_elements)
            if of_elements
            else Table({}, offsets_from_counts(np.zeros(len(events), np.int64)))
        )
        lists = {
            name: Table.from_events(events, [name])
            for name in events[0]
            if name not in of_elements and name not in of_values
        }
        return cls(elements, lists, {name: np.array([event[name] for event in events]) for name in of_values})
