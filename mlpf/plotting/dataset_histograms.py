"""Distributions of the columns of a table, one panel per column, with all splits."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from mlpf.config.data_schema import SPLITS
from mlpf.data.dataset.checks import Binning

PANELS_PER_ROW = 4
# The palette of mlpf.plotting.style; further splits are grey.
SPLIT_COLORS: dict[str, str] = dict(zip(SPLITS, ("#3f90da", "#ffa90e", "#bd1f01"), strict=True))
# Above this ratio of the fullest to the emptiest bin the axis is logarithmic.
LOG_FROM = 100


def column_distributions(title: str, binning: Binning, counts: Mapping[str, npt.NDArray[np.int64]]) -> Figure:
    """Draw the fraction of rows in each bin, for each column.

    Args:
        title: title of the figure.
        binning: columns and their bins.
        counts: split -> [F, bins] entries; splits without entries are left out.
    """
    columns = binning.columns
    filled = {split: table for split, table in counts.items() if table.any()}
    num_rows = -(-len(columns) // PANELS_PER_ROW)
    # Fixed margins: computing them takes matplotlib longer than drawing the figure.
    width, height = 3.2 * PANELS_PER_ROW, 2.4 * num_rows + 0.4
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(
        left=0.7 / width,
        right=1 - 0.2 / width,
        bottom=0.5 / height,
        top=1 - 0.4 / height,
        wspace=0.3,
        hspace=0.35,
    )
    panels = figure.subplots(num_rows, PANELS_PER_ROW, squeeze=False).ravel()
    for panel in panels[len(columns) :]:
        panel.set_axis_off()
    for i, (column, panel) in enumerate(zip(columns, panels, strict=False)):
        heights = []
        for split, table in filled.items():
            entries = table[i, : binning.bins[i]]
            share = entries / max(1, entries.sum())
            heights.append(share)
            panel.stairs(
                share, binning.edges(i), color=SPLIT_COLORS.get(split, "#94a4a2"), label=split, linewidth=1.2
            )
        present = np.concatenate([np.zeros(0), *heights])
        present = present[present > 0]
        if len(present) and present.max() >= LOG_FROM * present.min():
            panel.set_yscale("log")
        panel.set_xlabel(f"{column.name} [{column.unit}]" if column.unit else column.name)
        if i % PANELS_PER_ROW == 0:
            panel.set_ylabel("share of rows")
    num_entries = ", ".join(f"{split} {table[0].sum()}" for split, table in filled.items())
    figure.suptitle(
        f"{title}: rows {num_entries or 'none'}; first and last bin include underflow and overflow",
        x=0.01,
        y=1 - 0.08 / height,
        ha="left",
        va="top",
        fontsize=10,
    )
    if filled:
        panels[0].legend(loc="best")
    return figure
