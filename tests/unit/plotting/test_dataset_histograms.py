import numpy as np

from mlpf.data.dataset.checks import NUM_BINS, choose_binning
from mlpf.physics.features import PARTICLE_COLUMNS
from mlpf.plotting.dataset_histograms import column_distributions


def draw(rng, **splits):
    sample = rng.exponential(1.0, (5000, len(PARTICLE_COLUMNS))).astype(np.float32)
    sample[:, PARTICLE_COLUMNS.index("sin_phi")] = rng.uniform(-1, 1, 5000)
    bins = choose_binning(PARTICLE_COLUMNS, sample)
    counts = {name: bins.count(sample[:rows]) for name, rows in splits.items()}
    return column_distributions("gen particles", bins, counts), counts


def test_one_panel_per_column_with_unit_and_one_line_per_split(rng):
    figure, counts = draw(rng, train=5000, test=1000, valid=0)
    panels = [axes for axes in figure.axes if axes.axison]
    labels = [axes.get_xlabel() for axes in panels]
    assert labels == ["cls", "charge [e]", "pt [GeV]", "eta", "sin_phi", "cos_phi", "energy [GeV]"]
    for i, panel in enumerate(panels):
        lines = {patch.get_label(): patch.get_data().values for patch in panel.patches}
        assert lines.keys() == {"train", "test"}
        np.testing.assert_allclose(lines["test"], counts["test"][i, :NUM_BINS] / 1000)
    assert "train 5000, test 1000;" in figure.get_suptitle()


def test_axis_is_logarithmic_only_where_it_helps(rng):
    figure, _ = draw(rng, train=5000)
    scales = dict(zip(PARTICLE_COLUMNS.names, (axes.get_yscale() for axes in figure.axes), strict=False))
    assert scales["pt"] == "log"
    assert scales["sin_phi"] == "linear"


def test_nothing_to_draw_is_an_empty_figure(rng):
    figure, _ = draw(rng, train=0)
    assert "rows none" in figure.get_suptitle()
