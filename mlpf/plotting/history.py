"""Figures of a training: every recorded loss and metric against the epoch."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mlpf.plotting.style import COLORS, single
from mlpf.plotting.tables import BASELINE, NETWORK

VALIDATION = "val_"


def loss_names(history: Sequence[Mapping[str, float]]) -> list[str]:
    """Return the recorded names, without prefix, that exist for training and validation and are losses."""
    names = {name for record in history for name in record}
    return sorted(n for n in names if n.endswith("loss") and f"{VALIDATION}{n}" in names)


def loss_curve(history: Sequence[Mapping[str, float]], name: str) -> Figure:
    """Draw one loss of training and validation against the epoch.

    Args:
        history: one record per epoch, as ``history.json`` holds.
        name: a name out of ``loss_names``.
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
