import pytest

from mlpf.plotting.lr_range import range_figure

RESULT = {
    "rates": [1e-4, 1e-3, 1e-2],
    "losses": [3.0, 1.0, 9.0],
    "smoothed": [3.0, 2.0, 4.0],
    "suggestions": {"steepest": 1e-3, "minimum": 2e-2, "minimum_over_10": 2e-3},
}


def test_curves_and_suggestions_are_drawn():
    (axes,) = range_figure(RESULT, "t").axes
    loss, smoothed, *lines = axes.get_lines()

    assert loss.get_ydata().tolist() == RESULT["losses"]
    assert smoothed.get_xydata().tolist() == [[1e-4, 3.0], [1e-3, 2.0], [1e-2, 4.0]]
    assert [line.get_xdata()[0] for line in lines] == [1e-3, 2e-3]
    assert axes.get_xscale() == "log"
    assert axes.get_ylim() == pytest.approx((1.4, 5.6))


def test_nothing_to_draw_is_an_empty_figure():
    empty = {"rates": [], "losses": [], "smoothed": [], "suggestions": dict.fromkeys(RESULT["suggestions"])}
    (axes,) = range_figure(empty, "t").axes

    assert len(axes.get_lines()) == 2
