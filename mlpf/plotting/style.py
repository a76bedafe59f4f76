"""Style of all figures: that of mplhep at a size for reports, and one colour per method."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import mplhep
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlpf.files.atomic import atomic_write
from mlpf.physics.methods import BASELINE, GEN, METHOD_NAMES, NETWORK, ORACLE, PERFECT, TARGET

# Colours for colour-blind readers (Petroff, arXiv:2107.02270).
COLORS = {
    GEN: "black",
    NETWORK: "#bd1f01",
    BASELINE: "#3f90da",
    TARGET: "#94a4a2",
    ORACLE: "#ffa90e",
    PERFECT: "#832db6",
}
LABELS = {GEN: "generated", **METHOD_NAMES}

_OVERRIDES: dict[str, Any] = {
    # matplotlib includes this font; that of mplhep is not on every machine.
    "font.family": "DejaVu Sans",
    "font.size": 11.0,
    "axes.labelsize": 11.0,
    "xtick.labelsize": 10.0,
    "ytick.labelsize": 10.0,
    "legend.fontsize": 9.0,
    "axes.titlesize": 10.0,
    "figure.dpi": 100,
    "lines.linewidth": 1.5,
    # Minor ticks take half of the time to draw a figure.
    "xtick.minor.visible": False,
    "ytick.minor.visible": False,
    "mathtext.fontset": "dejavusans",
}


@contextmanager
def style() -> Iterator[None]:
    """Draw and save with the style of the package; restores the settings afterwards."""
    base = {k: v for k, v in mplhep.style.ROOT.items() if not k.startswith("savefig")}
    settings: dict[Any, Any] = {**base, **_OVERRIDES}
    with mpl.rc_context():
        mpl.rcParams.update(settings)
        yield


def single(title: str, size: tuple[float, float] = (6.0, 4.5)) -> tuple[Figure, Axes]:
    """Return a figure with one panel. Without pyplot no reference to the figure stays."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left")
    return figure, axes


def with_ratio(title: str, size: tuple[float, float] = (6.0, 5.5)) -> tuple[Figure, Axes, Axes]:
    """Return a figure with a main panel and a ratio panel below it that shares its x axis."""
    figure = Figure(figsize=size, layout="constrained")
    main, ratio = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    main.set_title(title, loc="left")
    return figure, main, ratio


def pair(title: str, size: tuple[float, float] = (10.0, 4.5)) -> tuple[Figure, list[Axes]]:
    """Return a figure with two panels side by side."""
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(1, 2))
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure, axes


def fix_layout(figure: Figure) -> None:
    """Compute the layout once, not again for each format."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def save(figure: Figure, folder: Path, stem: str) -> Path:
    """Write a figure as PDF and PNG into ``folder``; return the PNG. Call it within ``style``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}.png"
    fix_layout(figure)
    for target in (path.with_suffix(".pdf"), path):
        with atomic_write(target) as part:
            figure.savefig(part, format=target.suffix[1:])
    return path
