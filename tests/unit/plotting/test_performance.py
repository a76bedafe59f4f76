import io

import numpy as np
import pytest

from mlpf.evaluation.metrics import JET_PT_EDGES
from mlpf.plotting import performance
from mlpf.plotting.style import fix_layout, style

RNG = np.random.default_rng(1)
EMPTY = np.empty(0)
BIN = {
    "median": 1.0,
    "median_uncertainty": 0.01,
    "iqr_over_median": 0.1,
    "iqr_over_median_uncertainty": None,
}
UNDEFINED = dict.fromkeys(BIN, float("nan"))
NUM_BINS = len(JET_PT_EDGES) - 1
VALUES = (np.full(NUM_BINS, 0.5), np.full(NUM_BINS, np.nan))


def response(values):
    return performance.response({"pred": values, "cand": values}, "jet $p_T$", "d", (0.5, 1.5))


def binned(bins):
    return performance.binned_response({"pred": bins, "cand": bins}, JET_PT_EDGES, "d")


def sums(values):
    both = (values.astype(int), values)
    return performance.class_sums({"gen": both, "pred": both, "cand": both}, "photon", "d")


def confusion(counts):
    return performance.confusion({"pred": counts, "cand": counts}, ["none", "photon"], "d")


FIGURES = {
    "response": lambda: response(RNG.normal(1, 0.1, 100)),
    "response of nothing": lambda: response(EMPTY),
    "binned response": lambda: binned([BIN] * (NUM_BINS - 1) + [UNDEFINED]),
    "sums": lambda: sums(RNG.exponential(20, 50)),
    "sums of nothing": lambda: sums(EMPTY),
    "fractions": lambda: performance.class_fractions(
        {"pred": {"efficiency": VALUES, "fake_rate": VALUES}}, JET_PT_EDGES, "photon", "d"
    ),
    "confusion": lambda: confusion(np.array([[3, 1], [0, 0]])),
    "elements": lambda: performance.num_elements({"all": np.array([3, 4, 90]), "tracks": np.arange(3)}, "d"),
    "no elements": lambda: performance.num_elements({"all": EMPTY.astype(int)}, "d"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figure_renders_and_names_its_axes(name):
    with style():
        figure = FIGURES[name]()
        fix_layout(figure)
        image = io.BytesIO()
        figure.savefig(image, format="png")
    assert image.getvalue().startswith(b"\x89PNG")
    # panels with a common x axis are labelled at the bottom
    assert all(axes.get_ylabel() for axes in figure.axes)
    assert any(axes.get_xlabel() for axes in figure.axes)


def test_quantities_with_a_unit_show_it():
    assert "[GeV]" in binned([BIN] * NUM_BINS).axes[0].get_xlabel()
    assert "[GeV]" in sums(RNG.exponential(20, 50)).axes[3].get_xlabel()


def test_confusion_shows_shares_of_the_target_class():
    texts = [text.get_text() for text in confusion(np.array([[3, 1], [0, 2]])).axes[0].texts]
    assert texts == ["0.75", "0.25", "0.00", "1.00"]


def test_style_is_restored_afterwards():
    import matplotlib as mpl

    before = mpl.rcParams["font.size"]
    with style():
        assert mpl.rcParams["font.size"] == 11
    assert mpl.rcParams["font.size"] == before
