"""Tables -> input columns of tracks, clusters and hits, for all events of a chunk at once."""

import numpy as np
import numpy.typing as npt

from mlpf.data.edm4hep.raw_events import SYSTEM_ECAL, SYSTEM_HCAL, SYSTEM_OTHER, RawEvents
from mlpf.data.flat_tables import FloatArray
from mlpf.physics.features import (
    CLUSTER_FEATURES,
    ELEMTYPE_CLUSTER,
    ELEMTYPE_TRACK,
    HIT_FEATURES,
    TRACK_FEATURES,
    Columns,
)
from mlpf.physics.kinematics import eta_from_momentum, eta_from_theta

# pt [GeV] = 3e-4 * B [T] * radius [mm]: the speed of light in these units, rounded as in the reference.
PT_PER_TESLA_MM = 3e-4


def track_momentum(raw: RawEvents) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return (px, py, pz) of the tracks in GeV, each [T]: pt = 3e-4 |B / omega|, pz = pt tan(lambda)."""
    tracks = raw.tracks
    with np.errstate(divide="ignore", invalid="ignore"):
        pt = PT_PER_TESLA_MM * np.abs(raw.detector.field_T / tracks["omega"].astype(np.float64))
        phi = tracks["phi"].astype(np.float64)
        return pt * np.cos(phi), pt * np.sin(phi), pt * tracks["tanLambda"].astype(np.float64)


def track_features(raw: RawEvents, columns: Columns = TRACK_FEATURES) -> tuple[npt.NDArray[np.float32], int]:
    """Compute the columns of tracks.

    Args:
        raw: the chunk.
        columns: ``TRACK_FEATURES`` or ``HIT_TRACK_FEATURES``.

    Returns:
        [T, F], and how many NaN or infinite values were replaced by 0.
    """
    tracks = raw.tracks
    px, py, pz = track_momentum(raw)
    with np.errstate(invalid="ignore"):
        values = {
            "elemtype": np.full(len(tracks), ELEMTYPE_TRACK),
            "pt": np.hypot(px, py),
            "eta": eta_from_momentum(px, py, pz),
            "sin_phi": np.sin(tracks["phi"].astype(np.float64)),
            "cos_phi": np.cos(tracks["phi"].astype(np.float64)),
            "p": np.sqrt(px**2 + py**2 + pz**2),
        }
    return _stack(columns, {**tracks.columns, **values})


def cluster_features(raw: RawEvents) -> tuple[npt.NDArray[np.float32], int]:
    """Compute ``CLUSTER_FEATURES``; the spreads are unweighted population standard deviations.

    Returns:
        [K, 17], and how many NaN or infinite values were replaced by 0.
    """
    clusters = raw.clusters
    energy = clusters["energy"].astype(np.float64)
    theta = clusters["iTheta"].astype(np.float64)
    phi = clusters["phi"].astype(np.float64)
    with np.errstate(invalid="ignore"):
        values = {
            "elemtype": np.full(len(clusters), ELEMTYPE_CLUSTER),
            "et": np.sqrt(np.maximum(energy**2 - (energy * np.cos(theta)) ** 2, 0.0)),
            "eta": eta_from_theta(theta),
            "sin_phi": np.sin(phi),
            "cos_phi": np.cos(phi),
            "energy": energy,
            "iTheta": theta,
            **{f"position.{axis}": clusters[axis] for axis in "xyz"},
        }
    num_hits = sum_by_cluster(raw, np.ones(len(raw.hits)))
    system = raw.hits["system"]
    for name, which in (("ecal", SYSTEM_ECAL), ("hcal", SYSTEM_HCAL), ("other", SYSTEM_OTHER)):
        values[f"energy_{name}"] = sum_by_cluster(raw, np.where(system == which, raw.hits["energy"], 0.0))
    values["num_hits"] = num_hits
    safe = np.maximum(num_hits, 1.0)
    for axis in "xyz":
        mean = sum_by_cluster(raw, raw.hits[axis]) / safe
        deviation = raw.hits[axis][raw.cluster_hits.target] - mean[raw.cluster_hits.source]
        squares = np.bincount(raw.cluster_hits.source, deviation**2, minlength=len(clusters))
        values[f"sigma_{axis}"] = np.sqrt(squares / safe)
    return _stack(CLUSTER_FEATURES, values)


def hit_features(raw: RawEvents) -> tuple[npt.NDArray[np.float32], int]:
    """Compute ``HIT_FEATURES``; the direction is that of the hit seen from the origin.

    Returns:
        [H, 12], and how many NaN or infinite values were replaced by 0.
    """
    hits = raw.hits
    x, y, z, energy = (hits[name].astype(np.float64) for name in ("x", "y", "z", "energy"))
    with np.errstate(invalid="ignore", over="ignore"):
        in_plane = np.hypot(x, y)
        distance = np.hypot(in_plane, z)
        safe = np.where(in_plane > 0, in_plane, 1.0)
        values = {
            "elemtype": np.full(len(hits), ELEMTYPE_CLUSTER),
            "et": energy * in_plane / np.where(distance > 0, distance, 1.0),
            "eta": eta_from_momentum(x, y, z),
            "sin_phi": y / safe,
            "cos_phi": np.where(in_plane > 0, x / safe, 1.0),
            "energy": energy,
            **{f"position.{axis}": hits[axis] for axis in "xyz"},
            "time": hits["time"],
            "subdetector": hits["system"],
            "type": hits["type"],
        }
    return _stack(HIT_FEATURES, values)


def sum_by_cluster(raw: RawEvents, hit_values: FloatArray) -> FloatArray:
    """Sum a value [H] of the hits over the member hits of each cluster, [K]."""
    chosen = hit_values[raw.cluster_hits.target]
    return np.bincount(raw.cluster_hits.source, chosen, minlength=len(raw.clusters)).astype(np.float64)


def _stack(columns: Columns, values: dict[str, npt.NDArray]) -> tuple[npt.NDArray[np.float32], int]:
    with np.errstate(over="ignore"):
        matrix = columns.stack({name: values[name] for name in columns.names}).astype(np.float32)
    broken = ~np.isfinite(matrix)
    matrix[broken] = 0.0
    return matrix, int(broken.sum())
