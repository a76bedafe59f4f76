"""Random events with the columns and ranges of a schema, to compare two forms of a model."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from mlpf.physics.schemas import ElementKind, EventSchema

Array = npt.NDArray[np.float64]

TRACK_FRACTION = 0.4
PADDED_FRACTION = 0.1


class FieldAndFace(Protocol):
    """What of a detector the columns depend on: ``mlpf.config.detector.DetectorConfig`` has it."""

    @property
    def field_T(self) -> float:
        """Field in T."""

    @property
    def face_mm(self) -> tuple[float, float]:
        """Radius and half length of the calorimeter face in mm."""


def sample_events(
    schema: EventSchema, num_events: int, num_elements: int, detector: FieldAndFace | None, seed: int = 0
) -> npt.NDArray[np.float32]:
    """Return [B, N, F] raw elements: tracks, then the other kind, then a tenth of padding, per event.

    ``detector`` may only be None where the schema has no columns that depend on it.

    Momenta fall steeply from 0.1 GeV, directions are uniform in azimuth and within |eta| < 2.5. The columns
    of one element are consistent (pt, p, omega; position, direction). Elements are independent.
    """
    rng = np.random.default_rng(seed)
    x = np.zeros((num_events, num_elements, schema.num_features))
    num_real = num_elements - int(PADDED_FRACTION * num_elements)
    num_tracks = max(1, int(TRACK_FRACTION * num_real))
    track, calorimeter = schema.kinds
    for event in x:
        event[:num_tracks, : len(track.features)] = _table(track, _tracks(num_tracks, detector, rng))
        rows = _table(calorimeter, _deposits(num_real - num_tracks, detector, rng))
        event[num_tracks:num_real, : len(calorimeter.features)] = rows
    return x.astype(np.float32)


def _table(kind: ElementKind, values: dict[str, Array]) -> Array:
    """Arrange the columns of a kind, [n, columns]."""
    values = {**values, "elemtype": np.full(len(values["eta"]), float(kind.elemtype))}
    return kind.features.stack({name: values[name] for name in kind.features.names})


def _directions(n: int, rng: np.random.Generator) -> dict[str, Array]:
    phi = rng.uniform(-np.pi, np.pi, n)
    return {"eta": rng.uniform(-2.5, 2.5, n), "sin_phi": np.sin(phi), "cos_phi": np.cos(phi)}


def _momenta(n: int, rng: np.random.Generator) -> Array:
    return np.minimum(0.1 + rng.exponential(1.0, n) ** 2, 190.0)


def _tracks(n: int, detector: FieldAndFace | None, rng: np.random.Generator) -> dict[str, Array]:
    """Return the columns that the tracks of any schema have; curvature only with a detector."""
    direction = _directions(n, rng)
    pt = _momenta(n, rng)
    ndf = 2.0 * rng.integers(4, 16, n) - 5.0
    chi2 = rng.chisquare(ndf)
    dedx, dedx_error = rng.lognormal(np.log(4e-4), 0.1, n), rng.lognormal(np.log(3e-5), 0.1, n)
    radius = rng.uniform(31.0, 60.0, n)
    d0 = rng.normal(0.0, 0.05, n)
    charge = rng.choice([-1.0, 1.0], n)
    return {
        **direction,
        "pt": pt,
        "p": pt * np.cosh(direction["eta"]),
        "chi2": chi2,
        "ndf": ndf,
        "dEdx": dedx,
        "dEdxError": dedx_error,
        "radiusOfInnermostHit": radius,
        "tanLambda": np.sinh(direction["eta"]),
        "D0": d0,
        **({} if detector is None else {"omega": charge * 3e-4 * detector.field_T / pt}),
        "Z0": rng.normal(0.0, 0.05, n),
        "time": np.zeros(n),
        "type": np.ones(n),
        **{f"{name}_outer": values for name, values in _bent(direction, charge / pt).items()},
        "charge": charge,
        "is_gen_muon": (np.arange(n) % 8 == 0).astype(np.float64),
        "is_gen_electron": (np.arange(n) % 8 == 1).astype(np.float64),
    }


def _bent(direction: dict[str, Array], curvature: Array) -> dict[str, Array]:
    """Return the direction at the calorimeter of tracks that start in ``direction``."""
    phi: Array = np.arctan2(direction["sin_phi"], direction["cos_phi"]) - np.clip(curvature, -1.0, 1.0)
    return {"eta": direction["eta"], "sin_phi": np.sin(phi), "cos_phi": np.cos(phi)}


def _deposits(n: int, detector: FieldAndFace | None, rng: np.random.Generator) -> dict[str, Array]:
    """Return the columns that clusters, hits or towers of any schema have; positions only with a detector."""
    direction = _directions(n, rng)
    et = _momenta(n, rng)
    energy = et * np.cosh(direction["eta"])
    behind = rng.uniform(1.02, 1.4, n)
    ecal = rng.uniform(0.0, 1.0, n)
    spread = rng.uniform(5.0, 60.0, (3, n))
    return {
        **direction,
        "et": et,
        "energy": energy,
        **({} if detector is None else _positions(direction, detector, behind)),
        "iTheta": 2.0 * np.arctan(np.exp(-direction["eta"])),
        "energy_ecal": energy * ecal,
        "energy_hcal": energy * (1.0 - ecal),
        "energy_other": np.zeros(n),
        "energy_em": energy * ecal,
        "energy_had": energy * (1.0 - ecal),
        "num_hits": np.ceil(5.0 + 10.0 * energy),
        "sigma_x": spread[0],
        "sigma_y": spread[1],
        "sigma_z": spread[2],
        "time": 0.02 * spread[0],
        "subdetector": np.floor(2.0 * ecal),
        "type": np.floor(2.0 * ecal),
        **{f"unused_{i}": np.zeros(n) for i in range(4)},
    }


def _positions(direction: dict[str, Array], detector: FieldAndFace, behind: Array) -> dict[str, Array]:
    """Return positions at ``behind`` [n] times the distance of the face."""
    radius, half_length = detector.face_mm
    slope = np.sinh(direction["eta"])
    transverse = np.minimum(radius, half_length / np.maximum(np.abs(slope), 1e-3)) * behind
    return {
        "position.x": transverse * direction["cos_phi"],
        "position.y": transverse * direction["sin_phi"],
        "position.z": transverse * slope,
    }
