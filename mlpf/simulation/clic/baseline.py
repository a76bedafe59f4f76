"""Rule-based particle flow: tracks, clusters and a fixed list of rules give particle candidates.

It is the reference for the network and follows PandoraPFA (Thomson, NIM A 611, 25, 2009) in simple form.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mlpf.physics.particles import CLASSES
from mlpf.simulation.clic.baseline_matching import (
    Shapes,
    centroid_distance,
    cluster_shapes,
    hit_distance,
    muon_votes,
    track_lines,
)
from mlpf.simulation.clic.detector import Detector
from mlpf.simulation.clic.event_data import Candidates, Clusters, FloatArray, Hits, IntArray, Tracks

PION, PHOTON, NEUTRAL_HADRON, ELECTRON, MUON = 211, 22, 130, 11, 13
MASS_GEV = {c.pdg: c.mass_gev for c in CLASSES}


@dataclass(frozen=True)
class BaselineSettings:
    """Cuts of the rules, GeV and mm; see toy detector, section 7."""

    muon_min_votes: int = 3
    muon_min_p: float = 3.5
    muon_energy: float = 2.5
    electron_min_ecal_share: float = 0.97
    electron_energy_over_p: tuple[float, float] = (0.80, 1.20)
    electron_min_p: float = 1.5
    electron_max_depth: float = 95.0
    electron_max_width: float = 22.0
    electron_min_hits: int = 8
    absorb_distance: float = 450.0
    absorb_photon_distance: float = 60.0
    absorb_sigmas: float = 1.5
    residual_sigmas: float = 2.5
    residual_min_energy: float = 0.5
    residual_photon_ecal_share: float = 0.85
    photon_min_energy: float = 0.15
    neutral_hadron_min_energy: float = 0.4
    fragment_energy: float = 1.5
    fragment_distance: float = 200.0


SETTINGS = BaselineSettings()


@dataclass(frozen=True)
class _Measured:
    """Input of the rules: T tracks, K clusters."""

    momentum: FloatArray
    direction: FloatArray
    charge: FloatArray
    is_muon: npt.NDArray[np.bool_]
    absorbable: npt.NDArray[np.bool_]
    primary: IntArray
    distance: FloatArray
    shapes: Shapes
    num_hits: IntArray
    energy_other: FloatArray
    ecal_hadron_response: float


@dataclass
class _Builder:
    """The candidates, one list entry each."""

    pdg: list[int] = field(default_factory=list)
    charge: list[float] = field(default_factory=list)
    momentum: list[FloatArray] = field(default_factory=list)
    track: list[int] = field(default_factory=list)
    clusters: list[IntArray] = field(default_factory=list)

    def add(self, pdg: int, charge: float, momentum: FloatArray, track: int, clusters: list[int]) -> None:
        """Append one candidate; ``pdg`` without sign, ``momentum`` [3] in GeV."""
        self.pdg.append(pdg)
        self.charge.append(charge)
        self.momentum.append(momentum)
        self.track.append(track)
        self.clusters.append(np.array(clusters, dtype=np.int64))

    def finish(self) -> Candidates:
        """Return the record; neutral candidates are massless with the energy of the calorimeter."""
        label = np.array(self.pdg, dtype=np.int64)
        charge = np.array(self.charge, dtype=np.float64)
        momentum = np.array(self.momentum, dtype=np.float64).reshape(-1, 3)
        mass = np.array([MASS_GEV[p] if q else 0.0 for p, q in zip(self.pdg, self.charge, strict=True)])
        # Particles of negative PDG code: pi-, but e+ and mu+.
        sign = np.where(charge == 0, 1, np.where(label == PION, 1, -1) * charge).astype(np.int64)
        return Candidates(
            pdg=label * sign,
            charge=charge,
            mass=mass.astype(np.float64),
            px=momentum[:, 0],
            py=momentum[:, 1],
            pz=momentum[:, 2],
            energy=np.sqrt((momentum**2).sum(axis=1) + mass**2),
            track=np.array(self.track, dtype=np.int64),
            clusters=self.clusters,
        )


def reconstruct_candidates(
    tracks: Tracks,
    hits: Hits,
    clusters: Clusters,
    detector: Detector,
    settings: BaselineSettings = SETTINGS,
) -> Candidates:
    """Turn the tracks and clusters of one event into particle candidates.

    Args:
        tracks: T tracks with their states at the perigee and at the calorimeter face.
        hits: H hits.
        clusters: K clusters of these hits.
        detector: geometry, field and energy scales.
        settings: cuts of the rules.

    Returns:
        Charged candidates (one per track, no track twice), then neutral ones (exactly one cluster each).
    """
    measured = _measure(tracks, hits, clusters, detector, settings)
    builder = _Builder()
    free = np.ones(len(clusters), dtype=bool)
    primaries = np.unique(measured.primary[measured.primary >= 0])
    free[primaries] = False
    centroid = np.stack((clusters.x, clusters.y, clusters.z), axis=1)
    centroid /= np.maximum(np.linalg.norm(centroid, axis=1, keepdims=True), 1e-9)
    residuals = []
    for primary in primaries:
        residuals += _reconstruct_group(builder, measured, free, int(primary), settings)
    for track in np.flatnonzero(measured.primary < 0):
        _add_track(builder, measured, int(track), MUON if measured.is_muon[track] else PION, [])
    for cluster, pdg, energy in residuals + _classify_rest(measured, free, settings):
        builder.add(pdg, 0.0, energy * centroid[cluster], -1, [cluster])
    return builder.finish()


def _measure(
    tracks: Tracks, hits: Hits, clusters: Clusters, detector: Detector, settings: BaselineSettings
) -> _Measured:
    """Compute the input of the rules, for all tracks and clusters at once."""
    state = tracks.at_ip
    pt = detector.bending / np.abs(state.omega)
    momentum = pt * np.sqrt(1 + state.tan_lambda**2)
    direction = np.stack((np.cos(state.phi), np.sin(state.phi), state.tan_lambda), axis=1)
    direction /= np.sqrt(1 + state.tan_lambda**2)[:, None]
    lines = track_lines(tracks, detector)
    to_hit = hit_distance(lines, hits, clusters)
    touching = to_hit < 1
    primary = np.full(len(tracks), -1)
    if len(clusters):
        primary = np.where(touching.any(axis=1), np.argmin(to_hit, axis=1), -1)
    votes = muon_votes(tracks, hits, detector)
    distance = centroid_distance(lines, clusters)
    shapes = cluster_shapes(hits, clusters, detector)
    reach = np.where(shapes.photon_like, settings.absorb_photon_distance, settings.absorb_distance)
    return _Measured(
        momentum=momentum,
        direction=direction,
        charge=np.sign(state.omega),
        is_muon=(votes >= settings.muon_min_votes) & (momentum > settings.muon_min_p),
        absorbable=(distance < reach) | (touching & ~shapes.photon_like),
        primary=primary,
        distance=distance,
        shapes=shapes,
        num_hits=clusters.num_hits,
        energy_other=clusters.energy_other,
        ecal_hadron_response=detector.ecal_hadron_response,
    )


def _reconstruct_group(
    builder: _Builder,
    measured: _Measured,
    free: npt.NDArray[np.bool_],
    primary: int,
    settings: BaselineSettings,
) -> list[tuple[int, int, float]]:
    """Handle the tracks that share a primary cluster; mark absorbed clusters in ``free``.

    Returns:
        At most one neutral residual: (cluster, pdg, energy).
    """
    members = np.flatnonzero(measured.primary == primary)
    shapes = measured.shapes
    if len(members) == 1 and _is_electron(measured, int(members[0]), primary, settings):
        _add_track(builder, measured, int(members[0]), ELECTRON, [primary])
        return []

    is_muon = measured.is_muon[members]
    expected = float(np.where(is_muon, settings.muon_energy, measured.momentum[members]).sum())
    sigma = resolution(expected)
    energy = float(shapes.had_energy[primary])
    absorbed = []
    if energy < expected:
        distance = measured.distance[members].min(axis=0)
        near = np.flatnonzero(free & measured.absorbable[members].any(axis=0))
        for cluster in near[np.argsort(distance[near], kind="stable")].tolist():
            if energy + shapes.had_energy[cluster] < expected + settings.absorb_sigmas * sigma:
                energy += float(shapes.had_energy[cluster])
                absorbed.append(cluster)
        free[absorbed] = False
    for place, track in enumerate(members.tolist()):
        pdg = MUON if is_muon[place] else PION
        _add_track(builder, measured, track, pdg, [primary, *absorbed] if place == 0 else [])

    excess = energy - expected
    if excess > max(settings.residual_sigmas * sigma, settings.residual_min_energy):
        return [_residual(measured, primary, excess, settings)]
    return []


def resolution(energy: float) -> float:
    """Assumed calorimeter resolution in GeV for hadrons of ``energy`` GeV."""
    return 0.55 * energy**0.5 + 0.03 * energy


def _is_electron(measured: _Measured, track: int, cluster: int, settings: BaselineSettings) -> bool:
    """Return whether a track and its only cluster look like an electron."""
    shapes = measured.shapes
    lowest, highest = settings.electron_energy_over_p
    return bool(
        not measured.is_muon[track]
        and measured.momentum[track] > settings.electron_min_p
        and lowest < shapes.em_energy[cluster] / measured.momentum[track] < highest
        and shapes.ecal_share[cluster] > settings.electron_min_ecal_share
        and shapes.depth[cluster] < settings.electron_max_depth
        and shapes.width[cluster] < settings.electron_max_width
        and measured.num_hits[cluster] >= settings.electron_min_hits
    )


def _residual(
    measured: _Measured, cluster: int, excess: float, settings: BaselineSettings
) -> tuple[int, int, float]:
    """Return (cluster, pdg, energy) of the neutral particle that explains an excess over the tracks.

    The excess is on the hadronic scale. In a cluster that is nearly all ECAL it is a photon on the
    electromagnetic scale. In other clusters it is a photon if the energy of the ECAL is large enough for it.
    """
    shapes = measured.shapes
    share = shapes.ecal_share[cluster]
    if share > settings.residual_photon_ecal_share:
        return cluster, PHOTON, excess * measured.ecal_hadron_response
    explained = share * shapes.em_energy[cluster] >= excess
    return cluster, PHOTON if explained else NEUTRAL_HADRON, excess


def _add_track(builder: _Builder, measured: _Measured, track: int, pdg: int, clusters: list[int]) -> None:
    """Append a charged candidate with the momentum of its track."""
    momentum = measured.momentum[track] * measured.direction[track]
    builder.add(pdg, float(measured.charge[track]), momentum, track, clusters)


def _classify_rest(
    measured: _Measured, free: npt.NDArray[np.bool_], settings: BaselineSettings
) -> list[tuple[int, int, float]]:
    """Return (cluster, pdg, energy) of each cluster that belongs to no track and is not a fragment."""
    shapes = measured.shapes
    nearest = measured.distance.min(axis=0, initial=np.inf)
    fragment = (shapes.had_energy < settings.fragment_energy) & (nearest < settings.fragment_distance)
    open_ = free & (measured.energy_other == 0)
    photon = open_ & shapes.photon_like & (shapes.em_energy > settings.photon_min_energy)
    hadron = (
        open_ & ~shapes.photon_like & ~fragment & (shapes.had_energy > settings.neutral_hadron_min_energy)
    )
    found = []
    for cluster in np.flatnonzero(photon | hadron).tolist():
        energy = shapes.em_energy[cluster] if photon[cluster] else shapes.had_energy[cluster]
        found.append((cluster, PHOTON if photon[cluster] else NEUTRAL_HADRON, float(energy)))
    return found
