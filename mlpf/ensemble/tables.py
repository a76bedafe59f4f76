"""Show an ensemble on the terminal: its progress and its results."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from mlpf.config.schema import Config
from mlpf.engine.display import Display
from mlpf.ensemble.results import MemberResult, Spread, best_record
from mlpf.ensemble.state import MemberFiles, MemberState, read_history, read_state

_BAR_WIDTH = 40


class LiveTable:
    """Shows an ensemble while it trains: a live table on a terminal, one line per change in a log.

    Args:
        directory: directory of the ensemble.
        configs: name -> configuration of the training.
        states: name -> state of the training; the driver changes it meanwhile.
        given: returns the names of the trainings that the engine has.
        console: output.
    """

    def __init__(
        self,
        directory: Path,
        configs: Mapping[str, Config],
        states: Mapping[str, MemberState],
        given: Callable[[], Sequence[str]],
        console: Console,
    ):
        self._directory, self._configs, self._states, self._given = directory, configs, states, given
        self._display = Display(console)
        self._bests: dict[str, float] = {}
        for name in states:
            self._look(name)

    def update(self) -> None:
        """Read the files of running trainings and show what is new."""
        running = {name: self._look(name) for name in self._given()}
        self._display.show(
            lambda: self._table(running),
            lambda: (*Counter(s.state for s in self._states.values()).items(), *running, *self._failed()),
            lambda: self._facts(running),
        )

    def close(self) -> None:
        """Show the last state and leave the terminal as it was."""
        try:
            self.update()
        finally:
            self._display.close()

    def _look(self, name: str) -> list[dict[str, float]]:
        """Return the history of a training; remember its best value."""
        history = read_history(MemberFiles(self._directory, name))
        monitor = self._configs[name].callbacks.checkpoint.monitor
        best = best_record(history, monitor)
        if best is not None:
            self._bests[name] = best[monitor]
        return history

    def _failed(self) -> list[str]:
        return [name for name, state in self._states.items() if state.state == "failed"]

    def _facts(self, running: Mapping[str, object]) -> list[tuple[str, str]]:
        """Return names and texts of the summary."""
        counts = Counter(state.state for state in self._states.values())
        facts = [
            ("completed", f"{counts['completed']}/{len(self._states)}"),
            ("running", str(len(running))),
            ("waiting", str(counts["waiting"] - len(running))),
            ("failed", failures([state for state in self._states.values() if state.state == "failed"])),
        ]
        monitors = {config.callbacks.checkpoint.monitor for config in self._configs.values()}
        if self._bests and len(monitors) == 1:  # different metrics cannot be compared
            name = min(self._bests, key=self._bests.__getitem__)
            facts.append((f"best {monitors.pop()}", f"{self._bests[name]:.5g} ({name})"))
        return facts

    def _table(self, running: Mapping[str, list[dict[str, float]]]) -> Group:
        """Return progress bar, summary and the trainings that run."""
        ended = sum(state.state in ("completed", "failed") for state in self._states.values())
        summary = Table("trainings", "", show_header=False)
        summary.add_row("ended", ProgressBar(len(self._states), ended, _BAR_WIDTH))
        for name, text in self._facts(running):
            summary.add_row(name, escape(text))
        table = Table("training", "worker", "epoch", "last", "best", "time")
        for name, history in running.items():
            state, config = read_state(MemberFiles(self._directory, name)), self._configs[name]
            monitor = config.callbacks.checkpoint.monitor
            table.add_row(
                escape(name),
                escape(state.slot) if state.state == "running" else "(waits for one)",
                f"{len(history)}/{config.setup.num_epochs}",
                _number(history[-1].get(monitor) if history else None),
                _number(self._bests.get(name)),
                duration(state.seconds),
            )
        return Group(summary, table) if running else Group(summary)


def failures(states: Sequence[MemberState | MemberResult]) -> str:
    """Return the number of failed trainings, by kind."""
    kinds = Counter(state.kind for state in states)
    listed = f" ({', '.join(f'{count} {kind}' for kind, count in kinds.items())})" if kinds else ""
    return f"{len(states)}{listed}"


def result_table(results: Sequence[MemberResult]) -> Table:
    """Return the table of trainings."""
    monitors = dict.fromkeys(result.monitor for result in results)
    changed = any(result.values for result in results)
    table = Table("training", "seed", *(["changes"] if changed else []), "epochs")
    table.add_column(f"best {' or '.join(monitors)}")
    for header in ("at epoch", "time", "state"):
        table.add_column(header)
    _fold(table)
    for result in results:
        state = result.state + (f": {result.kind}" if result.kind else "")
        table.add_row(
            escape(result.name),
            str(result.seed),
            *([escape(_changes(result.values))] if changed else []),
            f"{result.epochs}/{result.num_epochs}",
            _number(result.best),
            str(result.best_epoch or "-"),
            duration(result.seconds),
            state + (f" ({result.attempts} attempts)" if result.attempts > 1 else ""),
        )
    return table


def spread_table(found: Sequence[Spread]) -> Table:
    """Return the table of mean and spread."""
    grouped = any(spread.row for spread in found)
    table = Table(*(["row"] if grouped else []), "metric", "trainings", "mean ± error", "standard deviation")
    _fold(table)
    for spread in found:
        error = "" if spread.error is None else f" ± {spread.error:.2g}"
        table.add_row(
            *([escape(spread.row)] if grouped else []),
            spread.metric,
            str(spread.count),
            f"{spread.mean:.5g}{error}",
            _number(spread.std, 2),
        )
    return table


def duration(seconds: float) -> str:
    """Return h:mm:ss."""
    return str(timedelta(seconds=max(0, round(seconds))))


def _fold(table: Table) -> None:
    """Add a column that breaks long names instead of cutting them off."""
    for column in table.columns:
        column.overflow = "fold"


def _changes(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()
    )


def _number(value: float | None, digits: int = 5) -> str:
    return "-" if value is None else f"{value:.{digits}g}"
