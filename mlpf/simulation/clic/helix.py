"""Helices in a uniform field along z, in closed form.

With h the sign of the charge, R the radius of curvature and a >= 0 the turning angle, the azimuth of the
direction is phi(a) = phi - h a and the point is

    x(a) = x + h R (sin phi - sin phi(a))
    y(a) = y - h R (cos phi - cos phi(a))
    z(a) = z + R a tan(lambda).

Perigee parameters follow the LCIO and EDM4HEP conventions: omega > 0 for positive charge, the point of
closest approach to the z axis is (-d0 sin phi, d0 cos phi, z0).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlpf.simulation.clic.detector import Tracker
from mlpf.simulation.clic.event_data import FloatArray, TrackStates

# A particle that turns by more before the face curls in the tracker and is lost (1.5 turns).
MAX_TURNING_ANGLE = 3 * np.pi
_MIN_PT = 1e-9  # GeV; keeps the radius of curvature away from zero


@dataclass(frozen=True)
class FacePoints:
    """Entry of trajectories into the calorimeter face, arrays of shape [n].

    Attributes:
        x, y, z: entry point in mm.
        ux, uy, uz: unit vector of the direction there.
        path: length of the trajectory up to there in mm.
        barrel: True on the cylinder, False on a plane.
        valid: the face is reached inside the acceptance; if False, the other fields have no meaning.
    """

    x: FloatArray
    y: FloatArray
    z: FloatArray
    ux: FloatArray
    uy: FloatArray
    uz: FloatArray
    path: FloatArray
    barrel: npt.NDArray[np.bool_]
    valid: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        """Return the number of trajectories."""
        return len(self.x)


@dataclass(frozen=True)
class Helix:
    """Helices through a point each, arrays of shape [n].

    Attributes:
        x, y, z: the point, mm.
        phi: azimuth of the direction there, rad.
        radius: radius of curvature, mm.
        tan_lambda: pz/pT.
        sign: sign of the charge, +1 or -1.
    """

    x: FloatArray
    y: FloatArray
    z: FloatArray
    phi: FloatArray
    radius: FloatArray
    tan_lambda: FloatArray
    sign: FloatArray

    @classmethod
    def from_momentum(
        cls,
        point: tuple[FloatArray, FloatArray, FloatArray],
        momentum: tuple[FloatArray, FloatArray, FloatArray],
        charge: FloatArray,
        bending: float,
    ) -> "Helix":
        """Build helices from points (mm), momenta (GeV) and non-zero charges, [n] each.

        Args:
            point: x, y, z.
            momentum: px, py, pz.
            charge: in e.
            bending: ``Tracker.bending`` in GeV/mm.
        """
        px, py, pz = momentum
        pt = np.maximum(np.hypot(px, py), _MIN_PT)
        return cls(*point, np.arctan2(py, px), pt / (bending * np.abs(charge)), pz / pt, np.sign(charge))

    @classmethod
    def from_states(cls, states: TrackStates) -> "Helix":
        """Build helices from track states, starting at the perigee to their reference point."""
        return cls(
            states.reference_x - states.d0 * np.sin(states.phi),
            states.reference_y + states.d0 * np.cos(states.phi),
            states.reference_z + states.z0,
            states.phi,
            1.0 / np.abs(states.omega),
            states.tan_lambda,
            np.sign(states.omega),
        )

    def __len__(self) -> int:
        """Return the number of helices."""
        return len(self.x)

    def take(self, index: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> "Helix":
        """Return the helices at ``index`` (integers or mask)."""
        return Helix(
            self.x[index],
            self.y[index],
            self.z[index],
            self.phi[index],
            self.radius[index],
            self.tan_lambda[index],
            self.sign[index],
        )

    def at(self, angle: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Return (x, y, z, azimuth of the direction) after turning by ``angle`` [n] or [m, n] rad."""
        phi = self.phi - self.sign * angle
        signed = self.sign * self.radius
        return (
            self.x + signed * (np.sin(self.phi) - np.sin(phi)),
            self.y - signed * (np.cos(self.phi) - np.cos(phi)),
            self.z + self.radius * angle * self.tan_lambda,
            phi,
        )

    def path(self, angle: FloatArray) -> FloatArray:
        """Length in mm of the trajectory over a turning ``angle`` [n] or [m, n] in rad."""
        return self.radius * angle * np.sqrt(1.0 + self.tan_lambda**2)

    def _centre(self) -> tuple[FloatArray, FloatArray]:
        signed = self.sign * self.radius
        return self.x + signed * np.sin(self.phi), self.y - signed * np.cos(self.phi)

    def cylinder_angle(self, rho: float | FloatArray) -> FloatArray:
        """Turning angle [n] to the first crossing of the cylinder of radius ``rho`` mm; inf where none.

        Radii of shape [m, 1] give angles [m, n].
        """
        cx, cy = self._centre()
        distance = np.maximum(np.hypot(cx, cy), 1e-12)
        sine = self.sign * (rho**2 - distance**2 - self.radius**2) / (2 * distance * self.radius)
        crosses = np.abs(sine) < 1.0
        arc = np.arcsin(np.where(crosses, sine, 0.0))
        psi = np.arctan2(cy, cx)
        first = np.mod(self.sign * (self.phi - psi + arc), 2 * np.pi)
        second = np.mod(self.sign * (self.phi - psi + np.pi - arc), 2 * np.pi)
        return np.where(crosses, np.minimum(first, second), np.inf)

    def plane_angle(self, half_length: float | FloatArray) -> FloatArray:
        """Turning angle [n] to the plane |z| = ``half_length`` mm ahead; inf where none.

        Positions of shape [m, 1] give angles [m, n].
        """
        rate = self.radius * self.tan_lambda
        moves = np.abs(rate) > 1e-12
        target = np.sign(rate) * half_length
        angle = (target - self.z) / np.where(moves, rate, 1.0)
        return np.where(moves & (angle >= 0), angle, np.inf)

    def perigee(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return (d0, phi, z0) [n] at the point of closest approach to the z axis, mm and rad."""
        cx, cy = self._centre()
        phi = np.arctan2(cx * self.sign, -cy * self.sign)
        angle = np.mod(self.sign * (self.phi - phi) + np.pi, 2 * np.pi) - np.pi
        d0 = self.sign * (self.radius - np.hypot(cx, cy))
        return d0, phi, self.z + self.radius * angle * self.tan_lambda


def helix_to_face(helix: Helix, detector: Tracker) -> FacePoints:
    """Follow helices from inside the tracker to the calorimeter face.

    Args:
        helix: [n], starting inside the tracker.
        detector: geometry.

    Returns:
        Entry points; valid where reached within ``MAX_TURNING_ANGLE`` and outside the beam hole.
    """
    barrel_angle = helix.cylinder_angle(detector.face_radius)
    plane_angle = helix.plane_angle(detector.face_half_length)
    barrel = barrel_angle <= plane_angle
    angle = np.minimum(barrel_angle, plane_angle)
    valid = angle < MAX_TURNING_ANGLE
    angle = np.where(valid, angle, 0.0)
    x, y, z, phi = helix.at(angle)
    valid &= barrel | (np.hypot(x, y) > detector.endcap_inner_radius)
    norm = np.sqrt(1.0 + helix.tan_lambda**2)
    return FacePoints(
        x,
        y,
        z,
        np.cos(phi) / norm,
        np.sin(phi) / norm,
        helix.tan_lambda / norm,
        helix.path(angle),
        barrel,
        valid,
    )


def extrapolate_to_face(states: TrackStates, detector: Tracker) -> FacePoints:
    """Extrapolate perigee states [T], e.g. ``Tracks.at_ip``, to the calorimeter face."""
    return helix_to_face(Helix.from_states(states), detector)
