"""Events of an EDM4HEP file as flat tables, before truth and features."""

from collections import Counter
from dataclasses import dataclass, field

from mlpf.config.detector import CLIC, DetectorConfig
from mlpf.data.flat_tables import BoolArray, IntArray, Relation, Table

# Values of the hit column "system".
SYSTEM_ECAL = 0
SYSTEM_HCAL = 1
SYSTEM_OTHER = 2


@dataclass(frozen=True)
class RawEvents:
    """A chunk of E events as in the file, all tables flat.

    Attributes:
        number: [E] number of each event in its file.
        particles: pdg, status, charge, mass, px, py, pz; parent (row of the first parent, -1 = none).
        tracks: type, chi2, ndf, dEdx, dEdxError, radiusOfInnermostHit (mm), tanLambda, D0, phi, omega, Z0,
            time; type is 0 if the file has none.
        clusters: x, y, z, iTheta, phi, energy.
        hits: x, y, z, energy, time (ns), type (as stored), system (``SYSTEM_ECAL`` ...); time and type are 0
            if the file has none.
        candidates: pdg, charge, mass, px, py, pz of the baseline particle flow.
        cluster_hits: cluster -> hit.
        track_particles: track -> particle, weight = fraction of the track's hits.
        hit_particles: hit -> particle, weight proportional to the deposited energy.
        candidate_tracks, candidate_clusters: candidate -> element, in file order.
        bad: reason -> [E] True where the event cannot be used.
        counters: what was ignored while reading, by name.
        detector: that the events were measured with.
    """

    number: IntArray
    particles: Table
    tracks: Table
    clusters: Table
    hits: Table
    candidates: Table
    cluster_hits: Relation
    track_particles: Relation
    hit_particles: Relation
    candidate_tracks: Relation
    candidate_clusters: Relation
    bad: dict[str, BoolArray] = field(default_factory=dict)
    counters: Counter[str] = field(default_factory=Counter)
    detector: DetectorConfig = CLIC

    def __len__(self) -> int:
        """Return the number of events E."""
        return len(self.number)
