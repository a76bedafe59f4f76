"""EDM4HEP ROOT files -> parquet files of features and targets, one each, in parallel processes."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mlpf.data.event import read_metadata, write_events
from mlpf.data.preparation import prepare_file
from mlpf.data.sources import expand_inputs
from mlpf.data.truth import TRUTH_VERSION
from mlpf.errors import DataError


@dataclass(frozen=True)
class FileReport:
    """What became of one file.

    Attributes:
        source: the ROOT file.
        error: why it was skipped, empty if it was not.
        reused: its parquet file was there already.
        num_events: events written.
        skipped: events left out, by reason.
        counters: what was ignored or unusual, by name.
        lost_energy: sum over the events, GeV.
        gen_energy: energy of all generator particles, sum over the events, GeV.
        cpu_seconds: processor time spent on it.
    """

    source: Path
    error: str = ""
    reused: bool = False
    num_events: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    lost_energy: float = 0.0
    gen_energy: float = 0.0
    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class PostprocessSummary:
    """All files of a run, in the order of their names."""

    files: tuple[FileReport, ...]
    wall_seconds: float

    @property
    def num_events(self) -> int:
        """Events written now."""
        return sum(f.num_events for f in self.files)

    @property
    def num_failed(self) -> int:
        """Files that could not be used."""
        return sum(bool(f.error) for f in self.files)

    @property
    def num_reused(self) -> int:
        """Files whose output was there already."""
        return sum(f.reused for f in self.files)

    @property
    def skipped(self) -> Counter[str]:
        """Events left out, by reason."""
        return sum((Counter(f.skipped) for f in self.files), Counter())

    @property
    def counters(self) -> Counter[str]:
        """What was ignored or unusual, by name."""
        return sum((Counter(f.counters) for f in self.files), Counter())

    @property
    def lost_fraction(self) -> float:
        """Energy that is on no target, relative to that of all generator particles."""
        total = sum(f.gen_energy for f in self.files)
        return sum(f.lost_energy for f in self.files) / total if total else 0.0

    @property
    def events_per_cpu_second(self) -> float:
        """Events per second of processor time."""
        seconds = sum(f.cpu_seconds for f in self.files)
        return self.num_events / seconds if seconds else 0.0


def _process(source: Path, target: Path) -> FileReport:
    start = time.process_time()
    try:
        events = prepare_file(source)
        if not len(events):
            reasons = ", ".join(f"{n} x {reason}" for reason, n in events.metadata["skipped"].items())
            raise DataError(f"{source}: holds no usable event ({reasons or 'it is empty'}); check the file")
        write_events(events, target)
    except DataError as error:
        return FileReport(source, error=str(error), cpu_seconds=time.process_time() - start)
    energy = events.jagged["gen_particles"].values[:, -1]
    return FileReport(
        source,
        num_events=len(events),
        skipped=events.metadata["skipped"],
        counters=events.metadata["counters"],
        lost_energy=float(events.scalars["lost_energy"].sum()),
        gen_energy=float(energy.sum(dtype=np.float64)),
        cpu_seconds=time.process_time() - start,
    )


def _is_finished(source: Path, target: Path) -> bool:
    """Return whether ``target`` was made from ``source`` as it is now by the present rules."""
    if not (target.is_file() and source.is_file()):
        return False
    try:
        metadata = read_metadata(target)
    except DataError:
        return False
    wanted = {"source": source.name, "source_bytes": source.stat().st_size, "truth_version": TRUTH_VERSION}
    return all(metadata.get(key) == value for key, value in wanted.items())


def _in_pool(jobs: Sequence[tuple[Path, Path]], workers: int) -> Iterator[FileReport]:
    if workers <= 1 or len(jobs) <= 1:
        yield from (_process(*job) for job in jobs)
        return
    # spawn: a forked process would inherit threads of uproot and arrow in an unknown state.
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn")) as pool:
        futures: list[Future[FileReport]] = [pool.submit(_process, *job) for job in jobs]
        for future in as_completed(futures):
            yield future.result()


def run(
    inputs: Sequence[str | Path], output: Path, *, workers: int = 1, overwrite: bool = False
) -> PostprocessSummary:
    """Process every input file that has no finished output yet.

    Args:
        inputs: ROOT files, directories of them, or globs.
        output: directory for ``<base name>.parquet``.
        workers: processes.
        overwrite: make finished outputs again.

    Returns:
        What became of each file. A file or event that cannot be used is reported and counted.

    Raises:
        DataError: an input matches nothing, or every file failed.
    """
    start = time.perf_counter()
    console = Console()
    sources = expand_inputs(inputs, (".root",))
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{output}: not usable as output directory ({error}); choose another") from error
    targets = {source: output / f"{source.stem}.parquet" for source in sources}
    done = [s for s in sources if not overwrite and _is_finished(s, targets[s])]
    reports = [FileReport(source, reused=True) for source in done]
    jobs = [(source, target) for source, target in targets.items() if source not in set(done)]
    for report in track(
        _in_pool(jobs, workers),
        "postprocess",
        total=len(jobs),
        console=console,
        disable=not console.is_terminal,
    ):
        if report.error:
            console.print(
                f"skipped {report.error}", style="yellow", soft_wrap=True, markup=False, highlight=False
            )
        reports.append(report)
    reports.sort(key=lambda r: r.source.name)
    summary = PostprocessSummary(tuple(reports), time.perf_counter() - start)
    if summary.num_failed == len(sources):
        first = next(r.error for r in reports if r.error)
        raise DataError(f"none of {len(sources)} files could be used; the first: {first}")
    console.print(_table(summary))
    return summary


def _table(summary: PostprocessSummary) -> Table:
    table = Table("postprocess", "", title=None)
    table.add_row("files written", str(len(summary.files) - summary.num_failed - summary.num_reused))
    table.add_row("files reused (finished before)", str(summary.num_reused))
    table.add_row("files skipped", str(summary.num_failed))
    table.add_row("events written", str(summary.num_events))
    for reason, count in sorted(summary.skipped.items()):
        table.add_row(f"events skipped: {reason}", str(count))
    for name, count in sorted(summary.counters.items()):
        table.add_row(name, str(count))
    table.add_row("generator energy on no target", f"{100 * summary.lost_fraction:.2f} %")
    table.add_row("events per CPU second", f"{summary.events_per_cpu_second:.0f}")
    table.add_row("wall time", f"{summary.wall_seconds:.1f} s")
    return table
