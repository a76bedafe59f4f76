"""Figure of a learning-rate range test."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from mlpf.physics.methods import BASELINE, NETWORK, TARGET
from mlpf.plotting.style import COLORS, single


def range_figure(result: Mapping[str, Any], title: str) -> Figure:
    """Draw the loss and the smoothed loss against the learning rate, with the suggested rates as lines.

    Args:
        result: contents of ``lr_finder.json``.
        title: title of the figure.
    """
    figure, axes = single(title)
    axes.plot(result["rates"], result["losses"], color=COLORS[TARGET], linewidth=0.8, label="loss")
    axes.plot(result["rates"], result["smoothed"], color=COLORS[NETWORK], label="smoothed")
    axes.set_xscale("log")
    positive = [value for value in result["smoothed"] if value > 0]
    if positive:
        # Axis range from the smoothed loss: with one huge value at the end the rest would be flat.
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
