"""Figures of a search: objectives against time and cost, learning curves, and gains."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mlpf.physics.methods import BASELINE, NETWORK
from mlpf.plotting.report_text import measured
from mlpf.plotting.style import COLORS, pair, single

Row = Mapping[str, Any]
Point = tuple[float, Row]

BEST_COLOR = COLORS[NETWORK]
_DEFAULT_COLOR = COLORS[BASELINE]
# Rungs from the shortest to the longest; the palette of mlpf.plotting.style.
_RUNG_COLORS = ("#3f90da", "#ffa90e", "#832db6", "#94a4a2", "#e76300", "#717581")
_RUNG_MARKERS = "osD^v<"
_SEED_MARKERS = "osD^v<>P"
# Objectives more than this number of interquartile ranges above the upper quartile are drawn at the edge,
# because one diverged trial would hide all others.
_FAR = 3.0
# Above this ratio the axis is logarithmic.
_LOG_FROM = 20


def completed(rows: Iterable[Row], purpose: str = "search") -> list[Row]:
    """Return the completed trials of a purpose in the order of their end."""
    done = [r for r in rows if r["purpose"] == purpose and r["status"] == "completed"]
    return sorted(done, key=lambda row: row["ended"] or 0.0)


def objective_over_time(rows: Sequence[Row], objective: str, title: str) -> Figure:
    """Draw the objective of every trial of the search, and the best so far, against time.

    Args:
        rows: one per trial, as ``trials.json`` holds.
        objective: its name.
        title: of the figure.
    """
    figure, axes = single(title, (8.5, 4.8))
    start = min((r["started"] for r in rows if r["started"]), default=0.0)
    ended = max((r["ended"] for r in rows if r["ended"]), default=start)
    scale, unit = (3600.0, "h") if ended - start > 2 * 3600 else (60.0, "min")
    failed = [r for r in rows if r["purpose"] == "search" and r["status"] == "failed" and r["ended"]]
    _draw_objectives(
        axes,
        [((row["ended"] - start) / scale, row) for row in completed(rows) if row["ended"]],
        [(row["ended"] - start) / scale for row in failed],
    )
    axes.set_xlabel(f"time since the first start [{unit}]")
    axes.set_ylabel(wrapped(objective))
    _legend_beside(figure, axes)
    return figure


def objective_over_cost(rows: Sequence[Row], objective: str, title: str) -> Figure:
    """Draw the objective of every trial against the cost of the search at its end.

    Args:
        rows: one per trial, as ``trials.json`` holds.
        objective: its name.
        title: of the figure.
    """
    figure, panels = pair(title, (12.5, 4.6))
    ended = sorted(
        (
            r
            for r in rows
            if r["purpose"] == "search" and r["ended"] and r["status"] in ("completed", "failed")
        ),
        key=lambda row: row["ended"],
    )
    unit = "GPU-hours" if any(row["on_gpu"] for row in ended) else "core-hours"
    for axes, key, label in zip(
        panels,
        ("device_hours", "trained_epochs"),
        (f"cost so far [{unit}]", "epochs trained so far"),
        strict=True,
    ):
        spent = np.cumsum([row[key] for row in ended]).tolist()
        points = list(zip(spent, ended, strict=True))
        _draw_objectives(
            axes,
            [(x, row) for x, row in points if row["status"] == "completed"],
            [x for x, row in points if row["status"] == "failed"],
        )
        axes.set_xlabel(label)
        axes.set_ylabel(wrapped(objective))
        axes.set_xlim(left=0)
    _legend_beside(figure, panels[0])
    return figure


def learning_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    given: Mapping[str, int],
    best: str | None,
    objective: str,
    title: str,
) -> Figure:
    """Draw the objective after each epoch for every run, coloured by its planned epochs.

    Args:
        curves: run -> epochs and objectives.
        given: run -> largest planned number of epochs.
        best: run that is drawn on top.
        objective: its name.
        title: of the figure.
    """
    figure, axes = single(title, (7.5, 4.8))
    drawn = {run: curve for run, curve in curves.items() if curve}
    looks = _rung_looks(sorted({given[run] for run in drawn}))
    for run, curve in drawn.items():
        color, marker = looks[given[run]]
        axes.plot(*zip(*curve, strict=True), color=color, linewidth=1.0, alpha=0.8)
        axes.plot(*curve[-1], color=color, marker=marker, markersize=4)
    handles = [
        Line2D([], [], color=color, marker=marker, markersize=4, label=_trials_of(epochs))
        for epochs, (color, marker) in looks.items()
    ]
    if best in drawn:
        look: dict[str, Any] = {"color": BEST_COLOR, "linewidth": 2.5, "marker": "o", "markersize": 4}
        handles += axes.plot(*zip(*drawn[best], strict=True), zorder=5, label=f"best, run {best}", **look)
    _limit(axes, [value for curve in drawn.values() for _, value in curve])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel(wrapped(objective))
    _legend(axes, handles=handles)
    return figure


def confirmation(gains: Sequence[Row], objective: str, title: str) -> Figure:
    """Draw default and best configurations, trained with the same seeds, and the gain of each.

    Args:
        gains: as in ``trials.json``, but with numbers as seeds, and NaN for undefined numbers.
        objective: its name.
        title: of the figure.
    """
    figure, (values, differences) = pair(title, (11.0, 4.6))
    seeds = sorted({seed for gain in gains for seed in (*gain["by_seed"], *gain["default_by_seed"])})
    columns = [("default", gains[0]["default_by_seed"], gains[0]["default"], _DEFAULT_COLOR)] if gains else []
    columns += [(f"run {gain['run']}", gain["by_seed"], gain["configuration"], BEST_COLOR) for gain in gains]
    for i, seed in enumerate(seeds):
        points = [(x, column[1][seed]) for x, column in enumerate(columns) if seed in column[1]]
        values.plot(
            *zip(*points, strict=True), color="#94a4a2", linewidth=0.8, markersize=6, label=f"seed {seed}",
            marker=_SEED_MARKERS[i % len(_SEED_MARKERS)], markerfacecolor="white",
        )  # fmt: skip
    for x, (_, _, mean, color) in enumerate(columns):
        values.errorbar(x + 0.15, mean["mean"], mean["error"], color=color, fmt="o", capsize=4, markersize=7)
    values.set_xticks(range(len(columns)), [column[0] for column in columns])
    values.set_xlim(-0.5, len(columns) - 0.3)
    values.set_ylabel(wrapped(objective))
    _legend(values, title="coloured: mean and its error")
    for x, gain in enumerate(gains):
        relative = gain["relative"]
        mean, error, n = 100 * relative["mean"], 100 * relative["error"], relative["n"]
        differences.errorbar(x, mean, error, color=BEST_COLOR, fmt="o", capsize=4, markersize=7)
        if n:
            text = f"({measured(mean, error)}) %\n{n} pair{'s' if n > 1 else ''}"
            place: dict[str, Any] = {"xy": (x, mean), "xytext": (10, 0), "textcoords": "offset points"}
            differences.annotate(text, **place, va="center", fontsize=9)
    differences.axhline(0, color="black", linewidth=0.8)
    differences.set_xticks(range(len(gains)), [f"run {gain['run']}" for gain in gains])
    differences.set_xlim(-0.5, len(gains) - 0.2)
    differences.set_ylabel("gain over the default [%]")
    return figure


def num_epochs(number: int) -> str:
    """Return a number of epochs as text."""
    return f"{number} epoch" if number == 1 else f"{number} epochs"


def wrapped(text: str, width: int = 40) -> str:
    """Break a long text, such as a sum of metrics, into lines."""
    return "\n".join(textwrap.wrap(text, width))


def _trials_of(epochs: int) -> str:
    return f"trials of {num_epochs(epochs)}"


def _legend(axes: Axes, **options: Any) -> None:
    """Draw a legend with an opaque background."""
    if options.get("handles") or axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=True, framealpha=0.9, edgecolor="none", title_fontsize=9, **options)


def _legend_beside(figure: Figure, axes: Axes) -> None:
    """Draw the legend of a panel beside all panels, because trials may be anywhere."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles, labels, loc="outside right upper", title="lines: best so far", title_fontsize=9
        )


def _rung_looks(lengths: Sequence[int]) -> dict[int, tuple[str, str]]:
    """Return epochs -> colour and marker."""
    return {
        epochs: (_RUNG_COLORS[i % len(_RUNG_COLORS)], _RUNG_MARKERS[i % len(_RUNG_MARKERS)])
        for i, epochs in enumerate(lengths)
    }


def _draw_objectives(axes: Axes, points: Sequence[Point], failed: Sequence[float]) -> None:
    """Draw trials as markers, per rung with its best so far as steps, failed ones at the lower edge."""
    looks = _rung_looks(sorted({row["epochs"] for _, row in points}))
    top = _limit(axes, [row["objective"] for _, row in points])
    end = max([x for x, _ in points] + list(failed), default=1.0)
    for epochs, (color, marker) in looks.items():
        mine = [(x, row["objective"]) for x, row in points if row["epochs"] == epochs]
        x, y = (np.array(values, np.float64) for values in zip(*mine, strict=True))
        label = _trials_of(epochs)
        axes.plot(
            x[y <= top], y[y <= top], linestyle="", color=color, marker=marker, markersize=5, label=label
        )
        if (y > top).any():
            axes.plot(
                x[y > top], np.full((y > top).sum(), top), linestyle="", color=color, marker=6, markersize=7,
                clip_on=False, label=f"{(y > top).sum()} above the axis",
            )  # fmt: skip
        axes.step([*x, end], [*np.minimum.accumulate(y), y.min()], where="post", color=color, linewidth=1.2)
    furthest = [p for p in points if p[1]["epochs"] == max(looks)]
    if furthest:
        place, row = min(furthest, key=lambda p: p[1]["objective"])
        label = f"best, run {row['run']}"
        axes.plot(place, row["objective"], "*", color=BEST_COLOR, markersize=14, zorder=5, label=label)
    if failed:
        axes.plot(
            failed, np.full(len(failed), 0.02), linestyle="", color="black", marker="x", markersize=6,
            transform=axes.get_xaxis_transform(), label=f"failed ({len(failed)})",
        )  # fmt: skip


def _limit(axes: Axes, values: Sequence[float]) -> float:
    """Choose scale and range of the y axis; return the largest value inside the range."""
    finite = np.array([v for v in values if v is not None and np.isfinite(v)])
    if not len(finite):
        return float("inf")
    low, quarter, high_quarter = np.quantile(finite, (0.0, 0.25, 0.75))
    edge = high_quarter + _FAR * (high_quarter - quarter) if high_quarter > quarter else finite.max()
    inside = finite[finite <= edge]
    high = float(inside.max())
    if low > 0 and high > _LOG_FROM * low:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.3, high * 1.3)
    else:
        span = (high - low) or abs(high) or 1.0
        axes.set_ylim(low - 0.12 * span, high + 0.06 * span)
    return high if high < finite.max() else float("inf")
