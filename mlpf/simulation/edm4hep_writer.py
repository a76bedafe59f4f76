"""Simulated events to ROOT files shaped like CLIC's EDM4HEP files of the old podio layout (podio 0.16).

Leaves carry the names and types that podio gave them (EDM4hep 0.7); ``X#n`` is the n-th relation of X and
``X_n`` its n-th vector member. Covariances are left out: uproot cannot write lists of fixed-size arrays.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import awkward as ak
import numpy as np
import uproot

from mlpf.atomic import atomic_write
from mlpf.errors import DataError
from mlpf.simulation.records import (
    HIT_COLLECTIONS,
    Candidates,
    Clusters,
    Hits,
    IntArray,
    Links,
    Particles,
    SimulatedEvent,
    Tracks,
)

# Numbers that references carry; small integers in order of registration, as the old podio gave them.
COLLECTION_IDS = {
    name: number
    for number, name in enumerate(
        (
            "MCParticles",
            "SiTracks_Refitted",
            "SiTracks",
            "PandoraClusters",
            *HIT_COLLECTIONS,
            "CalohitMCTruthLink",
            "SiTracksMCTruthLink",
            "MergedRecoParticles",
            "EventHeader",
        ),
        start=1,
    )
}
EVENTS_PER_CHUNK = 200
STABLE = 1
AT_IP, AT_CALORIMETER = 1, 4
_FIRST_HIT_ID = COLLECTION_IDS[HIT_COLLECTIONS[0]]

Leaves = dict[str, np.ndarray]


@dataclass(frozen=True)
class Provenance:
    """What the events of a file are; kept in its ``metadata``.

    Attributes:
        sample: name of the sample.
        seed: seed of the sample.
        first_event, num_events: the file holds events first_event ... first_event + num_events - 1.
    """

    sample: str
    seed: int
    first_event: int
    num_events: int


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
    with atomic_write(path) as part, uproot.recreate(part, compression=uproot.ZSTD(5)) as file:
        tree = None
        for chunk in _chunks(events):
            arrays = {name: _jagged(chunk, make) for name, make in COLLECTIONS.items()}
            if tree is None:
                tree = file.mktree(
                    "events",
                    {name: array.type.content for name, array in arrays.items()},
                    counter_name=lambda name: f"n_{name}",
                    field_name=lambda collection, leaf: f"{collection}.{leaf}",
                )
            tree.extend(arrays)
        if tree is None:
            raise ValueError(f"{path}: no events to write")
        file["metadata"] = {
            "m_names": ak.Array([list(COLLECTION_IDS)]),
            "m_collectionIDs": ak.Array([list(COLLECTION_IDS.values())]),
            **{f"simulation_{key}": ak.Array([value]) for key, value in asdict(provenance).items()},
        }


def read_provenance(path: Path) -> Provenance:
    """Return what :func:`write_events` stored about the events of a file.

    Raises:
        DataError: not a complete file of the simulation.
    """
    try:
        with uproot.open(path) as file:
            metadata = file["metadata"]
            values = {key: metadata[f"simulation_{key}"].array()[0] for key in Provenance.__annotations__}
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            f"{path}: not a file written by `mlpf simulate` ({type(error).__name__}); move it away"
        ) from error
    return Provenance(
        sample=str(values["sample"]),
        seed=int(values["seed"]),
        first_event=int(values["first_event"]),
        num_events=int(values["num_events"]),
    )


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


def _f4(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)


def _i4(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.int32)


def _ranges(name: str, counts: IntArray) -> Leaves:
    """Half-open ranges into the reference array of an event."""
    end = np.cumsum(counts)
    return {
        f"{name}_begin": (end - counts).astype(np.uint32),
        f"{name}_end": end.astype(np.uint32),
    }


def _references(index: IntArray, collection: IntArray | int) -> Leaves:
    """Entries of a relation: position in a collection, and which collection."""
    return {"index": _i4(index), "collectionID": _i4(np.broadcast_to(collection, np.shape(index)))}


def _mc_particles(particles: Particles) -> Leaves:
    num = len(particles)
    none = np.zeros(num, dtype=np.int64)
    return {
        "PDG": _i4(particles.pdg),
        "generatorStatus": np.full(num, STABLE, dtype=np.int32),
        "simulatorStatus": _i4(none),
        "charge": _f4(particles.charge),
        "time": _f4(particles.time),
        "mass": np.asarray(particles.mass, dtype=np.float64),
        "vertex.x": np.asarray(particles.vx, dtype=np.float64),
        "vertex.y": np.asarray(particles.vy, dtype=np.float64),
        "vertex.z": np.asarray(particles.vz, dtype=np.float64),
        "momentum.x": _f4(particles.px),
        "momentum.y": _f4(particles.py),
        "momentum.z": _f4(particles.pz),
        **_ranges("parents", none),
        **_ranges("daughters", none),
    }


def _tracks(tracks: Tracks) -> Leaves:
    return {
        "type": _i4(tracks.kind),
        "chi2": _f4(tracks.chi2),
        "ndf": _i4(tracks.ndf),
        "dEdx": _f4(tracks.dedx),
        "dEdxError": _f4(tracks.dedx_error),
        "radiusOfInnermostHit": _f4(tracks.radius_of_innermost_hit),
        **_ranges("trackStates", np.full(len(tracks), 2)),
    }


def _track_states(tracks: Tracks) -> Leaves:
    """Two states per track: at the perigee, at the calorimeter."""

    def both(name: str) -> np.ndarray:
        pair = getattr(tracks.at_ip, name), getattr(tracks.at_calorimeter, name)
        return _f4(np.stack(pair, axis=1).ravel())

    names = {
        "D0": "d0",
        "phi": "phi",
        "omega": "omega",
        "Z0": "z0",
        "tanLambda": "tan_lambda",
        "time": "time",
        "referencePoint.x": "reference_x",
        "referencePoint.y": "reference_y",
        "referencePoint.z": "reference_z",
    }
    location = np.tile(np.array([AT_IP, AT_CALORIMETER], dtype=np.int32), len(tracks))
    return {"location": location, **{leaf: both(name) for leaf, name in names.items()}}


def _hits(hits: Hits, collection: int) -> Leaves:
    of = hits.collection == collection
    num = int(of.sum())
    return {
        "cellID": hits.cell_id[of].astype(np.uint64),
        "energy": _f4(hits.energy[of]),
        "energyError": np.zeros(num, dtype=np.float32),
        "time": _f4(hits.time[of]),
        "type": np.full(num, collection, dtype=np.int32),
        "position.x": _f4(hits.x[of]),
        "position.y": _f4(hits.y[of]),
        "position.z": _f4(hits.z[of]),
    }


def _hit_references(hits: Hits, index: IntArray) -> Leaves:
    """References to hits, given by their number among all hits of the event."""
    start = np.searchsorted(hits.collection, np.arange(len(HIT_COLLECTIONS)))
    collection = hits.collection[index]
    return _references(index - start[collection], _FIRST_HIT_ID + collection)


def _clusters(clusters: Clusters) -> Leaves:
    return {
        "type": np.zeros(len(clusters), dtype=np.int32),
        "energy": _f4(clusters.energy),
        "energyError": np.zeros(len(clusters), dtype=np.float32),
        "position.x": _f4(clusters.x),
        "position.y": _f4(clusters.y),
        "position.z": _f4(clusters.z),
        "iTheta": _f4(clusters.i_theta),
        "phi": _f4(clusters.phi),
        **_ranges("hits", clusters.num_hits),
    }


def _cluster_hits(event: SimulatedEvent) -> Leaves:
    label = event.clusters.hit_cluster
    order = np.argsort(label, kind="stable")
    return _hit_references(event.hits, order[label[order] >= 0])


def _particle_references(links: Links) -> Leaves:
    return _references(links.particle, COLLECTION_IDS["MCParticles"])


def _candidates(candidates: Candidates) -> Leaves:
    return {
        "type": _i4(candidates.pdg),
        "energy": _f4(candidates.energy),
        "momentum.x": _f4(candidates.px),
        "momentum.y": _f4(candidates.py),
        "momentum.z": _f4(candidates.pz),
        "charge": _f4(candidates.charge),
        "mass": _f4(candidates.mass),
        **_ranges("clusters", np.array([len(c) for c in candidates.clusters], dtype=np.int64)),
        **_ranges("tracks", (candidates.track >= 0).astype(np.int64)),
    }


def _candidate_clusters(candidates: Candidates) -> Leaves:
    index = np.concatenate([np.zeros(0, dtype=np.int64), *candidates.clusters])
    return _references(index, COLLECTION_IDS["PandoraClusters"])


def _candidate_tracks(candidates: Candidates) -> Leaves:
    return _references(candidates.track[candidates.track >= 0], COLLECTION_IDS["SiTracks_Refitted"])


def _no_relatives(_: SimulatedEvent) -> Leaves:
    """Parents or daughters: only final particles are written."""
    return _references(np.zeros(0, dtype=np.int64), COLLECTION_IDS["MCParticles"])


# Branch group -> its leaves for one event. SiTracks_1 repeats SiTracks_Refitted_1: readers of CLIC files
# look up the states of refitted tracks in either.
COLLECTIONS: dict[str, Callable[[SimulatedEvent], Leaves]] = {
    "EventHeader": lambda e: {"eventNumber": _i4(np.array([e.number])), "runNumber": _i4(np.zeros(1))},
    "MCParticles": lambda e: _mc_particles(e.particles),
    "MCParticles#0": _no_relatives,
    "MCParticles#1": _no_relatives,
    "SiTracks_Refitted": lambda e: _tracks(e.tracks),
    "SiTracks_1": lambda e: _track_states(e.tracks),
    "SiTracks_Refitted_1": lambda e: _track_states(e.tracks),
    **{
        name: lambda e, collection=number: _hits(e.hits, collection)  # type: ignore[misc]
        for number, name in enumerate(HIT_COLLECTIONS)
    },
    "PandoraClusters": lambda e: _clusters(e.clusters),
    "PandoraClusters#1": _cluster_hits,
    "CalohitMCTruthLink": lambda e: {"weight": _f4(e.hits.links.weight)},
    "CalohitMCTruthLink#0": lambda e: _hit_references(e.hits, e.hits.links.source),
    "CalohitMCTruthLink#1": lambda e: _particle_references(e.hits.links),
    "SiTracksMCTruthLink": lambda e: {"weight": _f4(e.tracks.links.weight)},
    "SiTracksMCTruthLink#0": lambda e: _references(
        e.tracks.links.source, COLLECTION_IDS["SiTracks_Refitted"]
    ),
    "SiTracksMCTruthLink#1": lambda e: _particle_references(e.tracks.links),
    "MergedRecoParticles": lambda e: _candidates(e.candidates),
    "MergedRecoParticles#0": lambda e: _candidate_clusters(e.candidates),
    "MergedRecoParticles#1": lambda e: _candidate_tracks(e.candidates),
}
