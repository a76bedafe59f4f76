"""The report of a search: rows of its tables, for terminal and page, and the page."""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from mlpf.plotting.html_page import figure, page, table
from mlpf.plotting.report_text import measured, number
from mlpf.plotting.search.keys import short_names

Row = Mapping[str, Any]

NUM_BEST = 10
_COST_TEXTS = {
    "completed": "completed trials",
    "failed": "failed trials",
    "unfinished": "trials not ended",
    "confirm": "confirmation",
}
_COST_HEADER = ("cost", "GPU-hours", "core-hours", "epochs")


def build_search_report(
    title: str,
    summary: Sequence[Sequence[str]],
    results: Mapping[str, Any],
    best_rows: Sequence[Row],
    importance: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
    figures: Sequence[Path],
) -> str:
    """Return the page as text.

    Args:
        title: of the page.
        summary: rows of the first table, from ``summary_rows``.
        results: contents of ``trials.json``.
        best_rows: trials of the top list, the best first.
        importance: ``key``, ``mean``, ``std`` of each key, empty if unknown.
        notes: texts about missing parts.
        figures: PNG files.

    Raises:
        OSError: a figure cannot be read.
    """
    parts = [table(["", ""], summary), *(f'<p class="note">{escape(note)}</p>' for note in notes)]
    if results["gains"]:
        parts += ["<h2>Gain over the default configuration</h2>", table(*gain_rows(results["gains"]))]
        parts += [
            '<p class="note">Trained again with the same seeds; gain = default - configuration, seed by '
            "seed. Errors are standard errors of the mean: with few seeds they are themselves uncertain.</p>"
        ]
    parts += ["<h2>Cost</h2>", table(_COST_HEADER, cost_rows(results["cost"]))]
    if best_rows:
        parts += ["<h2>Best configurations</h2>", table(*trial_rows(best_rows))]
    failed = [row for row in results["trials"] if row["status"] == "failed"]
    if failed:
        parts += ["<h2>Failed trials</h2>", table(*failed_rows(failed))]
    if importance:
        parts += ["<h2>Importance of the searched keys</h2>"]
        rows = [[k["key"], number(k["mean"], k["std"], 3)] for k in importance]
        parts += [table(["key", "share of the spread of ranks"], rows)]
    parts += ["<h2>Figures</h2>", *(figure(path) for path in figures)] if figures else []
    return page(title, parts)


def summary_rows(results: Mapping[str, Any], best: Row | None, objective: str) -> list[list[str]]:
    """Return rows of name and text: trials by status, best, gain, cost.

    Args:
        results: contents of ``trials.json``.
        best: row of the best trial.
        objective: name of the objective.
    """
    trials = results["trials"]
    counts = Counter(row["status"] for row in trials if row["purpose"] == "search")
    confirm = Counter(row["status"] for row in trials if row["purpose"] == "confirm")
    configurations = len({row["run"] for row in trials if row["purpose"] == "search"})
    rows = [
        ["search", "finished" if results["finished"] else "not finished"],
        ["configurations", str(configurations)],
        ["trials", _counts(counts)],
    ]
    if results["problem"]:
        rows.insert(1, ["gave up", results["problem"]])
    if confirm:
        rows.append(["confirming trainings", _counts(confirm)])
    kinds = Counter(row["failure_kind"] for row in trials if row["status"] == "failed")
    if kinds:
        rows.append(["failures", _counts(kinds)])
    if best is None:
        rows.append(["best", "none yet: no trial has completed"])
    else:
        where = f"trial {best['trial_id']}, run {best['run']}, epoch {best['best_epoch']} of {best['epochs']}"
        rows.append([f"best {objective}", f"{best['objective']:.6g} ({where})"])
    for gain in results["gains"]:
        rows.append([f"gain of run {gain['run']}", gain_text(gain)])
    cost = cost_rows(results["cost"])[-1]
    hours = [f"{text} {unit}" for text, unit in zip(cost[1:3], _COST_HEADER[1:3], strict=True) if text != "-"]
    rows.append(["cost", ", ".join([*hours, f"{cost[3]} epochs"])])
    return rows


def gain_text(gain: Mapping[str, Any]) -> str:
    """Describe the gain of a configuration over the default one, with its error."""
    absolute, relative = gain["gain"], gain["relative"]
    if not absolute["n"]:
        return "unknown: no seed with which both trainings completed"
    share = ""
    if relative["mean"] is not None:
        percent = [None if v is None else 100 * v for v in (relative["mean"], relative["error"])]
        share = f" = ({measured(*percent)}) %"
    pairs = f"n = {absolute['n']}" if absolute["n"] > 1 else "one pair, no error"
    return f"{measured(absolute['mean'], absolute['error'])}{share}, {pairs}"


def gain_rows(gains: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the table of gains."""
    header = ["run", "objective", "objective of the default", "gain"]
    rows = [
        [g["run"], *(_mean(g[name]) for name in ("configuration", "default")), gain_text(g)] for g in gains
    ]
    return header, rows


def cost_rows(cost: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """Return rows of the table of costs, the sum last."""
    rows = []
    for name, text in [*_COST_TEXTS.items(), ("", "total")]:
        chosen = [name] if name else list(_COST_TEXTS)
        gpu, core, epochs = (
            sum(cost[kind][c] for c in chosen) for kind in ("gpu_hours", "core_hours", "epochs")
        )
        rows.append([text, *(f"{hours:.3f}" if hours else "-" for hours in (gpu, core)), f"{epochs:.0f}"])
    return rows


def trial_rows(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of a table of trials with their values."""
    names = short_names(list(dict.fromkeys(key for row in rows for key in row["values"])))
    header = ["trial", "run", "epochs", "objective", "best epoch", "hours", "parameters", *names.values()]
    texts = []
    for row in rows:
        cells = [row["trial_id"], row["run"], str(row["epochs"]), _short(row["objective"])]
        cells += [str(row["best_epoch"]), f"{row['seconds'] / 3600:.3f}", _short(row["num_parameters"])]
        texts.append([*cells, *(_short(row["values"].get(key)) for key in names)])
    return header, texts


def failed_rows(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the table of failed trials."""
    header = ["trial", "run", "epochs", "kind", "losses", "crashes", "reason"]
    keys = ("trial_id", "run", "epochs", "failure_kind", "losses", "crashes", "failure")
    return header, [[str(row[key]) for key in keys] for row in rows]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"


def _mean(values: Mapping[str, Any]) -> str:
    if not values["n"]:
        return "-"
    return f"{measured(values['mean'], values['error'])} (n = {values['n']})"


def _short(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
