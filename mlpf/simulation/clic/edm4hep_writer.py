"""Simulated events to ROOT files shaped like CLIC's EDM4HEP files, in any of ``edm4hep_layouts``."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

from mlpf.config.detector import CLIC, DetectorConfig, recorded_detector
from mlpf.data.source_file import open_root, readable_errors
from mlpf.errors import DataError
from mlpf.files.atomic import atomic_write
from mlpf.simulation.clic.edm4hep_layouts import LAYOUTS, Layout, LayoutName, Leaves
from mlpf.simulation.clic.edm4hep_names import layout_for
from mlpf.simulation.clic.event_data import SimulatedEvent

EVENTS_PER_CHUNK = 200


@dataclass(frozen=True)
class Provenance:
    """Description of the events of a file; stored beside the table of collection ids.

    Attributes:
        sample: name of the sample.
        seed: seed of the sample.
        first_event, num_events: the file holds events first_event ... first_event + num_events - 1.
        layout: how they are laid out; told by the file's structure.
        granularity: of the calorimeters, a key of ``mlpf.simulation.clic.detector.GRANULARITIES``.
        detector: that they were simulated with.
    """

    sample: str
    seed: int
    first_event: int
    num_events: int
    layout: LayoutName = "old"
    granularity: str = "clusters"
    detector: DetectorConfig = CLIC


def write_events(path: Path, events: Iterable[SimulatedEvent], provenance: Provenance) -> None:
    """Write events to a ROOT file with the trees ``events`` and ``metadata``.

    The file appears under its name only when it is complete.

    Args:
        path: file to write; replaced if it exists.
        events: consumed in chunks of ``EVENTS_PER_CHUNK``.
        provenance: stored in the file.

    Raises:
        ValueError: there are no events.
        OSError: the disk is full or the directory is not writable; nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    layout = layout_for(provenance.layout, provenance.detector.collections)
    with atomic_write(path) as part, uproot.recreate(part, compression=uproot.ZSTD(5)) as file:
        tree = None
        for chunk in _chunks(events):
            arrays = {name: _jagged(chunk, make) for name, make in layout.collections.items()}
            tree = _append(file, tree, layout, arrays)
        if tree is None:
            raise ValueError(f"{path}: no events to write")
        file[layout.metadata] = _metadata(layout, provenance)


def _append(file: Any, tree: Any, layout: Layout, arrays: dict[str, ak.Array]) -> Any:
    """Write a chunk to the events tree, which the first chunk makes."""
    if layout.name == "rntuple":
        arrays = {name: nested_records(array) for name, array in arrays.items()}
        if tree is None:
            return file.mkrntuple("events", arrays)
    elif tree is None:
        tree = file.mktree(
            "events",
            {name: array.type.content for name, array in arrays.items()},
            counter_name=lambda name: f"n_{name}",
            field_name=lambda collection, leaf: f"{collection}.{leaf}",
        )
    tree.extend(arrays)
    return tree


def _metadata(layout: Layout, provenance: Provenance) -> dict[str, ak.Array]:
    """Return the id table and the provenance. Names are strings, which uproot writes as RNTuple only."""
    numbers = ak.values_astype(
        ak.Array([list(layout.ids.values())]), np.int64 if layout.name == "old" else np.uint32
    )
    table = {"m_names": ak.Array([list(layout.ids)]), "m_collectionIDs": numbers}
    told = {f.name: getattr(provenance, f.name) for f in fields(provenance) if f.name != "layout"}
    told["detector"] = provenance.detector.model_dump_json()
    return {
        **({layout.id_table: ak.zip(table, depth_limit=1)} if layout.id_table else table),
        **{f"simulation_{key}": ak.Array([value]) for key, value in told.items()},
    }


def read_provenance(path: Path) -> Provenance:
    """Return the description that :func:`write_events` stored in a file.

    Raises:
        DataError: the file is not a complete file of the simulation.
    """
    try:
        with open_root(path) as file, readable_errors(path):
            is_tuple = file.classname_of("events") == "ROOT::RNTuple"
            is_old = LAYOUTS["old"].metadata in file
            layout: LayoutName = "old" if is_old else "rntuple" if is_tuple else "new"
            metadata = file[LAYOUTS[layout].metadata]
            keys = ("sample", "seed", "first_event", "num_events")
            values = {key: metadata[f"simulation_{key}"].array()[0] for key in keys}
            # Files of earlier versions do not say all: there was one.
            later = {
                key: str(metadata[f"simulation_{key}"].array()[0])
                for key in ("granularity", "detector")
                if f"simulation_{key}" in metadata.keys()  # noqa: SIM118 - a tree would also look inside branches
            }
            described = {"detector": json.loads(later["detector"])} if "detector" in later else {}
            return Provenance(
                sample=str(values["sample"]),
                seed=int(values["seed"]),
                first_event=int(values["first_event"]),
                num_events=int(values["num_events"]),
                layout=layout,
                granularity=later.get("granularity", "clusters"),
                detector=recorded_detector(described, str(path)),
            )
    except DataError as error:
        raise DataError(
            f"{path}: not a complete file written by `mlpf simulate` ({error.__cause__!r:.120}); move it away"
        ) from error


def _chunks(events: Iterable[SimulatedEvent]) -> Iterator[list[SimulatedEvent]]:
    """Yield lists of at most ``EVENTS_PER_CHUNK`` events."""
    iterator = iter(events)
    while chunk := list(islice(iterator, EVENTS_PER_CHUNK)):
        yield chunk


def _jagged(events: list[SimulatedEvent], make: Callable[[SimulatedEvent], Leaves]) -> ak.Array:
    """Join one collection of all events into an array of type B * var * {leaf: type}."""
    parts = [make(event) for event in events]
    counts = [len(next(iter(part.values()))) for part in parts]
    flat = {leaf: np.concatenate([part[leaf] for part in parts]) for leaf in parts[0]}
    return ak.unflatten(ak.Array(flat), counts)


def nested_records(array: ak.Array) -> ak.Array:
    """Turn leaves ``momentum.x`` into records ``momentum`` of ``x``: an RNTuple has no dots in names.

    Args:
        array: one collection, B * var * {leaf: type}.

    Returns:
        The same numbers, B * var * {member: type or record}.
    """
    groups: dict[str, dict[str, ak.Array]] = {}
    for leaf in array.fields:
        outer, _, inner = leaf.partition(".")
        groups.setdefault(outer, {})[inner] = array[leaf]
    return ak.zip(
        {
            outer: ak.zip(members, depth_limit=2) if "" not in members else members[""]
            for outer, members in groups.items()
        },
        depth_limit=2,
    )
