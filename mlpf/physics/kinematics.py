"""Four-vectors of the field: (pt, eta, sin phi, cos phi, energy) <-> (px, py, pz, energy)."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]


def eta_from_theta(theta: Array) -> Array:
    """Pseudorapidity -ln tan(theta/2); 0 where tan(theta/2) <= 0. ``theta`` in rad, any shape."""
    tangent = np.tan(np.asarray(theta) / 2)
    return np.where(tangent > 0, -np.log(np.where(tangent > 0, tangent, 1.0)), 0.0)


def eta_from_momentum(px: Array, py: Array, pz: Array) -> Array:
    """Pseudorapidity asinh(pz/pt); 0 for a momentum along the beam or zero."""
    pt = np.hypot(px, py)
    return np.arcsinh(np.divide(pz, pt, out=np.zeros_like(pt), where=pt > 0))


def momentum_from_pt(pt: Array, eta: Array, sin_phi: Array, cos_phi: Array) -> tuple[Array, Array, Array]:
    """Return (px, py, pz) in GeV; the direction (sin_phi, cos_phi) is normalised to the unit circle first."""
    norm = np.hypot(sin_phi, cos_phi)
    safe = np.where(norm > 0, norm, 1.0)
    return pt * cos_phi / safe, pt * sin_phi / safe, pt * np.sinh(eta)


def delta_phi(a: Array, b: Array) -> Array:
    """Azimuth difference a - b in [-pi, pi), rad."""
    return np.mod(a - b + np.pi, 2 * np.pi) - np.pi


def delta_r(eta_a: Array, phi_a: Array, eta_b: Array, phi_b: Array) -> Array:
    """Distance sqrt(deta^2 + dphi^2)."""
    return np.hypot(eta_a - eta_b, delta_phi(phi_a, phi_b))
