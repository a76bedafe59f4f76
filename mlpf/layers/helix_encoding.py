"""Where an element enters the calorimeter: tracks along their helix, clusters and hits along their direction.

Helix of a charged particle in a field along z, from its perigee parameters (LCIO convention):
with u = (sin phi, -cos phi), t = (cos phi, sin phi) and transverse path length s >= 0,
(x, y) = (-D0 u) + (omega s^2 / 2) sinc^2(omega s / 2) u + s sinc(omega s) t and z = Z0 + s tanLambda.
The distance rho from the beam line obeys rho^2 - D0^2 = 4 (1 - omega D0) sin^2(omega s / 2) / omega^2,
so the first crossing of a cylinder needs one arcsine and no arctangent (which ONNX lacks).
"""

from collections.abc import Mapping
from types import MappingProxyType

from keras import ops

# Columns used of tracks, and of clusters or hits. Their places depend on the schema of the events; these
# are those of CLIC clusters (layers must not import mlpf.physics; a test compares).
TRACK_COLUMNS = ("sin_phi", "cos_phi", "tanLambda", "D0", "omega", "Z0")
CLUSTER_COLUMNS = ("position.x", "position.y", "position.z")
CLIC_COLUMNS: Mapping[str, int] = MappingProxyType(
    {
        "sin_phi": 3,
        "cos_phi": 4,
        "tanLambda": 11,
        "D0": 12,
        "omega": 13,
        "Z0": 14,
        "position.x": 6,
        "position.y": 7,
        "position.z": 8,
    }
)
# The same in every schema.
COMMON = {"elemtype": 0, "pt": 1, "energy": 5}
ELEMTYPE_TRACK = 1
ELEMTYPE_CLUSTER = 2

# A track that needs more turns than this to reach an end cap does not reach it.
MAX_TURNING_ANGLE = 9.42477796  # 3 pi
PI = 3.14159265

# sin and cos of 2^k angle, k = 0 ... 6: the shortest wave is 147 mm at 1500 mm, so 20 mm are 0.85 rad.
NUM_OCTAVES = 7
NUM_HELIX_FEATURES = 3 + 3 + 2 * 2 * NUM_OCTAVES + 1 + 3


def _sinc(angle):
    """Return sin(angle) / angle, 1 at 0."""
    small = ops.abs(angle) < 1e-3
    safe = ops.where(small, 1.0, angle)
    return ops.where(small, 1.0 - angle * angle / 6.0, ops.sin(safe) / safe)


def _track_points(x, radius: float, half_length: float, columns: Mapping[str, int]):
    sin_phi, cos_phi, tan_lambda, d0, omega, z0 = (x[..., columns[name]] for name in TRACK_COLUMNS)
    # The fit's direction is a unit vector; stored values may be rounded.
    norm = ops.maximum(ops.sqrt(sin_phi * sin_phi + cos_phi * cos_phi), 1e-6)
    sin_phi, cos_phi = sin_phi / norm, cos_phi / norm
    curvature = ops.abs(omega)

    chord = ops.sqrt(ops.maximum(radius**2 - d0 * d0, 0.0) / ops.maximum(1.0 - omega * d0, 1e-3))
    half_sine = 0.5 * curvature * chord
    reaches = half_sine < 1.0
    bounded = ops.minimum(half_sine, 0.999999)
    small = bounded < 1e-3
    safe = ops.where(small, 1.0, bounded)
    ratio = ops.where(small, 1.0 + bounded * bounded / 6.0, ops.arcsin(ops.minimum(safe, 1.0)) / safe)
    path_barrel = ops.where(reaches, chord * ratio, 1e9)

    # The plane that the track flies to; a track at right angles to the beam never meets one.
    slope = ops.maximum(ops.abs(tan_lambda), 1e-6)
    forward = ops.where(tan_lambda >= 0, 1.0, -1.0)
    path_endcap = ops.maximum(half_length - forward * z0, 0.0) / slope
    path = ops.minimum(path_barrel, path_endcap)
    # A looper stays inside: its point farthest from the beam line, half a turn away.
    loops = curvature * path > MAX_TURNING_ANGLE
    path = ops.where(loops, PI / ops.maximum(curvature, 1e-9), path)

    angle = curvature * path
    along = path * _sinc(angle)
    half = _sinc(0.5 * angle)
    across = 0.5 * omega * path * path * half * half - d0
    z = z0 + path * tan_lambda
    return ops.stack([across * sin_phi + along * cos_phi, along * sin_phi - across * cos_phi, z], axis=-1)


def _cluster_points(x, radius: float, half_length: float, columns: Mapping[str, int]):
    position = ops.stack([x[..., columns[name]] for name in CLUSTER_COLUMNS], axis=-1)
    transverse = ops.sqrt(ops.sum(position[..., :2] * position[..., :2], axis=-1, keepdims=True))
    barrel = radius / ops.maximum(transverse, 1e-3)
    endcap = half_length / ops.maximum(ops.abs(position[..., 2:3]), 1e-3)
    return position * ops.minimum(barrel, endcap), position


def _finite(x):
    # |NaN| <= limit is false; unlike isfinite this exports to ONNX as plain comparisons.
    return ops.where(ops.abs(x) <= 1e9, x, ops.zeros_like(x))


def _points(x, radius: float, half_length: float, columns: Mapping[str, int]):
    kind = x[..., 0:1]
    on_face, position = _cluster_points(x, radius, half_length, columns)
    points = ops.where(
        kind == ELEMTYPE_TRACK,
        _track_points(x, radius, half_length, columns),
        ops.where(kind == ELEMTYPE_CLUSTER, on_face, ops.zeros_like(on_face)),
    )
    return _finite(points), position


def face_points(
    x,
    radius: float,
    half_length: float,
    columns: Mapping[str, int] = CLIC_COLUMNS,
):
    """Return where each element meets the face of the calorimeter.

    Args:
        x: [B, N, F] raw columns of a CLIC event.
        radius: radius of the barrel face in mm.
        half_length: |z| of the end-cap faces in mm.
        columns: place of each of ``TRACK_COLUMNS`` and ``CLUSTER_COLUMNS`` in x.

    Returns:
        [B, N, 3] in mm: for tracks the first crossing of the helix (for loopers that never cross, their
        point farthest from the beam line), for clusters the projection of the centroid along the line from
        the origin, zero for padded elements. Always finite.
    """
    return _points(x, radius, half_length, columns)[0]


def _octaves(cosine, sine):
    """Return cos and sin of 2^k angle for k < NUM_OCTAVES, from those of the angle; [..., 1] each."""
    waves = [cosine, sine]
    for _ in range(NUM_OCTAVES - 1):
        cosine, sine = cosine * cosine - sine * sine, 2.0 * sine * cosine
        waves += [cosine, sine]
    return waves


def helix_features(
    x,
    radius: float,
    half_length: float,
    columns: Mapping[str, int] = CLIC_COLUMNS,
):
    """Return the features of the position at the calorimeter, all of order 1.

    Args:
        x: [B, N, F] raw columns of a CLIC event.
        radius: radius of the barrel face in mm.
        half_length: |z| of the end-cap faces in mm.
        columns: place of each of ``TRACK_COLUMNS`` and ``CLUSTER_COLUMNS`` in x.

    Returns:
        [B, N, NUM_HELIX_FEATURES]: direction of the face point (3), face point in m (3), sin and cos of
        2^k times its azimuth and polar angle, depth of a cluster behind the face in m,
        log(1 + pt), log(1 + E), sqrt(E) / 10 (the resolution of a calorimeter goes with sqrt(E)).
    """
    point, position = _points(x, radius, half_length, columns)
    kind = x[..., 0:1]
    distance = ops.sqrt(ops.sum(point * point, axis=-1, keepdims=True))
    direction = point / ops.maximum(distance, 1e-3)
    transverse = ops.sqrt(ops.sum(direction[..., :2] * direction[..., :2], axis=-1, keepdims=True))
    azimuth = direction[..., :2] / ops.maximum(transverse, 1e-6)
    length = ops.sqrt(ops.sum(position * position, axis=-1, keepdims=True))
    depth = ops.where(kind == ELEMTYPE_CLUSTER, 1e-3 * (length - distance), ops.zeros_like(length))
    pt, energy = (ops.maximum(x[..., COMMON[n] : COMMON[n] + 1], 0.0) for n in ("pt", "energy"))
    # log(1 + v) and not log1p: the latter does not export to ONNX.
    parts = [
        direction,
        1e-3 * point,
        *_octaves(azimuth[..., 0:1], azimuth[..., 1:2]),
        *_octaves(direction[..., 2:3], transverse),
        depth,
        ops.log(1.0 + pt),
        ops.log(1.0 + energy),
        0.1 * ops.sqrt(energy),
    ]
    return _finite(ops.concatenate(parts, axis=-1))
