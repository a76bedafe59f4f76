"""Checks of a prepared split before training: counts, sums, histograms, and events with problems."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mlpf.data.dataset.prepared_events import PreparedEvents
from mlpf.data.flat_tables import Table
from mlpf.physics.features import ACCOUNT_COLUMNS, PARTICLE_COLUMNS, TARGETS, Columns
from mlpf.physics.particles import NUM_CLASSES
from mlpf.physics.schemas import EventSchema

Array = npt.NDArray[np.float32]
NUM_BINS = 60
MAX_EXAMPLES = 5
# Relative: float32 momenta, energies and angles, each stored with its own rounding.
MOMENTUM_TOLERANCE = 1e-3
ANGLE_TOLERANCE = 1e-3
# Relative: sums of float32 values.
CLOSURE_TOLERANCE = 1e-3
# Fraction of values at each end that the range of a histogram leaves out.
TAIL = 0.001


@dataclass
class Finding:
    """Something found in events.

    Attributes:
        what: description.
        fatal: training would fail, or the evaluation would be too good.
        count: number of events.
        examples: places of a few of them.
    """

    what: str
    fatal: bool
    count: int = 0
    examples: list[str] = field(default_factory=list)


class Findings(dict[str, Finding]):
    """Findings, by description."""

    def add(self, what: str, where: Sequence[str], fatal: bool) -> None:
        """Count events, given as their locations."""
        if where:
            found = self.setdefault(what, Finding(what, fatal))
            found.count += len(where)
            found.examples += where[: MAX_EXAMPLES - len(found.examples)]


@dataclass(frozen=True)
class Binning:
    """Equal bins for each column of a table.

    Attributes:
        columns: their names and units.
        low: [F] lower edge of the first bin.
        high: [F] upper edge of the last bin.
        bins: [F] number of bins, at most ``NUM_BINS``.
    """

    columns: Columns
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    bins: npt.NDArray[np.int64]

    def edges(self, column: int) -> npt.NDArray[np.float64]:
        """Return the edges of one column's bins."""
        return np.linspace(self.low[column], self.high[column], self.bins[column] + 1)

    def count(self, values: Array) -> npt.NDArray[np.int64]:
        """Return counts [F, NUM_BINS] of values [n, F]; first and last bin include underflow and overflow."""
        rows = values[np.isfinite(values).all(axis=1)].astype(np.float64)
        position = (rows - self.low) / (self.high - self.low) * self.bins
        index = np.clip(position, 0, self.bins - 1).astype(np.int64)
        index += np.arange(len(self.bins)) * NUM_BINS
        return np.bincount(index.ravel(), minlength=len(self.bins) * NUM_BINS).reshape(-1, NUM_BINS)


def choose_binning(columns: Columns, sample: Array) -> Binning:
    """Choose bins from a sample [n, F]: one bin per whole number, else equal bins over the central values.

    The range leaves out the fraction ``TAIL`` at each end.
    """
    width = sample.shape[1]
    rows = sample[np.isfinite(sample).all(axis=1)].astype(np.float64)
    if not len(rows):
        return Binning(columns, np.zeros(width), np.ones(width), np.ones(width, np.int64))
    low, high = np.quantile(rows, (TAIL, 1 - TAIL), axis=0)
    whole = (rows == np.round(rows)).all(axis=0)
    low, high = np.where(whole, np.floor(low) - 0.5, low), np.where(whole, np.ceil(high) + 0.5, high)
    few = whole & (high - low <= NUM_BINS)
    bins = np.where(few, high - low, NUM_BINS).astype(np.int64)
    same = high <= low
    margin = np.maximum(1e-3 * np.abs(low), 1e-9)
    low, high = np.where(same, low - margin, low), np.where(same, high + margin, high)
    return Binning(columns, low, high, np.where(same, 1, bins))


def tables(events: PreparedEvents, schema: EventSchema) -> Iterator[tuple[str, Columns, Array]]:
    """Yield name, columns and rows of every table: kinds of element, targets, candidates, particle lists.

    Of targets and candidates only rows with a particle.
    """
    x = events["X"]
    for kind in schema.kinds:
        rows = x[x[:, kind.features.index("elemtype")] == kind.elemtype]
        yield f"{kind.name}s", kind.features, rows[:, : len(kind.features)]
    for name, title in (("ygen", "targets"), ("ycand", "candidates")):
        rows = events[name]
        yield title, TARGETS, rows[rows[:, TARGETS.index("cls")] != 0]
    for name in schema.particle_lists:
        if name in events:
            yield name, PARTICLE_COLUMNS, events[name]


class SplitCheck:
    """Checks the events of one split in chunks; keeps a few numbers per event.

    Args:
        split: its name, for locations.
        schema: schema of its events.
        binning: table name -> bins, see ``tables``.
        findings: shared by all splits.
    """

    def __init__(
        self, split: str, schema: EventSchema, binning: Mapping[str, Binning], findings: Findings
    ) -> None:
        self.split, self.schema, self.findings = split, schema, findings
        self._binning = binning
        self.histograms = {
            name: np.zeros((len(bins.bins), NUM_BINS), np.int64) for name, bins in binning.items()
        }
        self.class_counts = {name: np.zeros(NUM_CLASSES, np.int64) for name in ("ygen", "ycand")}
        self._kind_counts: list[npt.NDArray[np.int64]] = []
        self._sums: dict[str, list[npt.NDArray[np.float64]]] = {}
        self._content: list[int] = []
        self._keys: list[int] = []
        self.locations: list[str] = []

    @property
    def num_events(self) -> int:
        """Number of readable events."""
        return len(self._content)

    @property
    def kind_counts(self) -> npt.NDArray[np.int64]:
        """Elements of each kind in each event, [E, kinds]."""
        return np.concatenate([np.zeros((0, len(self.schema.kinds)), np.int64), *self._kind_counts])

    def energy(self, name: str) -> npt.NDArray[np.float64]:
        """Sum of the energies of ``ygen``, ``ycand`` or a particle list in each event, GeV; [0] if absent."""
        return np.concatenate(self._sums.get(name, [np.zeros(0)]))

    @property
    def content_digests(self) -> npt.NDArray[np.uint64]:
        """Hash of inputs and targets of each event, 0 for an event without elements."""
        return np.array(self._content, np.uint64)

    @property
    def key_digests(self) -> npt.NDArray[np.uint64]:
        """Hash of the name of each event, 0 if the dataset has no names."""
        return np.array(self._keys, np.uint64)

    def add(self, events: PreparedEvents, indices: Sequence[int]) -> None:
        """Check events, with their positions in the split."""
        where = [f"{self.split} event {i}" for i in indices]
        if "event" in events:
            where = [f"{place} ({name})" for place, name in zip(where, events.names, strict=True)]
            self._keys += [_digest(name.encode()) for name in events.names]
        else:
            self._keys += [0] * events.num_events
        self.locations += where
        self._content += [
            _digest(one["X"].tobytes(), one["ygen"].tobytes()) if len(one) else 0
            for one in events.elements.split()
        ]
        for name, _, rows in tables(events, self.schema):
            self.histograms[name] += self._binning[name].count(rows)
        self._look_at_elements(events.elements, where)
        self._look_at_particles("ygen", TARGETS, events, where, fatal=True)
        self._look_at_particles("ycand", TARGETS, events, where, fatal=False)
        for name in self.schema.particle_lists:
            if name in events:
                self._look_at_particles(name, PARTICLE_COLUMNS, events, where, fatal=False)
        if "gen_particles" in events and "account" in events:
            self._look_at_closure(events, where)

    def _look_at_elements(self, elements: Table, where: Sequence[str]) -> None:
        x, row_event = elements["X"], elements.event
        elemtype = x[:, 0]
        counts = np.zeros((elements.num_events, len(self.schema.kinds)), np.int64)
        known = np.zeros(len(x), bool)
        for k, kind in enumerate(self.schema.kinds):
            mine = elemtype == kind.elemtype
            known |= mine
            counts[:, k] = elements.sum(mine)
            self._not_finite(f"X of {kind.name}s", kind.features, x[mine], row_event[mine], where)
        self._report("X: unknown element type", row_event[~known], where, fatal=True)
        self._kind_counts.append(counts)

    def _look_at_particles(
        self, name: str, columns: Columns, events: PreparedEvents, where: Sequence[str], fatal: bool
    ) -> None:
        rows, row_event = events[name], events.table(name).event
        self._not_finite(name, columns, rows, row_event, where)
        value = {column: rows[:, columns.index(column)].astype(np.float64) for column in columns.names}
        cls = value["cls"]
        in_range = (cls >= 0) & (cls < NUM_CLASSES) & (cls == np.round(cls))
        self._report(f"{name}: class is not 0 to {NUM_CLASSES - 1}", row_event[~in_range], where, fatal=True)
        if name in self.class_counts:
            self.class_counts[name] += np.bincount(cls[in_range].astype(np.int64), minlength=NUM_CLASSES)
        usable = np.isfinite(rows).all(axis=1) & in_range & (cls > 0)
        energy = np.where(usable, value["energy"], 0.0)
        self._sums.setdefault(name, []).append(events.table(name).sum(energy))
        value, row_event = {c: v[usable] for c, v in value.items()}, row_event[usable]
        energy = value["energy"]
        self._report(f"{name}: particle without energy", row_event[energy <= 0], where, fatal)
        # Larger than for any particle; cosh of more would overflow.
        momentum = value["pt"] * np.cosh(np.clip(value["eta"], -50, 50))
        light = energy < momentum * (1 - MOMENTUM_TOLERANCE)
        self._report(f"{name}: energy below momentum pt cosh(eta)", row_event[light], where, fatal=False)
        circle = np.abs(np.hypot(value["sin_phi"], value["cos_phi"]) - 1) > ANGLE_TOLERANCE
        self._report(f"{name}: sine and cosine of phi off the circle", row_event[circle], where, fatal=False)
        charge = ~np.isin(value["charge"], (-1, 0, 1))
        self._report(f"{name}: charge is not -1, 0 or 1", row_event[charge], where, fatal=False)

    def _look_at_closure(self, events: PreparedEvents, where: Sequence[str]) -> None:
        """Compare generator particles with targets and losses, in energy and in charge."""
        for quantity in ("energy", "charge"):
            generated, on_targets, lost = (
                events.table(name).sum(events[name][:, columns.index(column)])
                for name, columns, column in (
                    ("gen_particles", PARTICLE_COLUMNS, quantity),
                    ("ygen", TARGETS, quantity),
                    ("account", ACCOUNT_COLUMNS, f"lost_{quantity}"),
                )
            )
            missing = np.abs(generated - on_targets - lost)
            # Comparisons with NaN are False, so NaN counts as a difference.
            closed = missing <= CLOSURE_TOLERANCE * np.maximum(1.0, np.abs(generated))
            self._report(
                f"{quantity} of targets and losses is not that of gen_particles",
                np.flatnonzero(~closed),
                where,
                fatal=True,
            )

    def _not_finite(
        self,
        name: str,
        columns: Columns,
        rows: Array,
        row_event: npt.NDArray[np.int64],
        where: Sequence[str],
    ) -> None:
        bad = ~np.isfinite(rows[:, : len(columns)])
        for i in np.flatnonzero(bad.any(axis=0)):
            self._report(
                f"{name}: {columns.names[i]} is NaN or infinite", row_event[bad[:, i]], where, fatal=True
            )

    def _report(self, what: str, events: npt.NDArray[np.int64], where: Sequence[str], fatal: bool) -> None:
        self.findings.add(what, [where[i] for i in np.unique(events)], fatal)


def find_duplicates(splits: Sequence[SplitCheck], findings: Findings) -> None:
    """Report duplicate events, by name and by content, within and across splits."""
    for what in ("name", "content"):
        digests = [s.key_digests if what == "name" else s.content_digests for s in splits]
        values = np.concatenate([np.zeros(0, np.uint64), *digests])
        split = np.repeat(np.arange(len(splits)), [len(d) for d in digests])
        order = np.argsort(values, kind="stable")
        same = (values[order][1:] == values[order][:-1]) & (values[order][1:] != 0)
        first, second = order[:-1][same], order[1:][same]
        locations = [location for s in splits for location in s.locations]
        across = split[first] != split[second]
        for chosen, which in ((across, "in two splits"), (~across, "twice in one split")):
            pairs = zip(first[chosen], second[chosen], strict=True)
            found = [f"{locations[a]} = {locations[b]}" for a, b in pairs]
            findings.add(f"the same {what} {which}", found, fatal=True)


def _digest(*parts: bytes) -> int:
    """Return a 64 bit hash of the content; never 0."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return int.from_bytes(digest.digest(), "little") or 1
