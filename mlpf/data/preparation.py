"""One EDM4HEP file -> prepared events: reader, features, truth and limits put together."""

from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mlpf import __version__
from mlpf.data.edm4hep import read_events
from mlpf.data.event import Events, Jagged, concatenate
from mlpf.data.features import cluster_features, track_features
from mlpf.data.limits import Rows, gen_particles, oracle_particles, perfect_particles
from mlpf.data.tables import BoolArray, RawEvents, offsets_from_counts
from mlpf.data.truth import TRUTH_VERSION, candidate_targets, gen_targets, link_truth

EMPTY_EVENT = "no tracks and no clusters"


def prepare_file(path: Path) -> Events:
    """Read a ROOT file and compute everything a dataset needs.

    Events that cannot be used are left out and counted by reason in ``metadata["skipped"]``.

    Raises:
        DataError: the file cannot be read.
    """
    chunks, skipped, counters = [], Counter[str](), Counter[str]()
    num_read = 0
    for raw in read_events(path):
        num_read += len(raw)
        keep, reasons = usable_events(raw)
        skipped += reasons
        chunks.append(prepare_chunk(raw, counters).select(keep))
    metadata = {
        "source": path.name,
        "source_bytes": path.stat().st_size,
        "truth_version": TRUTH_VERSION,
        "mlpf_version": __version__,
        "events_read": num_read,
        "skipped": dict(skipped),
        "counters": {name: count for name, count in counters.items() if count},
    }
    return concatenate(chunks, metadata)


def usable_events(raw: RawEvents) -> tuple[BoolArray, Counter[str]]:
    """Return [E] True where an event can be used, and how many cannot by their first reason."""
    keep = np.ones(len(raw), dtype=bool)
    reasons: Counter[str] = Counter()
    empty = (raw.tracks.counts == 0) & (raw.clusters.counts == 0)
    for reason, bad in {**raw.bad, EMPTY_EVENT: empty}.items():
        new = bad & keep
        if new.any():
            reasons[reason] += int(new.sum())
        keep &= ~bad
    return keep, reasons


def prepare_chunk(raw: RawEvents, counters: Counter[str]) -> Events:
    """Compute features, targets and particle lists of a chunk; what is unusual is added to ``counters``."""
    links = link_truth(raw)
    gen = gen_targets(raw, links)
    cand_track, cand_cluster, cand_counters = candidate_targets(raw)
    x_track, replaced_track = track_features(raw)
    x_cluster, replaced_cluster = cluster_features(raw)
    for found in (raw.counters, links.counters, gen.counters, cand_counters):
        counters.update(found)
    counters["features replaced by 0"] += replaced_track + replaced_cluster

    tracks, clusters = raw.tracks.offsets, raw.clusters.offsets
    jagged = {
        "X_track": _jagged(x_track, tracks),
        "X_cluster": _jagged(x_cluster, clusters),
        "ygen_track": _jagged(gen.track, tracks),
        "ygen_cluster": _jagged(gen.cluster, clusters),
        "ycand_track": _jagged(cand_track, tracks),
        "ycand_cluster": _jagged(cand_cluster, clusters),
        "gen_particles": _by_event(gen_particles(raw, links), len(raw)),
        "oracle_particles": _by_event(oracle_particles(raw, links), len(raw)),
        "perfect_particles": _by_event(perfect_particles(raw, links), len(raw)),
    }
    scalars = {
        "event": raw.number,
        "lost_energy": gen.lost_energy,
        "lost_charge": gen.lost_charge,
        "num_lost": gen.num_lost,
    }
    return Events(jagged, scalars)


def _jagged(values: npt.NDArray, offsets: npt.NDArray[np.int64]) -> Jagged:
    return Jagged(values.astype(np.float32), offsets)


def _by_event(rows: Rows, num_events: int) -> Jagged:
    values, event = rows
    return _jagged(values, offsets_from_counts(np.bincount(event, minlength=num_events)))
