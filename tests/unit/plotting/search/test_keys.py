import pytest

from mlpf.config.search.schema import ParameterSpace
from mlpf.plotting.search.keys import importance_bars, parallel_coordinates, short_names
from mlpf.plotting.search.progress import BEST_COLOR
from mlpf.plotting.style import style

SPACE = {
    name: ParameterSpace.model_validate(space)
    for name, space in {
        "setup.lr": {"float": [1e-4, 1.0], "log": True},
        "parameters.layers": {"int": [1, 5]},
        "setup.optimizer": {"choice": ["adam", "adamw", "lion"]},
        "optimizer.adamw.weight_decay": {"float": [0, 0.2], "when": {"setup.optimizer": "adamw"}},
        "parameters.bin": {"choice": [[1, 2], None]},
        "parameters.flag": {"boolean": True},
    }.items()
}


def row(run, objective, **values):
    full = {
        "setup.lr": 1e-2,
        "parameters.layers": 2,
        "setup.optimizer": "adam",
        "parameters.bin": None,
        "parameters.flag": True,
    } | {key.replace("__", "."): value for key, value in values.items()}
    return {"run": run, "objective": objective, "values": full, "epochs": 3}


def test_names_are_as_short_as_they_can_be():
    names = short_names(["setup.lr", "parameters.id.dim", "parameters.reg.dim", "lr"])
    assert list(names.values()) == ["setup.lr", "id.dim", "reg.dim", "lr"]


def test_lines_pass_the_axes_at_the_values():
    best = row("b", 1.0, setup__optimizer="adamw", optimizer__adamw__weight_decay=0.05)
    rows = [row("a", 3.0), best, row("c", 2.0)]
    with style():
        figure = parallel_coordinates(rows, SPACE, best, "val_loss", "a title")
        figure.draw_without_rendering()
    (axes,) = figure.axes
    (line,) = [line for line in axes.get_lines() if line.get_color() == BEST_COLOR]
    # log: half way; (2 - 1) / (5 - 1); second of three; 0.05 / 0.2; second of two; true; smallest of all
    assert line.get_ydata().tolist() == pytest.approx([0.5, 0.25, 0.5, 0.25, 1.0, 1.0, 0.0])
    labels = [text.get_text() for text in axes.get_xticklabels()]
    assert labels == ["lr", "layers", "optimizer", "weight_decay", "bin", "flag", "val_loss\nof 3 epochs"]
    texts = [text.get_text() for text in axes.texts]
    assert {"adam", "lion", "0.0001", "0.01", "not used", "[1, 2]", "None", "true", "false"} <= set(texts)


def test_configurations_without_a_key_pass_below_its_axis():
    (axes,) = parallel_coordinates([row("a", 1.0), row("b", 2.0)], SPACE, None, "v", "t").axes
    curves = [line.get_ydata() for line in axes.get_lines() if len(line.get_ydata()) == len(SPACE) + 1]
    assert len(curves) == 2
    assert all(curve[3] < -0.05 for curve in curves)


def test_a_best_of_another_rung_is_drawn_without_objective():
    best = row("z", 0.5)
    (axes,) = parallel_coordinates([row("a", 1.0)], SPACE, best, "v", "t").axes
    (line,) = [line for line in axes.get_lines() if line.get_color() == BEST_COLOR]
    assert len(line.get_ydata()) == len(SPACE)


def test_bars_have_means_and_errors_the_first_on_top():
    keys = [
        {"key": "setup.lr", "mean": 0.6, "std": 0.1},
        {"key": "parameters.layers", "mean": 0.0, "std": 0.02},
    ]
    (axes,) = importance_bars(keys, "a title").axes
    widths = {round(bar.get_y() + bar.get_height() / 2): bar.get_width() for bar in axes.patches}
    assert widths == {1: 0.6, 0: 0.0}
    segments = axes.collections[0].get_segments()
    assert segments[0][:, 0].tolist() == pytest.approx([0.5, 0.7])
    assert [t.get_text() for t in axes.get_yticklabels()] == ["lr", "layers"]
