"""Figures of a training: every recorded loss and metric against the epoch; the learning-rate range test."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mlpf.physics.methods import BASELINE, LIMITS, NETWORK, TARGET
from mlpf.plotting.style import COLORS, LABELS, pair, single

VALIDATION = "val_"
# File stem -> quantities in its two panels, by their name in the record without prefix, with axis labels.
PHYSICS_FIGURES = {
    "validation_jets": {
        "jet_response_iqr": "jet response IQR / median",
        "jet_response_median": "jet response median",
    },
    "validation_met": {
        "met_response_iqr": "missing $p_T$ response IQR / median",
        "met_response_median": "missing $p_T$ response median",
    },
}
# Lines for comparison, if the run has them.
_COMPARED = (BASELINE, *LIMITS)


def loss_names(history: Sequence[Mapping[str, float]]) -> list[str]:
    """Return the names (without prefix) of losses that exist for training and validation."""
    names = {name for record in history for name in record}
    return sorted(n for n in names if n.endswith("loss") and f"{VALIDATION}{n}" in names)


def loss_curve(history: Sequence[Mapping[str, float]], name: str) -> Figure:
    """Draw one loss of training and validation against the epoch.

    Args:
        history: one record per epoch, as in ``history.json``.
        name: a name of ``loss_names``.
    """
    figure, axes = single(name.replace("_", " "))
    curves = {"training": (name, BASELINE), "validation": (VALIDATION + name, NETWORK)}
    for label, (key, color) in curves.items():
        points = [(r["epoch"], r[key]) for r in history if r.get(key) is not None]
        epochs, values = zip(*points, strict=True) if points else ((), ())
        axes.plot(epochs, values, marker="o", markersize=3, color=COLORS[color], label=label)
        if values and min(values) > 0 and max(values) > 20 * min(values):
            axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel(name.replace("_", " "))
    axes.legend()
    return figure


def physics_names(history: Sequence[Mapping[str, float]]) -> list[str]:
    """Return the keys of ``PHYSICS_FIGURES`` with a number in the history."""
    recorded = {name for record in history for name in record}
    return [
        stem
        for stem, quantities in PHYSICS_FIGURES.items()
        if any(f"{VALIDATION}{name}" in recorded for name in quantities)
    ]


def physics_curves(
    history: Sequence[Mapping[str, float]], reference: Mapping[str, Mapping[str, float]], name: str
) -> Figure:
    """Draw a quantity of the network on validation events after each epoch, with lines for other methods.

    Args:
        history: one record per epoch.
        reference: method -> quantity -> value, as ``methods`` of ``validation_reference.json``; may be empty.
        name: a name of ``physics_names``.
    """
    figure, panels = pair("validation events during training")
    for axes, (quantity, label) in zip(panels, PHYSICS_FIGURES[name].items(), strict=True):
        key = VALIDATION + quantity
        points = [(r["epoch"], r[key]) for r in history if r.get(key) is not None]
        epochs, values = zip(*points, strict=True) if points else ((), ())
        axes.plot(epochs, values, marker="o", markersize=3, color=COLORS[NETWORK], label=LABELS[NETWORK])
        for method in _COMPARED:
            value = reference.get(method, {}).get(quantity)
            if value is not None:
                axes.axhline(value, linestyle="--", color=COLORS[method], label=LABELS[method])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.legend()
    return figure


def range_figure(result: Mapping[str, Any], title: str) -> Figure:
    """Draw the loss, and smoothed, against the learning rate, with the suggested rates as lines.

    Args:
        result: what ``lr_finder.json`` holds.
        title: what was trained.
    """
    figure, axes = single(title)
    axes.plot(result["rates"], result["losses"], color=COLORS[TARGET], linewidth=0.8, label="loss")
    axes.plot(result["rates"], result["smoothed"], color=COLORS[NETWORK], label="smoothed")
    axes.set_xscale("log")
    positive = [value for value in result["smoothed"] if value > 0]
    if positive:
        # The scale of the smoothed loss: one broken batch at the end would flatten everything else.
        axes.set_yscale("log")
        axes.set_ylim(0.7 * min(positive), 1.4 * max(positive))
    for (name, text), line in zip(
        {"steepest": "steepest", "minimum_over_10": "minimum / 10"}.items(), ("--", ":"), strict=True
    ):
        rate = result["suggestions"][name]
        if rate is not None:
            axes.axvline(rate, color=COLORS[BASELINE], linestyle=line, label=f"{text}: {rate:.2g}")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.legend()
    return figure
