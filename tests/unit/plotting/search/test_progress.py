import numpy as np
import pytest

from mlpf.plotting.search.progress import (
    BEST_COLOR,
    confirmation,
    learning_curves,
    objective_over_cost,
    objective_over_time,
)

HOUR = 3600.0


def row(trial_id, objective, ended, epochs=1, **fields):
    return {
        "trial_id": trial_id,
        "run": trial_id,
        "purpose": "search",
        "status": "failed" if objective is None else "completed",
        "objective": objective,
        "epochs": epochs,
        "started": 0.5 * HOUR,
        "ended": ended,
        "device_hours": 0.5,
        "trained_epochs": epochs,
        "on_gpu": False,
    } | fields


ROWS = [
    row("a", 3.0, 1 * HOUR),
    row("b", 2.0, 2 * HOUR),
    row("c", None, 2.5 * HOUR),
    row("d", 2.5, 3 * HOUR),
    row("e", 1.5, 4 * HOUR, epochs=3, device_hours=2.0, trained_epochs=2),
    row("f", 0.1, 5 * HOUR, epochs=3, purpose="confirm"),
    row("g", None, None, status="running"),
]


def lines(axes):
    return {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}


def test_objectives_lie_at_their_end_in_hours_since_the_first_start():
    (axes,) = objective_over_time(ROWS, "val_loss", "a title").axes
    found = lines(axes)

    assert found["trials of 1 epoch"] == [[0.5, 3.0], [1.5, 2.0], [2.5, 2.5]]
    assert found["trials of 3 epochs"] == found["best, run e"] == [[3.5, 1.5]]
    assert [x for x, _ in found["failed (1)"]] == [2.0]
    steps = [line.get_xydata().tolist() for line in axes.get_lines() if line.get_drawstyle() == "steps-post"]
    assert steps[0] == [[0.5, 3.0], [1.5, 2.0], [2.5, 2.0], [3.5, 2.0]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("time since the first start [h]", "val_loss")


def test_cost_is_the_sum_up_to_each_trial_failed_ones_included():
    hours, epochs = objective_over_cost(ROWS, "val_loss", "a title").axes

    assert lines(hours)["trials of 1 epoch"] == [[0.5, 3.0], [1.0, 2.0], [2.0, 2.5]]
    assert lines(hours)["best, run e"] == [[4.0, 1.5]]
    assert lines(epochs)["trials of 1 epoch"] == [[1, 3.0], [2, 2.0], [4, 2.5]]
    assert lines(epochs)["best, run e"] == [[6, 1.5]]
    assert hours.get_xlabel() == "cost so far [core-hours]"
    on_gpu = objective_over_cost([row("a", 1.0, 1.0, on_gpu=True)], "val_loss", "a title")
    assert on_gpu.axes[0].get_xlabel() == "cost so far [GPU-hours]"


def test_a_trial_that_diverged_is_drawn_at_the_edge():
    rows = [row(f"{i}", 1 + 0.1 * i, (1 + i) * HOUR) for i in range(8)] + [row("x", 1e6, 9 * HOUR)]
    (axes,) = objective_over_time(rows, "val_loss", "a title").axes

    assert axes.get_ylim()[1] < 2
    assert lines(axes)["1 above the axis"] == [[8.5, pytest.approx(1.7)]]
    assert len(lines(axes)["trials of 1 epoch"]) == 8


@pytest.mark.parametrize("rows", [[], [row("a", None, 1.0)], [row("a", 0.0, 1.0)], [row("a", None, None)]])
def test_searches_with_little_to_show_are_drawn(rows):
    for figure in (objective_over_time(rows, "v", "t"), objective_over_cost(rows, "v", "t")):
        figure.draw_without_rendering()


def test_curves_have_the_best_on_top():
    curves = {
        "a": [(1, 3.0)],
        "b": [(1, 2.5), (2, 2.0), (3, 1.0)],
        "c": [(1, 2.6), (2, 2.2), (3, 1.5)],
        "d": [],
    }
    (axes,) = learning_curves(curves, {"a": 1, "b": 3, "c": 3, "d": 9}, "b", "val_loss", "a title").axes
    thick = [line for line in axes.get_lines() if line.get_color() == BEST_COLOR]

    assert thick[0].get_xydata().tolist() == [[1, 2.5], [2, 2.0], [3, 1.0]]
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["trials of 1 epoch", "trials of 3 epochs", "best, run b"]
    assert axes.get_xlabel() == "epoch"


def gain(run, chosen, default):
    pairs = [default[seed] - chosen[seed] for seed in chosen.keys() & default.keys()]
    n = len(pairs)
    mean = {"mean": float(np.mean(pairs)) if n else np.nan, "error": 0.01 if n > 1 else np.nan, "n": n}
    return {
        "run": run, "by_seed": chosen, "default_by_seed": default, "gain": mean, "relative": mean,
        "configuration": {"mean": 0.5, "error": 0.1, "n": n}, "default": {"mean": 1.0, "error": 0.1, "n": n},
    }  # fmt: skip


def test_confirmation_has_a_line_per_seed_and_the_gain_of_each_configuration():
    default = {2: 1.0, 3: 1.2}
    gains = [gain("a", {2: 0.8, 3: 1.0}, default), gain("b", {2: 0.9}, default), gain("c", {}, default)]
    values, differences = confirmation(gains, "val_loss", "a title").axes

    assert lines(values)["seed 2"] == [[0, 1.0], [1, 0.8], [2, 0.9]]
    assert lines(values)["seed 3"] == [[0, 1.2], [1, 1.0]]
    assert [t.get_text() for t in values.get_xticklabels()] == ["default", "run a", "run b", "run c"]
    texts = [text.get_text() for text in differences.texts]
    assert texts == ["(20.0 ± 1.0) %\n2 pairs", "(10) %\n1 pair"]
    assert differences.get_ylabel() == "gain over the default [%]"


def test_a_curve_that_stopped_early_has_the_colour_of_its_rung():
    curves = {"a": [(1, 3.0), (2, 2.0)], "b": [(1, 2.5), (2, 2.0), (3, 1.0)]}
    (axes,) = learning_curves(curves, {"a": 3, "b": 3}, None, "val_loss", "a title").axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["trials of 3 epochs"]
    assert len({line.get_color() for line in axes.get_lines()}) == 1


def test_equal_objectives_hide_none_above_the_axis():
    rows = [row(f"{i}", 1.0, (1 + i) * HOUR) for i in range(8)] + [row("x", 1.5, 9 * HOUR)]
    (axes,) = objective_over_time(rows, "val_loss", "a title").axes
    assert axes.get_ylim()[1] > 1.5
    assert "1 above the axis" not in lines(axes)
