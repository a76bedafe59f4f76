"""Generate events, simulate the detector, reconstruct, and write EDM4HEP ROOT files in parallel processes."""

import difflib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from mlpf.errors import MLPFError, OutputExists
from mlpf.simulation.detector import CLIC
from mlpf.simulation.edm4hep_layouts import LayoutName
from mlpf.simulation.edm4hep_writer import Provenance, read_provenance, write_events
from mlpf.simulation.event import simulate_event
from mlpf.simulation.generator import SAMPLES, Generator
from mlpf.simulation.records import SimulatedEvent
from mlpf.workers import run_jobs


@dataclass(frozen=True)
class FileTask:
    """One file to make."""

    path: Path
    provenance: Provenance


@dataclass
class FileSummary:
    """What one file holds; counts are sums over its events."""

    events: int = 0
    tracks: int = 0
    clusters: int = 0
    hits: int = 0
    candidates: int = 0
    seconds: float = 0.0

    def count(self, event: SimulatedEvent) -> None:
        """Add one event."""
        self.events += 1
        self.tracks += len(event.tracks)
        self.clusters += len(event.clusters)
        self.hits += len(event.hits)
        self.candidates += len(event.candidates)

    def add(self, other: "FileSummary") -> None:
        """Add another file."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


def run(
    sample: str,
    num_events: int,
    output: Path,
    *,
    events_per_file: int = 100,
    seed: int = 1,
    first_event: int = 0,
    layout: LayoutName = "old",
    workers: int = 1,
    overwrite: bool = False,
) -> list[Path]:
    """Write ``num_events`` simulated events to ``<output>/reco_<published sample name>_<number>.root``.

    An event depends on ``seed``, ``sample`` and its number only. Complete files of an earlier run with the
    same arguments are kept, so that an interrupted run can be repeated.

    Args:
        sample: one of :data:`mlpf.simulation.generator.SAMPLES`.
        num_events: events to write.
        output: directory, made if missing.
        events_per_file: the last file may hold fewer.
        seed: seed of the sample.
        first_event: number of the first event.
        layout: how the files are laid out; the events are the same in all.
        workers: processes.
        overwrite: replace files that exist.

    Returns:
        The files, in order of event number.

    Raises:
        MLPFError: unknown sample, or a file cannot be written.
        OutputExists: a file of that name holds other events, or the same in another layout.
        MissingDependency: the generator is not installed.
    """
    wanted = Provenance(sample, seed, first_event, num_events, layout)
    tasks = _plan(wanted, Path(output), events_per_file)
    todo = tasks if overwrite else [task for task in tasks if not _is_done(task)]
    start = time.perf_counter()
    total = _run_all(todo, workers, num_events)
    _report(total, tasks, len(tasks) - len(todo), time.perf_counter() - start)
    return [task.path for task in tasks]


def _plan(wanted: Provenance, output: Path, events_per_file: int) -> list[FileTask]:
    """Split the events of a run into files."""
    sample = wanted.sample
    if sample not in SAMPLES:
        near = difflib.get_close_matches(sample, SAMPLES, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise MLPFError(f"no sample {sample!r}; {hint}Samples are {', '.join(SAMPLES)}")
    name, first_file = SAMPLES[sample].directory, SAMPLES[sample].first_file_seed
    tasks = []
    for offset in range(0, wanted.num_events, events_per_file):
        begin = wanted.first_event + offset
        path = output / f"reco_{name}_{first_file + begin // events_per_file}.root"
        size = min(events_per_file, wanted.num_events - offset)
        tasks.append(FileTask(path, replace(wanted, first_event=begin, num_events=size)))
    return tasks


def _is_done(task: FileTask) -> bool:
    """Return whether the file exists; files appear only when complete.

    Raises:
        OutputExists: it holds other events.
        DataError: it is no file of the simulation.
    """
    if not task.path.exists():
        return False
    found = read_provenance(task.path)
    if found != task.provenance:
        raise OutputExists(
            f"{task.path} holds {_describe(found)}, asked for {_describe(task.provenance)}; "
            f"choose another --output, or replace it with --overwrite"
        )
    return True


def _describe(provenance: Provenance) -> str:
    last = provenance.first_event + provenance.num_events - 1
    events = f"events {provenance.first_event} to {last} of seed {provenance.seed}"
    return f"{provenance.sample} (layout {provenance.layout}) {events}"


def _run_all(tasks: list[FileTask], workers: int, num_events: int) -> FileSummary:
    """Make all files; show progress. Returns the sum over the files."""
    total = FileSummary()
    columns = (TextColumn("simulate"), BarColumn(), MofNCompleteColumn(), TextColumn("events"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        bar = progress.add_task("simulate", total=num_events)
        progress.advance(bar, num_events - sum(task.provenance.num_events for task in tasks))
        for summary in _summaries(tasks, workers):
            total.add(summary)
            progress.advance(bar, summary.events)
    return total


def _summaries(tasks: list[FileTask], workers: int) -> Iterator[FileSummary]:
    """Yield the summary of each file as it is finished."""
    yield from run_jobs(make_file, [(task,) for task in tasks], [task.path.name for task in tasks], workers)


@lru_cache(maxsize=1)
def _generator(sample: str, seed: int) -> Generator:
    """Return this process's generator: starting Pythia takes longer than some events."""
    return Generator(sample, seed)


def make_file(task: FileTask) -> FileSummary:
    """Simulate and write the events of one file.

    Raises:
        MLPFError: the file cannot be written; nothing is left under its name.
    """
    summary = FileSummary()
    start = time.process_time()
    wanted = task.provenance
    generator = _generator(wanted.sample, wanted.seed)

    def events() -> Iterator[SimulatedEvent]:
        for number in range(wanted.first_event, wanted.first_event + wanted.num_events):
            event = simulate_event(generator, wanted.seed, wanted.sample, number, CLIC)
            summary.count(event)
            yield event

    try:
        task.path.parent.mkdir(parents=True, exist_ok=True)
        write_events(task.path, events(), wanted)
    except OSError as error:
        raise MLPFError(
            f"{task.path}: cannot write ({error.strerror or error}); free space or choose another --output"
        ) from error
    summary.seconds = time.process_time() - start
    return summary


def _report(total: FileSummary, tasks: list[FileTask], kept: int, wall_seconds: float) -> None:
    """Print what was made."""
    table = Table("quantity", "value", title="Simulation")
    size = sum(task.path.stat().st_size for task in tasks)
    table.add_row("files", f"{len(tasks)} ({kept} kept from before)")
    table.add_row("events simulated now", str(total.events))
    table.add_row("size of all files", f"{size / 1e6:.1f} MB")
    if total.events:
        table.add_row("events/s", f"{total.events / wall_seconds:.1f}")
        table.add_row("events/s per core (CPU time)", f"{total.events / total.seconds:.1f}")
        for name in ("tracks", "clusters", "hits", "candidates"):
            table.add_row(f"{name} per event", f"{getattr(total, name) / total.events:.1f}")
    Console(stderr=True).print(table)
