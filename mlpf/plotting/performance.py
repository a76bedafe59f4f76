"""Figures of the performance on one dataset. Each takes numbers and returns a figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import mplhep
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlpf.physics.methods import BASELINE, GEN, NETWORK
from mlpf.plotting.report_text import number
from mlpf.plotting.style import COLORS, LABELS, pair, single, with_ratio

Array = npt.NDArray[Any]


def _steps(axes: Axes, counts: Array, edges: Array, method: str, label: str = "") -> None:
    mplhep.histplot(
        counts, edges, ax=axes, yerr=False, color=COLORS[method], label=label or LABELS[method], zorder=3
    )


def _points(axes: Axes, edges: Sequence[float], values: Array, errors: Array, method: str) -> None:
    low, high = np.asarray(edges[:-1]), np.asarray(edges[1:])
    axes.errorbar(
        np.sqrt(low * high),
        values,
        yerr=errors,
        color=COLORS[method],
        label=LABELS[method],
        marker="o",
        markersize=4,
        capsize=2,
    )


def _ratio(numerator: Array, denominator: Array) -> Array:
    """Divide; NaN, which is not drawn, for a denominator of 0."""
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)


def _floats(values: Sequence[float | None]) -> Array:
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def response(
    responses: Mapping[str, Array], quantity: str, title: str, limits: tuple[float, float]
) -> Figure:
    """Draw distributions of a response, and their ratio to the baseline.

    Args:
        responses: method -> response of each jet or event.
        quantity: quantity of the response, e.g. ``"jet $p_T$"``.
        title: of the figure.
        limits: range of the response shown.
    """
    figure, main, below = with_ratio(title)
    edges = np.linspace(*limits, 61)
    counts = {method: np.histogram(values, edges)[0] for method, values in responses.items()}
    for method, values in responses.items():
        label = LABELS[method]
        if len(values):
            low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
            label += f": M={median:.3f}, IQR/M={number((high - low) / median if median else None, None, 3)}"
        _steps(main, counts[method], edges, method, label)
        _steps(below, _ratio(counts[method], counts[BASELINE]), edges, method)
    main.set_ylabel("entries")
    main.set_ylim(0, 1.5 * max(1, *(c.max() for c in counts.values())))
    main.legend(loc="upper right")
    below.set_xlim(*limits)
    below.set_ylim(0, 3)
    below.set_ylabel("/ baseline")
    below.set_xlabel(f"reconstructed / generated {quantity}")
    return figure


def binned_response(
    bins: Mapping[str, Sequence[Mapping[str, Any]]], edges: Sequence[float], title: str
) -> Figure:
    """Draw median and IQR/median of the jet response against the generated pt.

    Args:
        bins: method -> per bin ``median``, ``iqr_over_median`` and their uncertainties.
        edges: bin edges in GeV.
        title: of the figure.
    """
    figure, panels = pair(title)
    for axes, key, text in zip(
        panels, ("median", "iqr_over_median"), ("median", "IQR / median"), strict=True
    ):
        for method, values in bins.items():
            centre = _floats([v[key] for v in values])
            _points(axes, edges, centre, _floats([v[f"{key}_uncertainty"] for v in values]), method)
        axes.set_xscale("log")
        axes.set_xlim(edges[0], edges[-1])
        axes.set_xticks(edges, [f"{edge:g}" for edge in edges])
        axes.minorticks_off()
        axes.set_xlabel("generated jet $p_T$ [GeV]")
        axes.set_ylabel(f"jet response {text}")
    panels[0].axhline(1, color="gray", linewidth=0.8)
    panels[1].set_ylim(bottom=0)
    panels[1].legend()
    return figure


def class_sums(sums: Mapping[str, tuple[Array, Array]], class_name: str, title: str) -> Figure:
    """Draw multiplicity and energy sum per event of one class, with the ratio to the generated ones.

    Args:
        sums: ``gen`` and methods -> (particles per event, energy per event in GeV).
        class_name: name of the class.
        title: of the figure.
    """
    figure = Figure(figsize=(10.0, 5.5), layout="constrained")
    panels = figure.subplots(2, 2, sharex="col", height_ratios=(3, 1))
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    labels = (f"{class_name}s per event", f"energy sum of {class_name}s per event [GeV]")
    for column, label in enumerate(labels):
        main, below = panels[0, column], panels[1, column]
        values = {method: both[column] for method, both in sums.items()}
        top = max(1.0, *(np.quantile(v, 0.995) if len(v) else 0.0 for v in values.values()))
        # Bins of whole numbers of particles.
        width = max(1, int(np.ceil(top / 40))) if column == 0 else top / 40
        edges = np.arange(0, top + 2 * width, width) - (0.5 if column == 0 else 0.0)
        counts = {method: np.histogram(v, edges)[0] for method, v in values.items()}
        for method, count in counts.items():
            _steps(main, count, edges, method)
            if method != GEN:
                _steps(below, _ratio(count, counts[GEN]), edges, method)
        main.set_ylabel("events")
        main.set_ylim(bottom=0)
        below.set_ylabel("/ generated")
        below.set_ylim(0, 2)
        below.axhline(1, color="gray", linewidth=0.8)
        below.set_xlabel(label)
    panels[0, 1].legend()
    return figure


def class_fractions(
    fractions: Mapping[str, Mapping[str, tuple[Array, Array]]],
    edges: Sequence[float],
    class_name: str,
    title: str,
) -> Figure:
    """Draw efficiency and fake rate of one class against energy.

    Args:
        fractions: method -> ``efficiency`` and ``fake_rate`` -> (value, uncertainty) per bin.
        edges: bin edges in GeV.
        class_name: name of the class.
        title: of the figure.
    """
    figure, panels = pair(title)
    axis = {"efficiency": "target", "fake_rate": "reconstructed"}
    for axes, (key, owner) in zip(panels, axis.items(), strict=True):
        for method, values in fractions.items():
            _points(axes, edges, *values[key], method)
        axes.set_xscale("log")
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(0, 1.1)
        axes.set_xlabel(f"energy of the {owner} particle [GeV]")
        axes.set_ylabel(f"{class_name} {key.replace('_', ' ')}")
    panels[0].legend()
    return figure


def confusion(matrices: Mapping[str, Array], names: Sequence[str], title: str) -> Figure:
    """Draw the confusion matrix: fractions of each class of a method, per target class.

    Args:
        matrices: method -> counts [C, C], rows = target.
        names: class names.
        title: of the figure.
    """
    figure, panels = pair(title, size=(11.0, 5.2))
    for axes, (method, counts) in zip(panels, matrices.items(), strict=True):
        counts = np.asarray(counts, dtype=float)
        total = counts.sum(axis=1, keepdims=True)
        share = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
        axes.imshow(share, vmin=0, vmax=1, cmap="Blues")
        for row, column in np.ndindex(*share.shape):
            color = "white" if share[row, column] > 0.6 else "black"
            axes.text(column, row, f"{share[row, column]:.2f}", ha="center", va="center", color=color, size=8)
        axes.set_xticks(range(len(names)), names, rotation=35, ha="right")
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(which="both", length=0)
        axes.set_xlabel(f"class given by the {LABELS[method]}")
        axes.set_ylabel("target class")
    return figure


def num_elements(counts: Mapping[str, Array], title: str) -> Figure:
    """Draw the number of elements per event; ``counts``: kind of element -> number in each event."""
    figure, axes = single(title)
    top = max((int(np.max(v, initial=0)) for v in counts.values()), default=0)
    width = max(1, int(np.ceil(top / 50)))
    edges = np.arange(0, top + 2 * width, width) - 0.5
    for (kind, values), color in zip(
        counts.items(), ("black", COLORS[BASELINE], COLORS[NETWORK]), strict=False
    ):
        mplhep.histplot(np.histogram(values, edges)[0], edges, ax=axes, yerr=False, color=color, label=kind)
    axes.set_xlabel("elements per event")
    axes.set_ylabel("events")
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure
