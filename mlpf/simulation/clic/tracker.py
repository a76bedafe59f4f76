"""Tracks: efficiency, smeared helix parameters, split and fake tracks, links to particles.

Resolutions are those of the CLIC detector model in fast simulation (Delphes CLICdet card, central values).
That of pT is scaled to other fields B and radii R: its first term with 1/(B R^2), scattering with 1/(B R).
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mlpf.physics.kinematics import eta_from_momentum
from mlpf.simulation.clic.detector import Detector
from mlpf.simulation.clic.event_data import FloatArray, IntArray, Links, Particles, Tracks, TrackStates
from mlpf.simulation.clic.helix import Helix, extrapolate_to_face
from mlpf.simulation.clic.propagation import Propagation

_ELECTRON = 11
_SPLIT_RATE = 0.004
_FAKE_RATE = 0.003
_TAIL_RATE = 0.02
_FULL_SHARE_RATE = 0.93  # tracks whose hits all come from one particle
_MIN_OMEGA_FACTOR = 0.1  # a smeared track keeps its charge
_TRACK_TYPE = 1
# The detector whose resolutions are used.
_REFERENCE_FIELD, _REFERENCE_RADIUS = 4.0, 1500.0  # T, mm


@dataclass(frozen=True)
class _Truth:
    """True quantities of the charged particles, arrays of shape [Q]."""

    pt: FloatArray
    p: FloatArray
    eta: FloatArray
    sine: FloatArray
    exit_radius: FloatArray
    vertex_radius: FloatArray
    beta_gamma: FloatArray
    electron: FloatArray


@dataclass(frozen=True)
class _Rows:
    """Tracks to make, arrays of shape [T].

    Attributes:
        base: index into the charged particles.
        weight: link weight to it.
        other: second particle of a fake track, -1 for the others.
        error: factor on the pT error.
        hits: factor on the number of hits.
        scatter: width in rad of the extra scatter of fake tracks, else 0.
    """

    base: IntArray
    weight: FloatArray
    other: IntArray
    error: FloatArray
    hits: FloatArray
    scatter: FloatArray


def _truth(particles: Particles, propagation: Propagation, detector: Detector) -> _Truth:
    index = propagation.charged
    px, py, pz = particles.px[index], particles.py[index], particles.pz[index]
    pt = np.maximum(np.hypot(px, py), 1e-9)
    p = np.hypot(pt, pz)
    # Tracks in the forward direction leave through the endcap: a shorter lever arm.
    forward = detector.face_half_length / np.maximum(np.abs(propagation.helix.tan_lambda), 1e-9)
    return _Truth(
        pt=pt,
        p=p,
        eta=eta_from_momentum(px, py, pz),
        sine=pt / p,
        exit_radius=np.clip(forward, 150.0, detector.face_radius),
        vertex_radius=np.hypot(particles.vx[index], particles.vy[index]),
        beta_gamma=p / np.maximum(particles.mass[index], 1e-6),
        electron=np.abs(particles.pdg[index]) == _ELECTRON,
    )


def _efficiency(truth: _Truth, vertex_z: FloatArray) -> FloatArray:
    threshold = np.sqrt(np.clip((truth.pt - 0.08) / 0.12, 0.0, 1.0))
    acceptance = np.clip((2.60 - np.abs(truth.eta)) / 0.2, 0.0, 1.0)
    displaced = np.clip(1.0 - (truth.vertex_radius - 20.0) / 380.0, 0.0, 1.0)
    in_range = np.abs(vertex_z) < 1000.0
    return 0.995 * threshold * acceptance * displaced * in_range * np.where(truth.electron, 0.985, 1.0)


def _choose_rows(found: IntArray, rng: np.random.Generator) -> _Rows:
    """Add split and fake tracks to the found charged particles [n]."""
    n = len(found)
    weight = np.where(rng.random(n) < _FULL_SHARE_RATE, 1.0, 0.6 + 0.4 * rng.random(n))
    split = found[rng.random(n) < _SPLIT_RATE]
    num_fakes = int(rng.poisson(_FAKE_RATE * n))
    fake = rng.choice(found, num_fakes) if n else np.zeros(0, dtype=np.int64)
    other = rng.choice(found, num_fakes) if n else fake
    sizes = (n, len(split), len(fake))
    return _Rows(
        base=np.concatenate([found, split, fake]),
        weight=np.concatenate([weight, np.repeat((0.5, 0.45), sizes[1:])]),
        other=np.concatenate([np.full(n + len(split), -1), other]),
        error=np.repeat((1.0, 4.0, 4.0), sizes),
        hits=np.repeat((1.0, 0.5, 0.5), sizes),
        scatter=np.repeat((0.0, 0.0, 0.05), sizes),
    )


def _smeared_states(
    truth: _Truth,
    helix: Helix,
    rows: _Rows,
    tail: npt.NDArray[np.bool_],
    detector: Detector,
    rng: np.random.Generator,
) -> TrackStates:
    """Return perigee states [T] with measurement errors."""
    i = rows.base
    pt, p, sine = truth.pt[i], truth.p[i], truth.sine[i]
    weaker = _REFERENCE_FIELD / detector.field
    lever = weaker * (_REFERENCE_RADIUS / truth.exit_radius[i]) ** 2
    scattering = weaker * _REFERENCE_RADIUS / detector.face_radius
    pt_error = np.hypot(1.3e-5 * pt * lever, 2.1e-3 * scattering / sine**1.5)
    pt_error *= np.where(truth.electron[i], 1.5, 1.0) * np.where(tail, 3.0, 1.0) * rows.error
    angle_error = np.hypot(5e-5, 3e-4 / (p * np.sqrt(sine)))
    d0, phi, z0 = helix.take(i).perigee()
    noise = rng.normal(size=(5, len(i)))
    extra = rng.normal(size=(3, len(i))) * rows.scatter
    factor = np.maximum(1.0 + pt_error * noise[0] + 4.0 * extra[0], _MIN_OMEGA_FACTOR)
    zero = np.zeros(len(i))
    return TrackStates(
        d0=d0 + np.hypot(5e-3, 15e-3 / (p * sine**1.5)) * noise[1],
        phi=np.mod(phi + angle_error * noise[2] + extra[1] + np.pi, 2 * np.pi) - np.pi,
        omega=helix.sign[i] / helix.radius[i] * factor,
        z0=z0 + np.hypot(5e-3, 15e-3 / (p * sine**2.5)) * noise[3],
        tan_lambda=helix.tan_lambda[i] + angle_error / sine**2 * noise[4] + extra[2],
        time=zero,
        reference_x=zero,
        reference_y=zero,
        reference_z=zero,
    )


def _at_calorimeter(states: TrackStates, detector: Detector) -> TrackStates:
    """Move perigee states [T] to the calorimeter face; those that miss it stay as they are."""
    face = extrapolate_to_face(states, detector)
    hit = face.valid
    return replace(
        states,
        d0=np.where(hit, 0.0, states.d0),
        z0=np.where(hit, 0.0, states.z0),
        phi=np.where(hit, np.arctan2(face.uy, face.ux), states.phi),
        reference_x=np.where(hit, face.x, 0.0),
        reference_y=np.where(hit, face.y, 0.0),
        reference_z=np.where(hit, face.z, 0.0),
    )


def reconstruct_tracks(
    particles: Particles, propagation: Propagation, detector: Detector, rng: np.random.Generator
) -> Tracks:
    """Make the tracks of one event.

    Args:
        particles: [P].
        propagation: of these particles.
        detector: geometry and field.
        rng: stream of ``Stage.TRACKS``.

    Returns:
        Tracks of found particles, then split, then fake ones. A split track is a second track of a
        particle (weight 0.5); a fake one links to two particles with weights 0.45 and 0.35.
    """
    truth = _truth(particles, propagation, detector)
    efficiency = _efficiency(truth, particles.vz[propagation.charged])
    found = np.flatnonzero(rng.random(len(efficiency)) < efficiency)
    rows = _choose_rows(found, rng)
    n = len(rows.base)
    tail = rng.random(n) < _TAIL_RATE
    at_ip = _smeared_states(truth, propagation.helix, rows, tail, detector, rng)

    exit_fraction = truth.exit_radius[rows.base] / detector.face_radius
    vertex_radius = truth.vertex_radius[rows.base]
    mean_hits = (6 + 7 * exit_fraction - vertex_radius / 60) * rows.hits
    num_hits = np.clip(np.rint(mean_hits + rng.normal(0.0, 0.6, n)), 4, 16)
    ndf = (2 * num_hits - 5).astype(np.int64)
    beta_gamma_2 = truth.beta_gamma[rows.base] ** 2
    rise = np.clip(1.0 + 0.08 * np.log(np.maximum(beta_gamma_2, 1e-12)), 0.5, 2.0)
    dedx = 3.9e-4 * (1.0 + 1.0 / np.maximum(beta_gamma_2, 1e-3)) * rise * np.exp(rng.normal(0.0, 0.07, n))
    innermost = np.maximum(detector.tracker_inner_radius, vertex_radius + 5.0 + 20.0 * rng.random(n))

    fake = np.flatnonzero(rows.other >= 0)
    links = Links(
        source=np.concatenate([np.arange(n), fake]),
        particle=propagation.charged[np.concatenate([rows.base, rows.other[fake]])],
        weight=np.concatenate([rows.weight, np.full(len(fake), 0.35)]),
    )
    return Tracks(
        chi2=rng.chisquare(ndf) * np.where(tail, 2.0, 1.0),
        ndf=ndf,
        dedx=dedx,
        dedx_error=0.07 * dedx,
        radius_of_innermost_hit=innermost,
        kind=np.full(n, _TRACK_TYPE, dtype=np.int64),
        at_ip=at_ip,
        at_calorimeter=_at_calorimeter(at_ip, detector),
        links=links,
    )
