"""Write tables, figures and report of a search from its files, also while it runs."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mlpf.config.search.space import load_space, search_section
from mlpf.errors import DataError, MissingDependency
from mlpf.files.atomic import atomic_write
from mlpf.plotting.search import keys as key_figures
from mlpf.plotting.search import progress as figures
from mlpf.plotting.search.report import NUM_BEST, build_search_report, summary_rows
from mlpf.plotting.style import save, style
from mlpf.search.results.importance import Importance, comparable_trials, importance
from mlpf.search.results.run_progress import network_constants, objective_curve, objective_name
from mlpf.search.results.tables import (
    Results,
    as_json,
    collect,
    furthest_trials,
    write_best,
    write_trials,
)
from mlpf.search.state import read_search

PLOTS_FOLDER, REPORT_FILE = "plots", "report.html"


def run(directory: Path, plots: bool = True) -> None:
    """Write the tables, ``best.yaml``, figures and ``report.html`` of a search, and print its summary.

    Args:
        directory: directory of the search.
        plots: draw figures; otherwise the page only has tables.

    Raises:
        CheckpointError: not the directory of a search, or its state is damaged.
        ConfigError: its configuration is not valid.
    """
    directory = Path(directory)
    console = Console()
    with console.status("reading the search"):
        results = collect(read_search(directory))
        section = search_section(results.state.config)
        write_trials(results)
        write_best(results)
        notes = _notes(results)
        try:
            importances = importance(results.state.trials, load_space(section))
        except (DataError, MissingDependency) as error:
            importances = None
            notes.append(str(error))
    content = as_json(results)
    rows = {row["trial_id"]: row for row in content["trials"]}
    paths = []
    if plots:
        with style(), console.status("drawing figures"):
            paths = [
                save(figure, directory / PLOTS_FOLDER, stem)
                for stem, figure in _figures(results, rows, importances)
            ]
    best = rows[results.best.trial_id] if results.best else None
    summary = summary_rows(content, best, objective_name(section))
    text = build_search_report(
        f"MLPF search: {directory.resolve().name}",
        summary,
        content,
        [rows[trial.trial_id] for trial in furthest_trials(results.state)[:NUM_BEST]],
        [asdict(key) for key in importances.keys] if importances else [],
        notes,
        paths,
    )
    report = directory / REPORT_FILE
    with atomic_write(report) as part:
        part.write_text(text, encoding="utf-8")
    _print(console, summary, notes, report)


def _notes(results: Results) -> list[str]:
    """Return notes about missing results."""
    notes = []
    if results.best is None:
        notes.append("no trial has completed: there is no best.yaml yet")
    if results.problems:
        notes.append(f"{len(results.problems)} of the runs left out, their history cannot be read")
        notes += results.problems
    return notes


def _figures(
    results: Results, by_id: dict[str, Any], importances: Importance | None
) -> Iterator[tuple[str, Figure]]:
    """Yield file stem and figure for each figure that has data."""
    state, rows = results.state, list(by_id.values())
    section = search_section(state.config)
    space, name = load_space(section), objective_name(section)
    title = state.directory.resolve().name.replace("$", r"\$")
    if any(row["purpose"] == "search" and row["status"] in ("completed", "failed") for row in rows):
        yield "objective_over_time", figures.objective_over_time(rows, name, title)
        yield "objective_over_cost", figures.objective_over_cost(rows, name, title)
    constants = network_constants(t for t in state.trials if t.purpose == "search")
    curves = {
        run: objective_curve(section, history, constants[run])
        for run, history in results.histories.items()
        if run in constants
    }
    if any(curves.values()):
        best = results.best.run if results.best else None
        # Promoted trials come after the trials that they continue.
        given = {trial.run: trial.epochs for trial in state.trials}
        yield "learning_curves", figures.learning_curves(curves, given, best, name, title)
    chosen = comparable_trials(state.trials)
    if chosen:
        text = f"{title}: {len(chosen)} trials after {figures.num_epochs(chosen[0].epochs)}"
        best_row = by_id[results.best.trial_id] if results.best else None
        compared = [by_id[trial.trial_id] for trial in chosen]
        yield "parallel_coordinates", key_figures.parallel_coordinates(compared, space, best_row, name, text)
    if importances is not None:
        text = f"{title}: {importances.num_trials} trials after {figures.num_epochs(importances.epochs)}"
        yield "importance", key_figures.importance_bars([asdict(key) for key in importances.keys], text)
    if any(gain.gain.n for gain in results.gains):
        yield "confirmation", figures.confirmation([asdict(gain) for gain in results.gains], name, title)


def _print(console: Console, summary: list[list[str]], notes: list[str], report: Path) -> None:
    table = Table("search", "", show_header=False)
    for cells in summary:
        table.add_row(*(escape(cell) for cell in cells))
    console.print(table)
    for note in notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    console.print(f"report: {report}", markup=False, highlight=False, soft_wrap=True)
