"""Three views of one event: directions, across the beam, and along the beam."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mlpf.physics.features import PARTICLE_COLUMNS, Columns
from mlpf.physics.methods import BASELINE, GEN
from mlpf.physics.particles import CLASSES
from mlpf.physics.schemas import EventSchema
from mlpf.plotting.style import COLORS

Array = npt.NDArray[np.floating]
# Transverse length in mm up to which a track that never meets the face is followed.
LONGEST_TURN = 4000.0
POINTS_PER_TRACK = 200
# Particles are spokes on rings around the elements; radii and lengths relative to those of the elements.
RINGS = {GEN: 1.1, BASELINE: 1.4}
SPOKE_PER_DECADE = 0.08
LEAST_ENERGY = 0.1
# Fraction of the elements inside the rings; single hits far out in the muon system are ignored.
ENCLOSED = 0.98
LEAST_RADIUS = 2400.0
# Total area of all markers of one kind, and largest area of one marker, in points squared.
TOTAL_AREA = 4000.0
LARGEST_AREA = 600.0
SYSTEMS = ("ECAL", "HCAL", "muon system")
SYSTEM_COLORS = {"ECAL": "#3f90da", "HCAL": "#bd1f01", "muon system": "#832db6", "tower": "#3f90da"}
TRACK_COLOR = "#717581"
CLASS_COLORS = dict(
    zip(
        (c.name for c in CLASSES),
        ("#94a4a2", "#bd1f01", "#ffa90e", "#3f90da", "#832db6", "#a96b59"),
        strict=True,
    )
)


@dataclass(frozen=True)
class EventView:
    """Contents of a display.

    Attributes:
        title: title of the figure.
        schema: schema of the event.
        elements: name of a kind -> its rows [n, F].
        particles: ``gen`` and ``cand`` -> rows [n, 7] of ``PARTICLE_COLUMNS``; ``gen`` are generator
            particles, or targets where there is no such list.
        gen_name: what ``gen`` is.
        face_mm: radius and half length of the calorimeter face; (0, 0) where elements have no positions.
    """

    title: str
    schema: EventSchema
    elements: Mapping[str, Array]
    particles: Mapping[str, Array]
    gen_name: str
    face_mm: tuple[float, float] = (0.0, 0.0)


def helix_points(
    d0: Array,
    z0: Array,
    phi: Array,
    omega: Array,
    tan_lambda: Array,
    face_mm: tuple[float, float],
    num_points: int = POINTS_PER_TRACK,
) -> tuple[Array, Array, Array]:
    """Follow tracks from their perigee to the calorimeter face, or one turn if they curl up before.

    Args:
        d0: transverse impact parameter [n], mm.
        z0: longitudinal impact parameter [n], mm.
        phi: azimuth at the perigee [n], rad.
        omega: signed curvature [n], 1/mm; positive turns clockwise seen against the z axis.
        tan_lambda: tangent of the dip angle [n].
        face_mm: radius and half length of the calorimeter face.
        num_points: points P of each track.

    Returns:
        x, y, z [P, n] in mm; NaN beyond the face.
    """
    d0, z0, phi, omega, tan_lambda = (np.asarray(v, float) for v in (d0, z0, phi, omega, tan_lambda))
    radius, half_length = face_mm
    longest = np.minimum(max(LONGEST_TURN, 2 * radius), 2 * np.pi / np.maximum(np.abs(omega), 1e-12))
    path = np.linspace(0, 1, num_points)[:, np.newaxis] * longest
    # Chord and its direction: exact, also for straight tracks.
    half_turn = omega * path / 2
    chord, direction = path * np.sinc(half_turn / np.pi), phi - half_turn
    x = -d0 * np.sin(phi) + chord * np.cos(direction)
    y = d0 * np.cos(phi) + chord * np.sin(direction)
    z = z0 + path * tan_lambda
    outside = (np.hypot(x, y) > radius) | (np.abs(z) > half_length)
    left = np.logical_or.accumulate(outside, axis=0)
    return tuple(np.where(left, np.nan, v) for v in (x, y, z))  # type: ignore[return-value]  # three arrays, as said


def event_display(view: EventView) -> Figure:
    """Draw elements and particles by direction and, where positions are known, across and along the beam."""
    if view.schema.has_positions:
        figure = Figure(figsize=(13, 12), layout="constrained")
        (directions, particles), (across, along) = figure.subplots(2, 2)
        _draw_across(across, view)
        _draw_along(along, view)
    else:
        figure = Figure(figsize=(13, 6), layout="constrained")
        directions, particles = figure.subplots(1, 2)
    figure.suptitle(view.title, x=0.01, ha="left", fontsize=11)
    _draw_elements(directions, view)
    _draw_particles(particles, view)
    for axes in (directions, particles):
        axes.set_xlabel(r"pseudorapidity $\eta$")
        axes.set_ylabel(r"azimuth $\phi$ [rad]")
        axes.set_xlim(*_eta_range(view))
        axes.set_ylim(-np.pi, np.pi)
    return figure


def _column(rows: Array, columns: Columns, name: str) -> Array:
    return rows[:, columns.index(name)]


def _direction(rows: Array, columns: Columns) -> tuple[Array, Array]:
    phi = np.arctan2(_column(rows, columns, "sin_phi"), _column(rows, columns, "cos_phi"))
    return _column(rows, columns, "eta"), phi


def _area(size: Array, least: float = 4.0) -> Array:
    """Area of a marker in points squared, proportional to its fraction of the event within limits."""
    if not len(size):
        return size
    scale = min(TOTAL_AREA / max(float(size.sum()), 1e-9), LARGEST_AREA / max(float(size.max()), 1e-9))
    return np.maximum(scale * size, min(least, TOTAL_AREA / len(size)))


def _size_names(schema: EventSchema) -> tuple[str, str, str]:
    """Columns of tracks, other elements and particles for the area of their markers.

    Schemas without positions are of proton beams, where most energy is along the beam: these use transverse
    columns.
    """
    return ("p", "energy", "energy") if schema.has_positions else ("pt", "et", "pt")


def _eta_range(view: EventView) -> tuple[float, float]:
    """Show all elements, but not generator particles along the beam pipe, which would shrink the rest."""
    eta = [_column(view.elements[k.name], k.features, "eta") for k in view.schema.kinds]
    reach = max([1.0, *(float(np.abs(values).max()) for values in eta if len(values))])
    return -1.1 * reach, 1.1 * reach


def _systems(rows: Array, columns: Columns) -> npt.NDArray[np.int64]:
    """Return the part of the calorimeter (index in ``SYSTEMS``) with most of an element."""
    if "subdetector" in columns.names:
        return np.clip(_column(rows, columns, "subdetector"), 0, len(SYSTEMS) - 1).astype(np.int64)
    parts = [_column(rows, columns, name) for name in ("energy_ecal", "energy_hcal", "energy_other")]
    return np.argmax(np.stack(parts, axis=1), axis=1)


def _colors(view: EventView) -> list[str]:
    kind = view.schema.kinds[-1]
    rows = view.elements[kind.name]
    if not view.schema.has_positions:
        return [SYSTEM_COLORS["tower"]] * len(rows)
    return [SYSTEM_COLORS[SYSTEMS[i]] for i in _systems(rows, kind.features)]


def _marker(color: str, label: str, marker: str = "o", filled: bool = True) -> Line2D:
    face = color if filled else "none"
    return Line2D([], [], linestyle="", marker=marker, color=color, markerfacecolor=face, label=label)


def _element_legend(axes: Axes, view: EventView) -> None:
    last = view.schema.kinds[-1].name
    present = dict.fromkeys(_colors(view))
    names = [last] if not view.schema.has_positions else SYSTEMS
    handles = [
        _marker(SYSTEM_COLORS[name], f"{last}, {name}" if name != last else last)
        for name in names
        if SYSTEM_COLORS[name] in present
    ]
    axes.legend(
        handles=[*handles, _marker(TRACK_COLOR, "track", "^", filled=False)],
        loc="upper right",
        frameon=True,
        framealpha=0.7,
    )


def _draw_elements(axes: Axes, view: EventView) -> None:
    tracks, others = view.schema.kinds
    of_track, of_other, _ = _size_names(view.schema)
    rows = view.elements[others.name]
    size = _area(_column(rows, others.features, of_other))
    axes.scatter(*_direction(rows, others.features), size, _colors(view), alpha=0.5, linewidths=0)
    rows = view.elements[tracks.name]
    axes.scatter(
        *_direction(rows, tracks.features),
        _area(_column(rows, tracks.features, of_track), 10.0),
        facecolors="none",
        edgecolors=TRACK_COLOR,
        marker="^",
        linewidths=1.0,
    )
    axes.set_title(f"elements: area ~ {of_other} of {others.name}s, {of_track} of tracks", loc="left")
    _element_legend(axes, view)


def _draw_particles(axes: Axes, view: EventView) -> None:
    quantity = _size_names(view.schema)[2]
    for name, marker in ((GEN, "o"), (BASELINE, "x")):
        rows = view.particles[name]
        size = _column(rows, PARTICLE_COLUMNS, quantity)
        names = [CLASSES[int(c)].name for c in _column(rows, PARTICLE_COLUMNS, "cls")]
        colors = [CLASS_COLORS[n] for n in names]
        eta, phi = _direction(rows, PARTICLE_COLUMNS)
        axes.scatter(
            eta,
            phi,
            s=_area(size, 8.0),
            facecolors=colors if marker == "x" else "none",
            edgecolors=None if marker == "x" else colors,
            marker=marker,
            linewidths=1.0,
        )
    axes.set_title(f"{view.gen_name} and candidates: area ~ {quantity}", loc="left")
    handles = [_marker("black", view.gen_name, filled=False), _marker("black", "candidate", "x")]
    handles += [_marker(CLASS_COLORS[c.name], c.name, "s") for c in CLASSES[1:]]
    axes.legend(handles=handles, loc="upper right", frameon=True, framealpha=0.7)


def _draw_across(axes: Axes, view: EventView) -> None:
    x, y, _ = _track_points(view)
    axes.plot(x, y, color=TRACK_COLOR, linewidth=0.8)
    x, y, _ = _positions(view)
    _draw_places(axes, x, y, view)
    turn = np.linspace(0, 2 * np.pi, 100)
    face_radius = view.face_mm[0]
    axes.plot(face_radius * np.cos(turn), face_radius * np.sin(turn), color="black", linewidth=0.6)
    radius = _enclosing(np.hypot(x, y))
    for name, rows in view.particles.items():
        phi = _direction(rows, PARTICLE_COLUMNS)[1]
        _draw_spokes(axes, name, rows, radius * np.cos(phi), radius * np.sin(phi))
    axes.set_title("across the beam; spokes: log energy", loc="left")
    _finish(axes, "x [mm]", "y [mm]", radius, view)


def _draw_along(axes: Axes, view: EventView) -> None:
    x, y, z = _track_points(view)
    # A track is drawn on the side of its start, because it would jump at y = 0.
    side = np.where(_direction(view.elements["track"], view.schema.kinds[0].features)[1] < 0, -1, 1)
    axes.plot(z, side * np.hypot(x, y), color=TRACK_COLOR, linewidth=0.8)
    x, y, z = _positions(view)
    _draw_places(axes, z, np.where(y < 0, -1, 1) * np.hypot(x, y), view)
    corner_z, corner_r = np.array([-1, 1, 1, -1, -1]), np.array([-1, -1, 1, 1, -1])
    face_radius, face_half_length = view.face_mm
    axes.plot(face_half_length * corner_z, face_radius * corner_r, color="black", linewidth=0.6)
    radius = _enclosing(np.sqrt(x * x + y * y + z * z))
    for name, rows in view.particles.items():
        eta, phi = _direction(rows, PARTICLE_COLUMNS)
        side = np.where(phi < 0, -1, 1)
        _draw_spokes(axes, name, rows, radius * np.tanh(eta), radius * side / np.cosh(eta))
    axes.set_title("along the beam; spokes: log energy", loc="left")
    _finish(axes, "z [mm]", "r, negative where y < 0 [mm]", radius, view)


def _track_points(view: EventView) -> tuple[Array, Array, Array]:
    columns = view.schema.kinds[0].features
    rows = view.elements["track"]
    phi = _direction(rows, columns)[1]
    d0, z0, omega, tan_lambda = (_column(rows, columns, n) for n in ("D0", "Z0", "omega", "tanLambda"))
    return helix_points(d0, z0, phi, omega, tan_lambda, view.face_mm)


def _positions(view: EventView) -> tuple[Array, Array, Array]:
    kind = view.schema.kinds[-1]
    x, y, z = (_column(view.elements[kind.name], kind.features, f"position.{c}") for c in "xyz")
    return x, y, z


def _draw_places(axes: Axes, horizontal: Array, vertical: Array, view: EventView) -> None:
    kind = view.schema.kinds[-1]
    energy = _column(view.elements[kind.name], kind.features, "energy")
    axes.scatter(horizontal, vertical, s=_area(energy), c=_colors(view), alpha=0.5, linewidths=0)


def _enclosing(distance: Array) -> float:
    """Return the radius of a circle around most elements."""
    return max(LEAST_RADIUS, float(np.quantile(distance, ENCLOSED))) if len(distance) else LEAST_RADIUS


def _draw_spokes(axes: Axes, name: str, rows: Array, horizontal: Array, vertical: Array) -> None:
    """Draw particles around the elements, in their direction, longer with energy."""
    energy = np.maximum(_column(rows, PARTICLE_COLUMNS, "energy"), LEAST_ENERGY)
    start = np.full(len(rows), RINGS[name])
    ends = np.stack([start, start + SPOKE_PER_DECADE * np.log10(energy / LEAST_ENERGY)])
    axes.plot(ends * horizontal, ends * vertical, color=COLORS[name], linewidth=1.0)


def _finish(axes: Axes, xlabel: str, ylabel: str, radius: float, view: EventView) -> None:
    axes.set_aspect("equal")
    reach = radius * (RINGS[BASELINE] + 5 * SPOKE_PER_DECADE)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    handles = [
        Line2D([], [], color=COLORS[GEN], label=f"{view.gen_name}, inner"),
        Line2D([], [], color=COLORS[BASELINE], label="candidates, outer"),
    ]
    axes.legend(handles=handles, loc="lower right", fontsize=8)
