"""Figures of the searched keys: parallel coordinates of all configurations, importance of each key."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mlpf.config.search.schema import ParameterSpace
from mlpf.physics.methods import BASELINE
from mlpf.plotting.search.progress import BEST_COLOR, Row, num_epochs, wrapped
from mlpf.plotting.style import COLORS, single

# Position of a line at an axis whose key the configuration does not have.
_ABSENT = -0.14
# Lines of one category are spread over this width, so that they do not hide each other.
_SPREAD = 0.05
_MAX_TEXT = 14
_MAX_NAME = 18


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the shortest unique ends of dotted paths."""
    names = {}
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[i:]) for i in range(len(parts) - 1, -1, -1)]
        others = [other for other in keys if other != key]
        names[key] = next((e for e in ends if not any(o == e or o.endswith(f".{e}") for o in others)), key)
    return names


def parallel_coordinates(
    rows: Sequence[Row], space: Mapping[str, ParameterSpace], best: Row | None, objective: str, title: str
) -> Figure:
    """Draw one line per configuration through an axis per searched key and one for the objective.

    Args:
        rows: trials with comparable objectives, as in ``trials.json``.
        space: searched key -> its values.
        best: trial that is drawn on top, None = none.
        objective: its name.
        title: of the figure.
    """
    names = short_names(list(space))
    drawn = [*rows, *([best] if best else [])]
    scales = {key: _Scale.of(key, kind, drawn) for key, kind in space.items()}
    figure = Figure(figsize=(max(8.0, 1.6 * (len(space) + 1) + 1.0), 5.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left")
    values = np.array([row["objective"] for row in rows], np.float64)
    # A diverged trial would use the whole range of colours.
    low, high = (float(v) for v in np.quantile(values, (0.0, 0.9))) if len(rows) else (0.0, 1.0)
    colors = Normalize(low, high if high > low else low + 1.0, clip=True)
    order = sorted(range(len(rows)), key=lambda i: -values[i])
    for i in order:
        line = [scale.place(rows[i]["values"], i) for scale in scales.values()]
        line.append(float(colors(values[i])))
        axes.plot(line, color=colormaps["viridis"](colors(values[i])), linewidth=1.2, alpha=0.75)
    if best is not None:
        line = [scale.place(best["values"], None) for scale in scales.values()]
        mine = [row["objective"] for row in rows if row["run"] == best["run"]]
        line += [float(colors(mine[0]))] if mine else []
        axes.plot(line, color=BEST_COLOR, linewidth=3.0, label=f"best, run {best['run']}", zorder=5)
        axes.legend(loc="upper right", bbox_to_anchor=(1.0, 1.08), borderaxespad=0.0)
    for i, scale in enumerate(scales.values()):
        _draw_axis(axes, i, scale)
    _draw_objective_axis(axes, len(scales), colors)
    label = wrapped(objective, 22)
    if rows:
        label += f"\nof {num_epochs(rows[0]['epochs'])}"
    axes.set_xticks(range(len(scales) + 1), [*(_in_lines(names[key]) for key in space), label])
    axes.set_xlim(-0.4, len(scales) + 0.4)
    axes.set_ylim((_ABSENT if any(s.partial for s in scales.values()) else 0.0) - 0.06, 1.06)
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0, top=False)
    axes.spines[:].set_visible(False)
    return figure


def importance_bars(keys: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Draw the importance of each key with its uncertainty.

    Args:
        keys: ``key``, ``mean`` and ``std`` of each, the most important first.
        title: of the figure.
    """
    figure, axes = single(title, (7.0, 1.6 + 0.4 * len(keys)))
    names = short_names([k["key"] for k in keys])
    places = np.arange(len(keys))[::-1]
    look: dict[str, Any] = {"ecolor": "black", "capsize": 3, "error_kw": {"linewidth": 1.0}}
    axes.barh(
        places, [k["mean"] for k in keys], 0.6, xerr=[k["std"] for k in keys], color=COLORS[BASELINE], **look
    )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(places, [names[k["key"]] for k in keys])
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("importance: share of the spread of ranks (bar: over resamples)")
    return figure


class _Scale:
    """Positions of the values of a key on its axis, from 0 to 1.

    Args:
        key: dotted path.
        ticks: position and text of each.
        numeric: lower bound, upper bound, logarithmic; None = categories, the texts of the ticks.
        partial: some configurations do not have the key.
    """

    def __init__(
        self,
        key: str,
        ticks: list[tuple[float, str]],
        numeric: tuple[float, float, bool] | None = None,
        partial: bool = False,
    ):
        self.key = key
        self.ticks = ticks
        self.partial = partial
        self._numeric = numeric
        self._places = {text: place for place, text in ticks}

    @classmethod
    def of(cls, key: str, space: ParameterSpace, rows: Sequence[Row]) -> "_Scale":
        """Return the scale of a searched key."""
        partial = any(key not in row["values"] for row in rows)
        bounds = space.int_ or space.float_
        if bounds is None:
            given = [False, True] if space.boolean else list(space.choice or [])
            texts = list(dict.fromkeys(_text(value) for value in given))
            step = 1 / max(1, len(texts) - 1)
            return cls(key, [(i * step, text) for i, text in enumerate(texts)], partial=partial)
        low, high = float(bounds[0]), float(bounds[1])
        numeric = (low, high, space.log)
        values = _ticks(low, high, space.log, whole=space.int_ is not None)
        return cls(key, [(_fraction(v, *numeric), f"{v:g}") for v in values], numeric, partial)

    def place(self, values: Mapping[str, Any], number: int | None) -> float:
        """Return the position of the line of a configuration; its number spreads lines of one category."""
        spread = 0.0 if number is None else _SPREAD * ((number * 0.618) % 1 - 0.5)
        if self.key not in values:
            return _ABSENT + spread / 2
        value = values[self.key]
        if self._numeric is None:
            return self._places.get(_text(value), _ABSENT) + spread
        return _fraction(float(value), *self._numeric)


def _fraction(value: float, low: float, high: float, log: bool) -> float:
    if high == low:
        return 0.5
    return math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)


def _ticks(low: float, high: float, log: bool, whole: bool) -> list[float]:
    """Return the values of ticks: round ones inside, and the bounds."""
    if log:
        decades = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
        inside = [10.0**d for d in decades]
    else:
        inside = [float(v) for v in MaxNLocator(4, integer=whole).tick_values(low, high)]
    free = [v for v in inside if 0.12 < _fraction(v, low, high, log) < 0.88] if low < high else []
    return [low, *free, high]


def _text(value: Any) -> str:
    text = {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 1]}…"


def _in_lines(name: str) -> str:
    """Break a dotted name, or a long one, into lines."""
    return name.replace(".", ".\n") if "." in name or len(name) < _MAX_NAME else _halves(name)


def _halves(name: str) -> str:
    """Break a name at the underscore nearest to its middle."""
    places = [i for i, letter in enumerate(name) if letter == "_"]
    if not places:
        return name
    middle = min(places, key=lambda i: abs(i - len(name) / 2)) + 1
    return f"{name[:middle]}\n{name[middle:]}"


def _draw_axis(axes: Axes, x: int, scale: _Scale) -> None:
    """Draw a vertical axis with its values."""
    axes.plot([x, x], [0, 1], color="black", linewidth=1.0, zorder=3)
    texts = [*scale.ticks, *([(_ABSENT, "not used")] if scale.partial else [])]
    for place, text in texts:
        axes.plot([x - 0.02, x + 0.02], [place, place], color="black", linewidth=1.0, zorder=3)
        axes.text(
            x - 0.05, place, text.replace("$", r"\$"), ha="right", va="center", fontsize=9, zorder=6,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8},
        )  # fmt: skip


def _draw_objective_axis(axes: Axes, x: int, colors: Normalize) -> None:
    """Draw the last axis: the scale of the colours, with values beside it."""
    low, high = float(colors.vmin or 0.0), float(colors.vmax or 1.0)
    steps = np.linspace(0, 1, 65)
    axes.pcolormesh(
        [x, x + 0.06], steps, steps[:-1, None] + 0.5 / 64, cmap="viridis", vmin=0, vmax=1, zorder=4
    )
    for value in (v for v in MaxNLocator(5).tick_values(low, high) if low <= v <= high):
        axes.text(x + 0.1, float(colors(value)), f"{value:.4g}", va="center", fontsize=9)
    axes.text(x + 0.03, 1.02, "and above", ha="center", va="bottom", fontsize=8)
