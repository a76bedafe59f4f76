"""One EDM4HEP file -> prepared events: reader, features, truth and limits put together."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpf import __version__
from mlpf.data.edm4hep.features import cluster_features, hit_features, track_features
from mlpf.data.edm4hep.reader import BAD_NUMBERS, read_events
from mlpf.data.edm4hep.truth import TRUTH_VERSION, candidate_targets, elements_of, gen_targets, link_truth
from mlpf.data.edm4hep.truth_limits import Rows, gen_particles, oracle_particles, perfect_particles
from mlpf.data.events import Events, Jagged
from mlpf.data.flat_tables import BoolArray, RawEvents, offsets_from_counts
from mlpf.errors import DataError
from mlpf.physics.schemas import SCHEMAS, EventSchema

# Most events per chunk, by kind of element: an event of hits is tens of times larger.
CHUNK_EVENTS = {"cluster": 100, "hit": 25}
_FEATURES = {"cluster": cluster_features, "hit": hit_features}


class Preparation:
    """Reads a ROOT file chunk by chunk and computes everything a dataset needs.

    Events that cannot be used are left out and counted by reason in ``metadata["skipped"]``.

    Args:
        path: an EDM4HEP file with simulation truth.
        schema: what the events shall be made of.

    Raises:
        DataError: the schema is not one of those that EDM4HEP files are turned into.
    """

    def __init__(self, path: Path, schema: EventSchema = SCHEMAS["clic"]):
        self._path = path
        self._schema = schema
        self._kind = schema.kinds[-1].name
        if self._kind not in CHUNK_EVENTS:
            possible = [s.name for s in SCHEMAS.values() if s.kinds[-1].name in CHUNK_EVENTS]
            raise DataError(
                f"{path}: schema {schema.name!r} cannot be made from EDM4HEP files; "
                f"choose {' or '.join(possible)}"
            )
        self._forget()

    def _forget(self) -> None:
        self._num_read = 0
        self._skipped: Counter[str] = Counter()
        self._counters: Counter[str] = Counter()

    def chunks(self) -> Iterator[Events]:
        """Yield the usable events in file order, some at a time; each call begins at the first.

        Raises:
            DataError: the file cannot be read.
        """
        self._forget()
        for raw in read_events(self._path, CHUNK_EVENTS[self._kind]):
            self._num_read += len(raw)
            keep, reasons = usable_events(raw, self._schema)
            # Bad numbers give bad numbers, which the next lines look for, event by event.
            with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
                events = prepare_chunk(raw, self._counters, self._schema)
            finite = finite_events(events)
            if (keep & ~finite).any():
                reasons[BAD_NUMBERS] += int((keep & ~finite).sum())
                keep &= finite
            self._skipped += reasons
            if keep.any():
                yield events if keep.all() else events.select(keep)

    @property
    def metadata(self) -> dict[str, Any]:
        """What describes the file; complete after the last chunk."""
        return {
            "source": self._path.name,
            "source_bytes": self._path.stat().st_size,
            "truth_version": TRUTH_VERSION,
            "mlpf_version": __version__,
            "events_read": self._num_read,
            "skipped": dict(self._skipped),
            "counters": {name: count for name, count in self._counters.items() if count},
        }


def usable_events(raw: RawEvents, schema: EventSchema = SCHEMAS["clic"]) -> tuple[BoolArray, Counter[str]]:
    """Return [E] True where an event can be used, and how many cannot by their first reason."""
    kind = schema.kinds[-1].name
    keep = np.ones(len(raw), dtype=bool)
    reasons: Counter[str] = Counter()
    empty = (raw.tracks.counts == 0) & (elements_of(raw, kind).counts == 0)
    for reason, bad in {**raw.bad, f"no tracks and no {kind}s": empty}.items():
        new = bad & keep
        if new.any():
            reasons[reason] += int(new.sum())
        keep &= ~bad
    return keep, reasons


def finite_events(events: Events) -> BoolArray:
    """Return [E] False where a value is NaN or infinite, such as a target beyond what float32 holds."""
    finite = np.ones(len(events), dtype=bool)
    for values in events.scalars.values():
        finite &= np.isfinite(values)
    for jagged in events.jagged.values():
        rows = np.flatnonzero(~np.isfinite(jagged.values).all(axis=1))
        finite[np.searchsorted(jagged.offsets, rows, side="right") - 1] = False
    return finite


def prepare_chunk(raw: RawEvents, counters: Counter[str], schema: EventSchema = SCHEMAS["clic"]) -> Events:
    """Compute features, targets and particle lists of a chunk; what is unusual is added to ``counters``."""
    first, second = schema.kinds
    links = link_truth(raw, second.name)
    gen = gen_targets(raw, links)
    cand_track, cand_element, cand_counters = candidate_targets(raw, second.name)
    x_track, replaced_track = track_features(raw, first.features)
    x_element, replaced_element = _FEATURES[second.name](raw)
    for found in (raw.counters, links.counters, gen.counters, cand_counters):
        counters.update(found)
    counters["features replaced by 0"] += replaced_track + replaced_element

    jagged = {}
    for kind, table, x, ygen, ycand in (
        (first, raw.tracks, x_track, gen.track, cand_track),
        (second, elements_of(raw, second.name), x_element, gen.element, cand_element),
    ):
        for prefix, values in (("X", x), ("ygen", ygen), ("ycand", ycand)):
            jagged[f"{prefix}_{kind.name}"] = _jagged(values, table.offsets)
    for name, make in (
        ("gen_particles", gen_particles),
        ("oracle_particles", oracle_particles),
        ("perfect_particles", perfect_particles),
    ):
        jagged[name] = _by_event(make(raw, links), len(raw))
    scalars = {
        "event": raw.number,
        "lost_energy": gen.lost_energy,
        "lost_charge": gen.lost_charge,
        "num_lost": gen.num_lost,
    }
    return Events(jagged, scalars, schema=schema)


def _jagged(values: npt.NDArray, offsets: npt.NDArray[np.int64]) -> Jagged:
    return Jagged(values.astype(np.float32, copy=False), offsets)


def _by_event(rows: Rows, num_events: int) -> Jagged:
    values, event = rows
    return _jagged(values, offsets_from_counts(np.bincount(event, minlength=num_events)))
