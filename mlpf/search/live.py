"""Show the progress of a search from its files, as a table on a terminal or lines in a log."""

import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

from mlpf.config.search.space import search_section
from mlpf.engine.display import Display
from mlpf.errors import MLPFError
from mlpf.files.atomic import read_json
from mlpf.files.run_directory import RunDirectory
from mlpf.search.results.run_progress import (
    History,
    device_hours,
    network_constants,
    objective_curve,
    objective_name,
    read_history,
    spent_seconds,
    trained_epochs,
)
from mlpf.search.state import ORACLE_FILE, SearchState, TrialRecord, ranked, read_search
from mlpf.search.trial_files import TrialFiles

Stamp = tuple[int, int]


class LiveTable:
    """Shows a search while it runs. If a file cannot be read now, the last contents are shown.

    Args:
        directory: directory of the search.
        console: output: a live table on a terminal, one line per change in a log.
        clock: returns Unix time.
    """

    def __init__(self, directory: Path, console: Console, clock: Callable[[], float] = time.time):
        self._directory = directory
        self._display = Display(console)
        self._clock = clock
        self._begin = clock()
        self._state: SearchState | None = None
        self._stamp: Stamp | None = None
        self._histories: dict[str, tuple[Stamp | None, History]] = {}

    def update(self) -> None:
        """Read changed files and show what is new. Cheap, and raises no errors."""
        self._read()
        if self._state is None:
            return
        state = self._state
        self._display.show(lambda: self._table(state), lambda: self._key(state), lambda: self._facts(state))

    def close(self) -> None:
        """Show the last state and leave the terminal as it was, also after an error."""
        try:
            self.update()
        finally:
            self._display.close()

    def _read(self) -> None:
        """Read the state of the search if its file has changed."""
        stamp = _stamp(self._directory / ORACLE_FILE)
        if stamp == self._stamp and self._state is not None:
            return
        try:
            self._state = read_search(self._directory)
        except (MLPFError, OSError, ValueError):
            return  # being written, or not yet visible on a shared file system: read it next time
        self._stamp = stamp

    def _history(self, run: str) -> History:
        """Return the history of a run, read again only if its file has changed."""
        stamp = _stamp(RunDirectory(TrialFiles(self._directory, run).run_dir).history)
        known, history = self._histories.get(run, (None, []))
        if stamp != known:
            try:
                history = read_history(self._directory, run)
            except MLPFError:
                return history
            self._histories[run] = (stamp, history)
        return history

    def _key(self, state: SearchState) -> tuple[object, ...]:
        """Return a key. In a log, a new line is printed when it changes."""
        best = next(iter(ranked(state.trials)), None)
        running = tuple((t.worker, t.trial_id) for t in state.trials if t.status == "running")
        counts = tuple(sorted(Counter(t.status for t in state.trials).items()))
        return counts, running, best and best.trial_id, state.finished, state.problem

    def _facts(self, state: SearchState) -> list[tuple[str, str]]:
        """Return names and texts of the summary."""
        trials = state.trials
        searched = [t for t in trials if t.purpose == "search"]
        counts = Counter(t.status for t in trials)
        facts = [
            ("configurations", _of(len({t.run for t in searched}), _planned(state))),
            ("completed", str(counts["completed"])),
            ("running", str(counts["running"])),
            ("waiting", str(counts["waiting"])),
            ("failed", _failures(trials)),
        ]
        confirm = [t for t in trials if t.purpose == "confirm"]
        if confirm:
            done = sum(t.status == "completed" for t in confirm)
            facts.append(("confirmed", _of(done, _planned_confirmations(state))))
        best = next(iter(ranked(trials)), None)
        text = "none yet"
        if best is not None:
            plural = "" if best.epochs == 1 else "s"
            text = f"{best.objective:.5g} (run {best.run}, {best.epochs} epoch{plural})"
        facts.append(("best", text))
        epochs = 0
        hours = {"GPU-hours": 0.0, "core-hours": 0.0}
        for trial in trials:
            epochs += trained_epochs(trial, self._history(trial.run) if _needs_history(trial) else [])
            seconds = spent_seconds(self._directory, trial)
            hours["GPU-hours" if trial.on_gpu else "core-hours"] += device_hours(trial, seconds)
        facts += [(unit, f"{number:.2f}") for unit, number in hours.items() if number or unit == "core-hours"]
        facts += [("epochs", str(epochs)), ("elapsed", _duration(self._clock() - self._begin))]
        if state.limit:
            facts.append(("limit reached", state.limit))
        if state.problem:
            facts.append(("gives up", state.problem))
        return facts

    def _table(self, state: SearchState) -> Group:
        """Return summary and running trials."""
        summary = Table("search", "", show_header=False)
        for name, text in self._facts(state):
            summary.add_row(name, escape(text))
        at_work = [t for t in state.trials if t.status == "running"]
        if not at_work:
            return Group(summary)
        section = search_section(state.config)
        running = Table("worker", "trial", "run", "rung", "epoch", f"last {objective_name(section)}", "since")
        constants = network_constants(state.trials)
        for trial in at_work:
            history = self._history(trial.run)
            curve = objective_curve(section, history[-1:], constants[trial.run])
            worker, since = _place(state.directory, trial)
            running.add_row(
                escape(worker),
                trial.trial_id,
                escape(trial.run),
                str(trial.rung),
                f"{min(len(history), trial.epochs)}/{trial.epochs}",
                f"{curve[-1][1]:.5g}" if curve else "-",
                "-" if since is None else _duration(self._clock() - since),
            )
        return Group(summary, running)


def _place(directory: Path, trial: TrialRecord) -> tuple[str, float | None]:
    """Return the worker of a trial and the start of its attempt (Unix time, s), from the worker's file."""
    place = read_json(TrialFiles(directory, trial.run).worker, dict)
    if place.get("trial_id") != trial.trial_id:
        return "waits for a worker", None
    return str(place.get("worker", "")), place.get("since")


def _stamp(path: Path) -> Stamp | None:
    """Return a value that changes when a file is replaced; None if there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _needs_history(trial: TrialRecord) -> bool:
    """Return whether the epochs of a trial are not in its record yet."""
    return "trained_epochs" not in trial.metrics


def _planned(state: SearchState) -> int | None:
    """Return the number of configurations to search; None for Hyperband, where it is not known in advance."""
    section = search_section(state.config)
    return None if section.algorithm == "hyperband" else section.num_trials


def _planned_confirmations(state: SearchState) -> int:
    """Return the number of trainings of the confirmation."""
    section = search_section(state.config).confirm
    return section.seeds * (1 + min(section.top, len(ranked(state.trials))))


def _of(number: int, total: int | None) -> str:
    return str(number) if total is None else f"{number}/{total}"


def _failures(trials: list[TrialRecord]) -> str:
    """Return the number of failed trials, by kind."""
    kinds = Counter(t.failure_kind for t in trials if t.status == "failed")
    listed = f" ({', '.join(f'{count} {kind}' for kind, count in kinds.items())})" if kinds else ""
    return f"{sum(kinds.values())}{listed}"


def _duration(seconds: float) -> str:
    """Return h:mm:ss."""
    return str(timedelta(seconds=max(0, round(seconds))))
