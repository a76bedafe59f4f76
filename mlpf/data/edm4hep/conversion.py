"""One EDM4HEP file -> prepared events, by reader, features, truth and limits."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np

from mlpf.config.detector import CLIC, DetectorConfig, recorded_detector
from mlpf.data.conversion import Chunk, Conversion
from mlpf.data.edm4hep.features import cluster_features, hit_features, track_features
from mlpf.data.edm4hep.leaves import TREE
from mlpf.data.edm4hep.raw_events import RawEvents
from mlpf.data.edm4hep.reader import read_events
from mlpf.data.edm4hep.truth import TRUTH_VERSION, candidate_targets, elements_of, gen_targets, link_truth
from mlpf.data.edm4hep.truth_limits import Rows, gen_particles, oracle_particles, perfect_particles
from mlpf.data.events import Events, float32_table
from mlpf.data.flat_tables import Table, offsets_from_counts
from mlpf.data.source_file import SourceFile, readable_errors
from mlpf.errors import DataError
from mlpf.physics.schemas import SCHEMAS, EventSchema

# Largest number of events per chunk, by kind of element: an event of hits is tens of times larger.
CHUNK_EVENTS = {"cluster": 100, "hit": 25}
# Trees that hold what a file says of itself, by layout.
_METADATA = frozenset(("metadata", "podio_metadata"))
_FEATURES = {"cluster": cluster_features, "hit": hit_features}
_LISTS = {
    "gen_particles": gen_particles,
    "oracle_particles": oracle_particles,
    "perfect_particles": perfect_particles,
}


class Edm4hepConversion(Conversion):
    """Converts a ROOT file of EDM4HEP with simulation truth.

    Raises:
        DataError: the file says that it was simulated with another detector.
    """

    name = "EDM4HEP"
    suffixes = (".root",)
    schemas: ClassVar[Mapping[str, EventSchema]] = {
        "clusters": SCHEMAS["clic"],
        "hits": SCHEMAS["clic_hits"],
    }
    truth_version = TRUTH_VERSION
    default_detector = CLIC

    def __init__(self, source: SourceFile, schema: EventSchema, detector: DetectorConfig | None = None):
        super().__init__(source, schema, detector)
        _require_simulated_with(source, detector or CLIC)

    @classmethod
    def recognises(cls, source: SourceFile) -> bool:
        """Return whether a file has a tree of EDM4HEP."""
        return TREE in source.trees

    def read(self) -> Iterator[Chunk]:
        """Yield all events in file order, some at a time."""
        size = CHUNK_EVENTS[self.schema.kinds[-1].name]
        for raw in read_events(self.source, size, self.detector or CLIC):
            yield prepare_chunk(raw, self.schema)


def simulated_detector(source: SourceFile) -> DetectorConfig | None:
    """Return the detector of a file of ``mlpf simulate``, None for a file of another origin.

    Raises:
        DataError: the description is damaged.
    """
    with readable_errors(source.path):
        for name in source.trees & _METADATA:
            tree = source.root[name]
            keys = set(tree.keys())
            if "simulation_sample" in keys:
                told = "simulation_detector" in keys  # files of before are of CLIC
                text = tree["simulation_detector"].array()[0] if told else None
                return recorded_detector({"detector": json.loads(text)} if text else {}, str(source.path))
    return None


def _require_simulated_with(source: SourceFile, detector: DetectorConfig) -> None:
    """Refuse a file that was simulated with another detector than it shall be converted for."""
    found = simulated_detector(source)
    difference = found.difference(detector, "in its simulation", "in --detector") if found else ""
    if difference:
        raise DataError(
            f"{source.path}: of another detector: {difference}; give the detector it was made with"
        )


def prepare_chunk(raw: RawEvents, schema: EventSchema = SCHEMAS["clic"]) -> Chunk:
    """Compute features, targets and particle lists of a chunk."""
    # NaN and infinity propagate; events with such numbers are removed afterwards.
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        return _prepare_chunk(raw, schema)


def _prepare_chunk(raw: RawEvents, schema: EventSchema) -> Chunk:
    first, second = schema.kinds
    links = link_truth(raw, second.name)
    gen = gen_targets(raw, links)
    cand_track, cand_element, cand_counters = candidate_targets(raw, second.name)
    x_track, replaced_track = track_features(raw, first.features)
    x_element, replaced_element = _FEATURES[second.name](raw)
    counters = Counter({"features replaced by 0": replaced_track + replaced_element})
    for found in (raw.counters, links.counters, gen.counters, cand_counters):
        counters.update(found)
    elements = elements_of(raw, second.name).offsets
    tables = {
        first.name: float32_table(raw.tracks.offsets, X=x_track, ygen=gen.track, ycand=cand_track),
        second.name: float32_table(elements, X=x_element, ygen=gen.element, ycand=cand_element),
        **{name: _by_event(name, make(raw, links), len(raw)) for name, make in _LISTS.items()},
    }
    scalars = Table.one_row_per_event(
        {
            "event": raw.number,
            "lost_energy": gen.lost_energy,
            "lost_charge": gen.lost_charge,
            "num_lost": gen.num_lost,
        }
    )
    return Chunk(Events(tables, scalars, schema), raw.bad, counters)


def _by_event(name: str, rows: Rows, num_events: int) -> Table:
    values, event = rows
    return float32_table(offsets_from_counts(np.bincount(event, minlength=num_events)), **{name: values})
