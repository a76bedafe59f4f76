"""Simulated events in EDM4HEP, in the layouts of different podio versions.

``old``: podio 0.16 with EDM4hep 0.7, as CLIC's published files. ``X#n`` is the n-th relation of X and ``X_n``
its n-th vector member; ids of collections count in order of registration. ``new``: podio 1.1 with EDM4hep
0.99. Relations and vector members have names, ids are hashes of names, momenta are doubles, and dE/dx and the
innermost radius left the track. ``rntuple``: the same names in an RNTuple.

Covariances are left out: uproot cannot write lists of fixed-size arrays.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from mlpf.data.edm4hep.collection_ids import murmur3_32
from mlpf.simulation.clic.event_data import (
    HIT_COLLECTIONS,
    Candidates,
    Clusters,
    Hits,
    IntArray,
    Particles,
    SimulatedEvent,
    Tracks,
    TrackStates,
)
from mlpf.simulation.clic.helix import Helix

LayoutName = Literal["old", "new", "rntuple"]
LAYOUT_NAMES: tuple[str, ...] = get_args(LayoutName)

STABLE = 1
AT_IP, AT_FIRST_HIT, AT_CALORIMETER = 1, 2, 4

Leaves = dict[str, np.ndarray]
Collections = dict[str, Callable[[SimulatedEvent], Leaves]]


@dataclass(frozen=True)
class Layout:
    """Layout of the events in a file.

    Attributes:
        name: one of ``LAYOUT_NAMES``.
        ids: collection -> its number in references.
        collections: branch group -> its leaves for one event.
        metadata: name of the tree beside ``events``.
        id_table: branch in it that holds the names and ids; empty if they are branches themselves.
    """

    name: LayoutName
    ids: dict[str, int]
    collections: Collections
    metadata: str
    id_table: str


def _f4(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)


def _f8(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)


def _rounded(values: np.ndarray) -> np.ndarray:
    """Doubles with the values of the floats of older layouts, so that events are equal in every layout."""
    return _f8(_f4(values))


def _i4(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.int32)


def _ranges(name: str, counts: IntArray) -> Leaves:
    """Half-open ranges into the reference array of an event."""
    end = np.cumsum(counts)
    return {
        f"{name}_begin": (end - counts).astype(np.uint32),
        f"{name}_end": end.astype(np.uint32),
    }


def _mc_particles(particles: Particles, momentum: Callable[[np.ndarray], np.ndarray]) -> Leaves:
    num = len(particles)
    none = np.zeros(num, dtype=np.int64)
    return {
        "PDG": _i4(particles.pdg),
        "generatorStatus": np.full(num, STABLE, dtype=np.int32),
        "simulatorStatus": _i4(none),
        "charge": _f4(particles.charge),
        "time": _f4(particles.time),
        "mass": _f8(particles.mass),
        "vertex.x": _f8(particles.vx),
        "vertex.y": _f8(particles.vy),
        "vertex.z": _f8(particles.vz),
        "momentum.x": momentum(particles.px),
        "momentum.y": momentum(particles.py),
        "momentum.z": momentum(particles.pz),
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


def _new_tracks(tracks: Tracks) -> Leaves:
    return {
        "type": _i4(tracks.kind),
        "chi2": _f4(tracks.chi2),
        "ndf": _i4(tracks.ndf),
        "Nholes": np.zeros(len(tracks), dtype=np.int32),
        **_ranges("trackStates", np.full(len(tracks), 3)),
    }


def _dqdx(tracks: Tracks) -> Leaves:
    return {
        "dQdx.type": np.zeros(len(tracks), dtype=np.int16),
        "dQdx.value": _f4(tracks.dedx),
        "dQdx.error": _f4(tracks.dedx_error),
    }


_STATE_LEAVES = {
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


def _track_states(states: dict[int, TrackStates]) -> Leaves:
    """States of each track, one after the other, by their location."""

    def all_of(name: str) -> np.ndarray:
        return _f4(np.stack([getattr(state, name) for state in states.values()], axis=1).ravel())

    num_tracks = len(next(iter(states.values())).d0)
    location = np.tile(np.array(list(states), dtype=np.int32), num_tracks)
    return {"location": location, **{leaf: all_of(name) for leaf, name in _STATE_LEAVES.items()}}


def _two_states(event: SimulatedEvent) -> Leaves:
    tracks = event.tracks
    return _track_states({AT_IP: tracks.at_ip, AT_CALORIMETER: tracks.at_calorimeter})


def _three_states(event: SimulatedEvent) -> Leaves:
    tracks = event.tracks
    first = first_hit_states(tracks)
    return _track_states({AT_IP: tracks.at_ip, AT_FIRST_HIT: first, AT_CALORIMETER: tracks.at_calorimeter})


def first_hit_states(tracks: Tracks) -> TrackStates:
    """Move the perigee states [T] along the helix to the radius of the innermost hit.

    Returns:
        States with the hit as reference point. Its coordinates are floats whose distance from the beam axis
        rounds to exactly ``radius_of_innermost_hit`` as a float. If the helix does not reach the radius,
        the azimuth is that of the perigee.
    """
    helix = Helix.from_states(tracks.at_ip)
    radius = _rounded(tracks.radius_of_innermost_hit)
    angle = helix.cylinder_angle(radius)
    x, y, z, phi = helix.at(np.where(np.isfinite(angle), angle, 0.0))
    azimuth = np.arctan2(y, x)
    x, y = _rounded(radius * np.cos(azimuth)), _rounded(radius * np.sin(azimuth))
    # The smaller coordinate is the finer one: it takes up the rounding of the larger.
    steep = np.abs(y) > np.abs(x)
    larger = np.where(steep, y, x)
    smaller = np.copysign(np.sqrt(np.maximum(radius**2 - larger**2, 0.0)), np.where(steep, x, y))
    zero = np.zeros(len(tracks))
    return TrackStates(
        d0=zero,
        phi=np.mod(phi + np.pi, 2 * np.pi) - np.pi,
        omega=tracks.at_ip.omega,
        z0=zero,
        tan_lambda=tracks.at_ip.tan_lambda,
        time=zero,
        reference_x=np.where(steep, smaller, larger),
        reference_y=np.where(steep, larger, smaller),
        reference_z=z,
    )


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


def _candidates(candidates: Candidates, species: str) -> Leaves:
    """Candidates; ``species`` is the leaf of the PDG code."""
    return {
        species: _i4(candidates.pdg),
        "energy": _f4(candidates.energy),
        "momentum.x": _f4(candidates.px),
        "momentum.y": _f4(candidates.py),
        "momentum.z": _f4(candidates.pz),
        "charge": _f4(candidates.charge),
        "mass": _f4(candidates.mass),
        **_ranges("clusters", np.array([len(c) for c in candidates.clusters], dtype=np.int64)),
        **_ranges("tracks", (candidates.track >= 0).astype(np.int64)),
    }


@dataclass(frozen=True)
class _References:
    """References of one event, in the ids and the integer type of a layout."""

    ids: dict[str, int]
    id_type: type[np.integer]

    def to(self, collection: str, index: IntArray) -> Leaves:
        """Entries of a relation: position in a collection, and which collection."""
        number = np.full(len(index), self.ids[collection], dtype=self.id_type)
        return {"index": _i4(index), "collectionID": number}

    def to_hits(self, hits: Hits, index: IntArray) -> Leaves:
        """References to hits, given by their number among all hits of the event."""
        start = np.searchsorted(hits.collection, np.arange(len(HIT_COLLECTIONS)))
        collection = hits.collection[index]
        numbers = np.array([self.ids[name] for name in HIT_COLLECTIONS], dtype=self.id_type)
        return {"index": _i4(index - start[collection]), "collectionID": numbers[collection]}

    def nowhere(self, _: SimulatedEvent) -> Leaves:
        """Parents or daughters: only final particles are written."""
        return self.to("MCParticles", np.zeros(0, dtype=np.int64))

    def cluster_hits(self, event: SimulatedEvent) -> Leaves:
        label = event.clusters.hit_cluster
        order = np.argsort(label, kind="stable")
        return self.to_hits(event.hits, order[label[order] >= 0])

    def linked_hits(self, event: SimulatedEvent) -> Leaves:
        return self.to_hits(event.hits, event.hits.links.source)

    def hit_particles(self, event: SimulatedEvent) -> Leaves:
        return self.to("MCParticles", event.hits.links.particle)

    def linked_tracks(self, event: SimulatedEvent) -> Leaves:
        return self.to("SiTracks_Refitted", event.tracks.links.source)

    def track_particles(self, event: SimulatedEvent) -> Leaves:
        return self.to("MCParticles", event.tracks.links.particle)

    def all_tracks(self, event: SimulatedEvent) -> Leaves:
        return self.to("SiTracks_Refitted", np.arange(len(event.tracks)))

    def candidate_clusters(self, event: SimulatedEvent) -> Leaves:
        index = np.concatenate([np.zeros(0, dtype=np.int64), *event.candidates.clusters])
        return self.to("PandoraClusters", index)

    def candidate_tracks(self, event: SimulatedEvent) -> Leaves:
        track = event.candidates.track
        return self.to("SiTracks_Refitted", track[track >= 0])


_HITS: Collections = {
    name: lambda e, collection=number: _hits(e.hits, collection)  # type: ignore[misc]  # mypy cannot type a lambda with a default
    for number, name in enumerate(HIT_COLLECTIONS)
}
_LINK_WEIGHTS: Collections = {
    "CalohitMCTruthLink": lambda e: {"weight": _f4(e.hits.links.weight)},
    "SiTracksMCTruthLink": lambda e: {"weight": _f4(e.tracks.links.weight)},
}


def _old_collections(to: _References) -> Collections:
    # SiTracks_1 repeats SiTracks_Refitted_1: readers of CLIC files read the states from either.
    return {
        "EventHeader": lambda e: {"eventNumber": _i4(np.array([e.number])), "runNumber": _i4(np.zeros(1))},
        "MCParticles": lambda e: _mc_particles(e.particles, _f4),
        "MCParticles#0": to.nowhere,
        "MCParticles#1": to.nowhere,
        "SiTracks_Refitted": lambda e: _tracks(e.tracks),
        "SiTracks_1": _two_states,
        "SiTracks_Refitted_1": _two_states,
        **_HITS,
        "PandoraClusters": lambda e: _clusters(e.clusters),
        "PandoraClusters#1": to.cluster_hits,
        "CalohitMCTruthLink": _LINK_WEIGHTS["CalohitMCTruthLink"],
        "CalohitMCTruthLink#0": to.linked_hits,
        "CalohitMCTruthLink#1": to.hit_particles,
        "SiTracksMCTruthLink": _LINK_WEIGHTS["SiTracksMCTruthLink"],
        "SiTracksMCTruthLink#0": to.linked_tracks,
        "SiTracksMCTruthLink#1": to.track_particles,
        "MergedRecoParticles": lambda e: _candidates(e.candidates, "type"),
        "MergedRecoParticles#0": to.candidate_clusters,
        "MergedRecoParticles#1": to.candidate_tracks,
    }


def _new_collections(to: _References) -> Collections:
    return {
        "EventHeader": lambda e: {
            "eventNumber": np.array([e.number], dtype=np.uint64),
            "runNumber": np.zeros(1, dtype=np.uint32),
        },
        "MCParticles": lambda e: _mc_particles(e.particles, _rounded),
        "_MCParticles_parents": to.nowhere,
        "_MCParticles_daughters": to.nowhere,
        "SiTracks_Refitted": lambda e: _new_tracks(e.tracks),
        "_SiTracks_Refitted_trackStates": _three_states,
        "SiTracks_Refitted_dQdx": lambda e: _dqdx(e.tracks),
        "_SiTracks_Refitted_dQdx_track": to.all_tracks,
        **_HITS,
        "PandoraClusters": lambda e: _clusters(e.clusters),
        "_PandoraClusters_hits": to.cluster_hits,
        "CalohitMCTruthLink": _LINK_WEIGHTS["CalohitMCTruthLink"],
        "_CalohitMCTruthLink_from": to.linked_hits,
        "_CalohitMCTruthLink_to": to.hit_particles,
        "SiTracksMCTruthLink": _LINK_WEIGHTS["SiTracksMCTruthLink"],
        "_SiTracksMCTruthLink_from": to.linked_tracks,
        "_SiTracksMCTruthLink_to": to.track_particles,
        "PandoraPFOs": lambda e: _candidates(e.candidates, "PDG"),
        "_PandoraPFOs_clusters": to.candidate_clusters,
        "_PandoraPFOs_tracks": to.candidate_tracks,
    }


_OLD_NAMES = (
    "MCParticles",
    "SiTracks_Refitted",
    "SiTracks",
    "PandoraClusters",
    *HIT_COLLECTIONS,
    "CalohitMCTruthLink",
    "SiTracksMCTruthLink",
    "MergedRecoParticles",
    "EventHeader",
)
_RENAMED = {"SiTracks": "SiTracks_Refitted_dQdx", "MergedRecoParticles": "PandoraPFOs"}


def make_layout(name: LayoutName, named: Callable[[str], str | None] = str) -> Layout:
    """Return a layout.

    Args:
        name: of the layout.
        named: CLIC's name of a collection or branch -> the name to write; None = leave it out.
    """
    old = name == "old"
    names = _OLD_NAMES if old else tuple(_RENAMED.get(n, n) for n in _OLD_NAMES)
    # Small integers in order of registration, as the old podio gave them; hashes of the names since.
    ids = {n: number if old else murmur3_32(named(n) or n) for number, n in enumerate(names, start=1)}
    to = _References(ids, np.int32 if old else np.uint32)
    collections = _old_collections(to) if old else _new_collections(to)
    return Layout(
        name,
        {own: number for n, number in ids.items() if (own := named(n)) is not None},
        {own: make for n, make in collections.items() if (own := named(n)) is not None},
        "metadata" if old else "podio_metadata",
        "" if old else "events___idTable",
    )


LAYOUTS: dict[str, Layout] = {name: make_layout(name) for name in get_args(LayoutName)}
