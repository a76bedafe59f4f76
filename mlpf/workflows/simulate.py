"""Generate events, simulate the detector, reconstruct, and write EDM4HEP or Delphes files in parallel."""

import difflib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from mlpf.config.detector import CLIC, DetectorConfig
from mlpf.data.delphes.tables import RawDelphes
from mlpf.engine.base import Engine
from mlpf.engine.jobs import run_jobs
from mlpf.engine.opening import ENGINE_FOLDER, HERE, Placement, engine_for
from mlpf.errors import MLPFError, OutputExists
from mlpf.files.locking import locked, remove_stale_parts
from mlpf.physics.samples import CLIC_SAMPLES, DELPHES_PILEUP, DELPHES_SAMPLES
from mlpf.simulation.clic.detector import Detector, GranularityName, build_detector
from mlpf.simulation.clic.edm4hep_layouts import LayoutName
from mlpf.simulation.clic.edm4hep_writer import Provenance, read_provenance, write_events
from mlpf.simulation.clic.event_data import SimulatedEvent
from mlpf.simulation.clic.generator import Generator
from mlpf.simulation.clic.simulate import simulate_event
from mlpf.simulation.delphes import simulate as delphes_event
from mlpf.simulation.delphes import writer as delphes_writer
from mlpf.simulation.delphes.generator import DelphesGenerator
from mlpf.simulation.delphes.writer import DelphesProvenance, FormatName

CLIC_OBJECTS = ("tracks", "clusters", "hits", "candidates")
DELPHES_OBJECTS = ("particles", "tracks", "towers")
LOCK_FILE = ".simulate.lock"
_OF_DELPHES = {sample.simulation_name: sample for sample in DELPHES_SAMPLES.values()}
_SAMPLES = {sample.simulation_name: sample for sample in CLIC_SAMPLES.values()} | _OF_DELPHES


@dataclass(frozen=True)
class FileTask:
    """A file to make."""

    path: Path
    provenance: Provenance | DelphesProvenance


@dataclass
class FileSummary:
    """Contents of one file; counts are sums over its events."""

    events: int = 0
    objects: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def count(self, event: SimulatedEvent | RawDelphes) -> None:
        """Add one event."""
        self.events += 1
        names = DELPHES_OBJECTS if isinstance(event, RawDelphes) else CLIC_OBJECTS
        self.objects.update({name: len(getattr(event, name)) for name in names})

    def add(self, other: "FileSummary") -> None:
        """Add another file."""
        self.events += other.events
        self.objects.update(other.objects)
        self.seconds += other.seconds


def run(
    sample: str,
    num_events: int,
    output: Path,
    *,
    events_per_file: int = 100,
    seed: int = 1,
    first_event: int = 0,
    layout: LayoutName = "old",
    granularity: GranularityName = "clusters",
    detector: DetectorConfig | None = None,
    pileup: float | None = None,
    file_format: FormatName = "root",
    placement: Placement = HERE,
    overwrite: bool = False,
) -> list[Path]:
    """Write simulated events to ``<output>/reco_<published sample name>_<number>.root``.

    Files of Delphes samples are called ``tev14_pythia8_<process>_<seed>_<number>``, as published.

    An event depends on ``seed``, ``sample``, ``detector`` and its number only. Complete files of an earlier
    run with the same arguments are kept, so that an interrupted run can be repeated.

    Args:
        sample: ``simulation_name`` of a sample of :mod:`mlpf.physics.samples`.
        num_events: events to write.
        output: directory, made if missing.
        events_per_file: the last file may hold fewer.
        seed: seed of the sample.
        first_event: number of the first event.
        layout: how EDM4HEP files are laid out; the events are the same in all.
        granularity: of the calorimeters, key of ``mlpf.simulation.clic.detector.GRANULARITIES``.
        detector: of EDM4HEP samples; default CLIC.
        pileup: Delphes samples only: mean number of further collisions; None = ``DELPHES_PILEUP``.
        file_format: Delphes samples only: ROOT or the published form of pickle; the events are the same.
        placement: place of the processes that make the files.
        overwrite: replace files that exist.

    Returns:
        The files, in order of event number.

    Raises:
        MLPFError: unknown sample, an option that the sample does not have, or a file cannot be written.
        OutputExists: a file of that name holds other events, or the same in another layout or granularity,
            or another process is at work on this output.
        MissingDependency: the generator is not installed.
    """
    _check_options(sample, layout, granularity, detector, pileup, file_format)
    wanted: Provenance | DelphesProvenance
    if sample in _OF_DELPHES:
        mean = float(DELPHES_PILEUP) if pileup is None else pileup
        wanted = DelphesProvenance(sample, seed, first_event, num_events, mean)
    else:
        detector = detector or CLIC
        build_detector(detector, granularity)  # one that cannot be simulated is told before anything is made
        wanted = Provenance(sample, seed, first_event, num_events, layout, granularity, detector)
    output = Path(output)
    tasks = _plan(wanted, output, events_per_file, file_format)
    _make_missing(tasks, output, placement, overwrite)
    return [task.path for task in tasks]


def _make_missing(tasks: list[FileTask], output: Path, placement: Placement, overwrite: bool) -> None:
    """Make the missing files, with a lock on the directory, and report."""
    start = time.perf_counter()
    if not overwrite:
        for task in tasks:
            _is_done(task)  # existing other files are reported before anything is made
    try:
        output.mkdir(parents=True, exist_ok=True)
        with locked(output / LOCK_FILE, str(output)):
            remove_stale_parts(output, {task.path.name for task in tasks})
            todo = tasks if overwrite else [task for task in tasks if not _is_done(task)]
            with engine_for(placement, output / ENGINE_FOLDER, len(todo)) as engine:
                total = _run_all(engine, todo, sum(task.provenance.num_events for task in tasks))
    except OSError as error:
        raise MLPFError(f"{output}: not usable as output directory ({error}); choose another") from error
    _report(total, tasks, len(tasks) - len(todo), time.perf_counter() - start)


def _check_options(
    sample: str,
    layout: LayoutName,
    granularity: GranularityName,
    detector: DetectorConfig | None,
    pileup: float | None,
    file_format: FormatName,
) -> None:
    """Refuse unknown samples, and options without effect."""
    if sample not in _SAMPLES:
        near = difflib.get_close_matches(sample, _SAMPLES, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise MLPFError(f"no sample {sample!r}; {hint}Samples are {', '.join(_SAMPLES)}")
    if sample in _OF_DELPHES:
        wrong = {
            "--layout": layout != "old",
            "--granularity": granularity != "clusters",
            "--detector": detector is not None,
        }
        remedy = "an EDM4HEP sample"
    else:
        wrong = {"--pileup": pileup is not None, "--format": file_format != "root"}
        remedy = f"one of {', '.join(_OF_DELPHES)}"
    for option, given in wrong.items():
        if given:
            raise MLPFError(f"sample {sample} has no option {option}; leave it out or choose {remedy}")


def _file_name(wanted: Provenance | DelphesProvenance, number: int, file_format: FormatName) -> str:
    """Return the published name of a file; ``number`` counts the files of a sample from 0."""
    sample = _SAMPLES[wanted.sample]
    if isinstance(wanted, DelphesProvenance):
        start = f"{sample.published_raw}_{wanted.seed}"
        return f"{start}_{number}{delphes_writer.SUFFIXES[file_format]}"
    name = sample.name if sample.is_gun else sample.published_raw
    return f"reco_{name}_{sample.first_file + number}.root"


def _plan(
    wanted: Provenance | DelphesProvenance, output: Path, events_per_file: int, file_format: FormatName
) -> list[FileTask]:
    """Split the events of a run into files."""
    tasks = []
    for offset in range(0, wanted.num_events, events_per_file):
        begin = wanted.first_event + offset
        path = output / _file_name(wanted, begin // events_per_file, file_format)
        size = min(events_per_file, wanted.num_events - offset)
        tasks.append(FileTask(path, replace(wanted, first_event=begin, num_events=size)))
    return tasks


def _is_done(task: FileTask) -> bool:
    """Return whether the file exists; files appear only when complete.

    Raises:
        OutputExists: it holds other events.
        DataError: the file is not from the simulation.
    """
    if not task.path.exists():
        return False
    is_delphes = isinstance(task.provenance, DelphesProvenance)
    found = (delphes_writer.read_provenance if is_delphes else read_provenance)(task.path)
    if found != task.provenance:
        difference = f"{_describe(found)}, asked for {_describe(task.provenance)}"
        if isinstance(found, Provenance) and isinstance(task.provenance, Provenance):
            other = found.detector.difference(task.provenance.detector, "there", "asked for")
            difference = f"events of another detector: {other}" if other else difference
        raise OutputExists(
            f"{task.path} holds {difference}; choose another --output, or replace it with --overwrite"
        )
    return True


def _describe(provenance: Provenance | DelphesProvenance) -> str:
    last = provenance.first_event + provenance.num_events - 1
    events = f"events {provenance.first_event} to {last} of seed {provenance.seed}"
    if isinstance(provenance, DelphesProvenance):
        return f"{provenance.sample} (pile-up {provenance.pileup:g}) {events}"
    return f"{provenance.sample} (layout {provenance.layout}, {provenance.granularity}) {events}"


def _run_all(engine: Engine, tasks: list[FileTask], num_events: int) -> FileSummary:
    """Make all files; show progress. Returns the sum over the files."""
    total = FileSummary()
    columns = (TextColumn("simulate"), BarColumn(), MofNCompleteColumn(), TextColumn("events"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        bar = progress.add_task("simulate", total=num_events)
        progress.advance(bar, num_events - sum(task.provenance.num_events for task in tasks))
        names = [task.path.name for task in tasks]
        for summary in run_jobs(engine, make_file, [(task,) for task in tasks], names):
            total.add(summary)
            progress.advance(bar, summary.events)
    return total


@lru_cache(maxsize=1)
def _generator(sample: str, seed: int, detector: Detector) -> Generator:
    """Return this process's generator: starting Pythia takes longer than some events."""
    return Generator(sample, seed, detector)


@lru_cache(maxsize=1)
def _delphes_generator(sample: str, seed: int, pileup: float) -> DelphesGenerator:
    """Return the generator of this process with its pool of soft collisions."""
    return DelphesGenerator(sample, seed, pileup)


def _events(
    wanted: Provenance | DelphesProvenance, summary: FileSummary
) -> Iterator[SimulatedEvent | RawDelphes]:
    """Simulate the events of a file and count them."""
    for number in range(wanted.first_event, wanted.first_event + wanted.num_events):
        event: SimulatedEvent | RawDelphes
        if isinstance(wanted, DelphesProvenance):
            generator = _delphes_generator(wanted.sample, wanted.seed, wanted.pileup)
            event = delphes_event.simulate_event(generator, number)
        else:
            detector = build_detector(wanted.detector, wanted.granularity)
            clic = _generator(wanted.sample, wanted.seed, detector)
            event = simulate_event(clic, wanted.seed, wanted.sample, number, detector)
        summary.count(event)
        yield event


def make_file(task: FileTask) -> FileSummary:
    """Simulate and write the events of one file.

    Raises:
        MLPFError: the file cannot be written; nothing is left under its name.
    """
    summary = FileSummary()
    start = time.process_time()
    wanted = task.provenance
    is_delphes = isinstance(wanted, DelphesProvenance)
    write: Any = delphes_writer.write_events if is_delphes else write_events
    try:
        write(task.path, _events(wanted, summary), wanted)
    except OSError as error:
        raise MLPFError(
            f"{task.path}: cannot write ({error.strerror or error}); free space or choose another --output"
        ) from error
    summary.seconds = time.process_time() - start
    return summary


def _report(total: FileSummary, tasks: list[FileTask], kept: int, wall_seconds: float) -> None:
    """Print a table of the result."""
    table = Table("quantity", "value", title="Simulation")
    size = sum(task.path.stat().st_size for task in tasks)
    table.add_row("files", f"{len(tasks)} ({kept} kept from before)")
    table.add_row("events simulated now", str(total.events))
    table.add_row("size of all files", f"{size / 1e6:.1f} MB")
    if total.events:
        table.add_row("events/s", f"{total.events / wall_seconds:.1f}")
        table.add_row("events/s per core (CPU time)", f"{total.events / total.seconds:.1f}")
        for name, number in total.objects.items():
            table.add_row(f"{name} per event", f"{number / total.events:.1f}")
    Console(stderr=True).print(table)
