import pytest

from mlpf.plotting.history import loss_curve, loss_names, physics_curves, physics_names, range_figure

HISTORY = [
    {"epoch": e, "loss": 100 / e, "val_loss": 90 / e, "cls_loss": 1.0, "seconds": 2.0, "val_seconds": 1.0}
    for e in (1, 2, 3)
]


def test_losses_are_those_recorded_for_training_and_validation():
    assert loss_names(HISTORY) == ["loss"]
    assert loss_names([]) == []


def test_curves_hold_every_epoch():
    (axes,) = loss_curve(HISTORY, "loss").axes
    training, validation = axes.get_lines()
    assert training.get_xydata().tolist() == [[1, 100], [2, 50], [3, 100 / 3]]
    assert validation.get_ydata().tolist() == [90, 45, 30]
    assert axes.get_xlabel() == "epoch"


def test_epochs_without_the_loss_are_left_out():
    (axes,) = loss_curve([{"epoch": 1, "loss": 2.0}, {"epoch": 2}], "loss").axes
    assert [len(line.get_xydata()) for line in axes.get_lines()] == [1, 0]


PHYSICS = [
    {"epoch": 1, "val_jet_response_median": 0.9},
    {"epoch": 2},
    {"epoch": 3, "val_jet_response_median": 0.98, "val_jet_response_iqr": 0.08},
]
REFERENCE = {
    "cand": {"jet_response_iqr": 0.06, "jet_response_median": 0.99},
    "oracle": {"jet_response_iqr": 0.04},
}


def test_physics_is_drawn_where_it_was_measured():
    assert physics_names(PHYSICS) == ["validation_jets"]
    assert physics_names(HISTORY) == []


def test_physics_has_the_baseline_as_a_line():
    width, median = physics_curves(PHYSICS, REFERENCE, "validation_jets").axes
    network, baseline, oracle = width.get_lines()
    assert network.get_xydata().tolist() == [[3, 0.08]]
    assert (list(baseline.get_ydata()), list(oracle.get_ydata())) == ([0.06, 0.06], [0.04, 0.04])
    assert [text.get_text() for text in width.get_legend().get_texts()] == ["network", "baseline", "oracle"]
    assert median.get_lines()[0].get_xydata().tolist() == [[1, 0.9], [3, 0.98]]


def test_physics_of_a_run_without_a_reference_has_no_lines():
    width, _ = physics_curves(PHYSICS, {}, "validation_jets").axes
    assert len(width.get_lines()) == 1


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
