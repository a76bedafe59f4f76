"""Random events with the columns and ranges of CLIC events, to compare two forms of a model on."""

import numpy as np
import numpy.typing as npt

from mlpf.physics.features import CLUSTER_FEATURES, ELEMTYPE_CLUSTER, ELEMTYPE_TRACK, TRACK_FEATURES

FIELD_T = 4.0
RADIUS_MM = 1500.0
HALF_LENGTH_MM = 2307.0
TRACK_FRACTION = 0.4
PADDED_FRACTION = 0.1


def clic_like_events(
    num_events: int, num_elements: int, num_features: int = len(CLUSTER_FEATURES), seed: int = 0
) -> npt.NDArray[np.float32]:
    """Return [B, N, F] raw elements: tracks, then clusters, then a tenth of padding, per event.

    Momenta fall steeply from 0.1 GeV, directions are uniform in azimuth and within |eta| < 2.5. The columns
    of one element agree with each other (pt, p, omega; position, direction), elements are independent.

    Raises:
        ValueError: ``num_features`` is less than the columns of a cluster.
    """
    if num_features < len(CLUSTER_FEATURES):
        raise ValueError(f"num_features={num_features}, expected at least {len(CLUSTER_FEATURES)}")
    rng = np.random.default_rng(seed)
    x = np.zeros((num_events, num_elements, num_features))
    num_real = num_elements - int(PADDED_FRACTION * num_elements)
    num_tracks = max(1, int(TRACK_FRACTION * num_real))
    for event in x:
        event[:num_tracks, : len(TRACK_FEATURES)] = _tracks(num_tracks, rng)
        event[num_tracks:num_real, : len(CLUSTER_FEATURES)] = _clusters(num_real - num_tracks, rng)
    return x.astype(np.float32)


def _directions(n: int, rng: np.random.Generator) -> dict[str, npt.NDArray[np.float64]]:
    phi = rng.uniform(-np.pi, np.pi, n)
    return {"eta": rng.uniform(-2.5, 2.5, n), "sin_phi": np.sin(phi), "cos_phi": np.cos(phi)}


def _momenta(n: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    return np.minimum(0.1 + rng.exponential(1.0, n) ** 2, 190.0)


def _tracks(n: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    direction = _directions(n, rng)
    pt = _momenta(n, rng)
    ndf = 2.0 * rng.integers(4, 16, n) - 5.0
    values = {
        **direction,
        "elemtype": np.full(n, float(ELEMTYPE_TRACK)),
        "pt": pt,
        "p": pt * np.cosh(direction["eta"]),
        "chi2": rng.chisquare(ndf),
        "ndf": ndf,
        "dEdx": rng.lognormal(np.log(4e-4), 0.1, n),
        "dEdxError": rng.lognormal(np.log(3e-5), 0.1, n),
        "radiusOfInnermostHit": rng.uniform(31.0, 60.0, n),
        "tanLambda": np.sinh(direction["eta"]),
        "D0": rng.normal(0.0, 0.05, n),
        "omega": rng.choice([-1.0, 1.0], n) * 3e-4 * FIELD_T / pt,
        "Z0": rng.normal(0.0, 0.05, n),
        "time": np.zeros(n),
    }
    return np.stack([values[name] for name in TRACK_FEATURES.names], axis=-1)


def _clusters(n: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    direction = _directions(n, rng)
    et = _momenta(n, rng)
    energy = et * np.cosh(direction["eta"])
    slope = np.sinh(direction["eta"])
    transverse = np.minimum(RADIUS_MM, HALF_LENGTH_MM / np.maximum(np.abs(slope), 1e-3))
    transverse = transverse * rng.uniform(1.02, 1.4, n)
    ecal = rng.uniform(0.0, 1.0, n)
    spread = rng.uniform(5.0, 60.0, (3, n))
    values = {
        **direction,
        "elemtype": np.full(n, float(ELEMTYPE_CLUSTER)),
        "et": et,
        "energy": energy,
        "position.x": transverse * direction["cos_phi"],
        "position.y": transverse * direction["sin_phi"],
        "position.z": transverse * slope,
        "iTheta": 2.0 * np.arctan(np.exp(-direction["eta"])),
        "energy_ecal": energy * ecal,
        "energy_hcal": energy * (1.0 - ecal),
        "energy_other": np.zeros(n),
        "num_hits": np.ceil(5.0 + 10.0 * energy),
        "sigma_x": spread[0],
        "sigma_y": spread[1],
        "sigma_z": spread[2],
    }
    return np.stack([values[name] for name in CLUSTER_FEATURES.names], axis=-1)
