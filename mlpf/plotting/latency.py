"""Figures of inference: time of a pass and events per second against the number of elements."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from mlpf.plotting.style import pair

# Colours as in style.py (Petroff); markers for batch sizes.
_COLORS = ("#3f90da", "#bd1f01", "#ffa90e", "#832db6", "#94a4a2")
_MARKERS = "osDv^<>P"


def latency_figure(latencies: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Draw median and 95 % quantile of the time of one pass, and the throughput, both against N.

    Args:
        latencies: measured shapes of any number of engines, the records of ``infer.json``.
        title: title of the figure.
    """
    figure, (time_axes, rate_axes) = pair(title)
    engines = list(dict.fromkeys(x["engine"] for x in latencies))
    sizes = sorted({x["batch_size"] for x in latencies})
    for i, engine in enumerate(engines):
        for j, size in enumerate(sizes):
            points = sorted(
                (x for x in latencies if (x["engine"], x["batch_size"]) == (engine, size)),
                key=lambda x: x["num_elements"],
            )
            numbers = [x["num_elements"] for x in points]
            color, marker = _COLORS[i % len(_COLORS)], _MARKERS[j % len(_MARKERS)]
            look: dict[str, Any] = {"color": color, "marker": marker, "markersize": 4}
            median, high = [x["p50_ms"] for x in points], [x["p95_ms"] for x in points]
            time_axes.plot(numbers, median, label=f"{engine}, B = {size}", **look)
            time_axes.fill_between(numbers, median, high, color=color, alpha=0.15, linewidth=0)
            rate_axes.plot(numbers, [x["events_per_second"] for x in points], **look)
    for axes, label in ((time_axes, "time of one pass [ms]"), (rate_axes, "events per second")):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("elements per event N")
        axes.set_ylabel(label)
    time_axes.legend(title="median, band to 95 %")
    return figure
