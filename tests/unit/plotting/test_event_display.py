import numpy as np
import pytest

from mlpf.config.detector import CLIC
from mlpf.physics.features import PARTICLE_COLUMNS
from mlpf.physics.schemas import SCHEMAS
from mlpf.plotting.event_display import EventView, event_display, helix_points
from mlpf.plotting.style import COLORS
from mlpf.simulation.clic.helix import Helix


def rows(columns, count, **values):
    table = np.zeros((count, len(columns)), np.float32)
    table[:, columns.names.index("cos_phi")] = 1
    for name, value in values.items():
        table[:, columns.index(name.replace("__", "."))] = value
    return table


def view(schema_name, elements, particles=None):
    if particles is None:
        particles = rows(PARTICLE_COLUMNS, 3, cls=[1, 3, 2], energy=[1, 10, 100], pt=1, eta=[0, 1, -1])
    return EventView(
        "a title",
        SCHEMAS[schema_name],
        elements,
        {"gen": particles, "cand": particles[:2]},
        "targets",
        CLIC.face_mm,
    )


def clic_view(omega=1e-4):
    track, cluster = (kind.features for kind in SCHEMAS["clic"].kinds)
    elements = {
        "track": rows(track, 2, p=3.0, pt=3.0, omega=omega, tanLambda=0.5),
        "cluster": rows(
            cluster,
            3,
            energy=[1, 2, 3],
            energy_ecal=[1, 0, 0],
            energy_hcal=[0, 2, 0],
            energy_other=[0, 0, 3],
            position__x=[1600, 2000, 5000],
        ),
    }
    return view("clic", elements)


def test_tracks_follow_the_helices_of_the_simulation(rng):
    n = 50
    d0, z0 = rng.normal(0, 5, n), rng.normal(0, 5, n)
    phi, tan_lambda = rng.uniform(-np.pi, np.pi, n), rng.normal(0, 1, n)
    omega = rng.choice([-1, 1], n) * 10 ** rng.uniform(-5, -3.2, n)
    x, y, z = helix_points(d0, z0, phi, omega, tan_lambda, CLIC.face_mm)
    start = -d0 * np.sin(phi), d0 * np.cos(phi), z0
    helix = Helix(*start, phi, 1 / np.abs(omega), tan_lambda, np.sign(omega))
    path = np.linspace(0, 1, len(x))[:, None] * np.minimum(4000.0, 2 * np.pi / np.abs(omega))
    expected = helix.at(path * np.abs(omega))
    inside = np.isfinite(x)
    assert inside[0].all()
    for found, right in zip((x, y, z), expected, strict=False):
        np.testing.assert_allclose(found[inside], right[inside], atol=1e-6)


@pytest.mark.parametrize(("radius", "half_length"), [CLIC.face_mm, (1800.0, 2100.0)])
def test_tracks_end_where_they_first_meet_the_face(radius, half_length):
    omega, tan_lambda = np.array([1e-4, 1e-4, 3e-3]), np.array([0.1, 10.0, 0.01])
    x, y, z = helix_points(np.zeros(3), np.zeros(3), np.zeros(3), omega, tan_lambda, (radius, half_length))
    last = np.isfinite(x).sum(axis=0) - 1
    step = 4000 / (len(x) - 1)
    assert 0 <= radius - np.hypot(x, y)[last[0], 0] < step
    assert 0 <= half_length - z[last[1], 1] < 10 * step
    # 333 mm of radius: curls up inside and is followed for one turn
    assert last[2] == len(x) - 1
    assert np.hypot(x, y)[-1, 2] < 1e-6


def test_a_track_that_would_come_back_is_not_drawn_again():
    x, y, _ = helix_points(*np.array([[0.0], [0.0], [0.0], [1 / 780], [0.0]]), CLIC.face_mm)
    drawn = np.isfinite(x[:, 0])
    assert np.all(np.diff(np.hypot(x, y)[drawn, 0]) > 0)
    assert 0 < drawn.sum() < len(x)
    assert not drawn[-1]


def test_tracks_stay_on_the_side_they_start_on():
    seen = clic_view()
    columns = SCHEMAS["clic"].kinds[0].features
    seen.elements["track"][:, columns.index("sin_phi")] = [0.1, -0.1]
    along = event_display(seen).axes[3]
    up, down = (line.get_ydata() for line in along.lines[:2])
    assert np.nanmin(up) >= 0
    assert np.nanmax(down) <= 0


def test_straight_tracks_and_positive_charges_turn_clockwise():
    omega = np.array([0.0, 1e-4, -1e-4])
    x, y, _ = helix_points(np.zeros(3), np.zeros(3), np.zeros(3), omega, np.zeros(3), CLIC.face_mm)
    assert np.nanmax(np.abs(y[:, 0])) == 0
    assert np.nanmax(x[:, 0]) > 1480
    assert np.nanmin(y[:, 1]) < -50
    assert np.nanmax(y[:, 2]) > 50


def test_panels_have_units_and_show_all_elements():
    figure = event_display(clic_view())
    labels = [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes]
    assert labels[0] == labels[1] == (r"pseudorapidity $\eta$", r"azimuth $\phi$ [rad]")
    assert labels[2:] == [("x [mm]", "y [mm]"), ("z [mm]", "r, negative where y < 0 [mm]")]
    directions, particles, across, along = figure.axes
    assert [len(c.get_offsets()) for c in directions.collections] == [3, 2]
    assert [len(c.get_offsets()) for c in particles.collections] == [3, 2]
    np.testing.assert_allclose(across.collections[0].get_offsets()[:, 0], [1600, 2000, 5000])
    np.testing.assert_allclose(along.collections[0].get_offsets()[:, 1], [1600, 2000, 5000])


def test_systems_have_colours_and_area_grows_with_energy():
    directions = event_display(clic_view()).axes[0]
    clusters = directions.collections[0]
    assert len(np.unique(clusters.get_facecolors(), axis=0)) == 3
    assert np.all(np.diff(clusters.get_sizes()) > 0)
    texts = [text.get_text() for text in directions.get_legend().get_texts()]
    assert texts == ["cluster, ECAL", "cluster, HCAL", "cluster, muon system", "track"]


def test_spokes_point_to_the_particles_and_grow_with_energy():
    along = event_display(clic_view()).axes[3]
    black = [line for line in along.lines if line.get_color() == COLORS["gen"]]
    spokes = [line for line in black if len(line.get_xdata()) == 2]  # the others are the face
    z, r = (np.array([getattr(line, f"get_{c}data")() for line in spokes]) for c in "xy")
    np.testing.assert_allclose(np.arcsinh(z / r), np.array([0, 1, -1])[:, None] * [1, 1], atol=1e-6)
    length = np.hypot(z[:, 1] - z[:, 0], r[:, 1] - r[:, 0])
    np.testing.assert_allclose(length / length[0], [1, 2, 3], rtol=1e-5)


@pytest.mark.parametrize("schema", ["clic", "clic_hits", "delphes"])
def test_an_event_without_anything_can_be_drawn(schema):
    elements = {k.name: np.zeros((0, len(k.features)), np.float32) for k in SCHEMAS[schema].kinds}
    figure = event_display(view(schema, elements, np.zeros((0, len(PARTICLE_COLUMNS)), np.float32)))
    figure.draw_without_rendering()
    assert figure.get_suptitle() == "a title"


def test_towers_have_directions_only_and_transverse_sizes():
    track, tower = (kind.features for kind in SCHEMAS["delphes"].kinds)
    elements = {
        "track": rows(track, 2, pt=[1, 5], p=[9, 5]),
        "tower": rows(tower, 2, et=[1, 2], energy=[100, 2]),
    }
    figure = event_display(view("delphes", elements))
    assert len(figure.axes) == 2
    towers, tracks = figure.axes[0].collections
    assert np.diff(towers.get_sizes()) > 0
    assert np.diff(tracks.get_sizes()) > 0


def test_hits_are_coloured_by_subdetector():
    track, hit = (kind.features for kind in SCHEMAS["clic_hits"].kinds)
    elements = {
        "track": rows(track, 1, p=1.0, omega=1e-3),
        "hit": rows(hit, 4, energy=1.0, subdetector=[0, 1, 2, 1], position__x=1600),
    }
    hits = event_display(view("clic_hits", elements)).axes[0].collections[0]
    colors = hits.get_facecolors()
    assert (colors[1] == colors[3]).all()
    assert len(np.unique(colors, axis=0)) == 3
