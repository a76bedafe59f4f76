"""Files of events -> parquet files of features and targets, one each, in parallel processes."""

import errno
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mlpf.data.delphes.pickle_conversion import PicklePreparation
from mlpf.data.delphes.root_conversion import DelphesPreparation
from mlpf.data.edm4hep.conversion import Preparation
from mlpf.data.edm4hep.leaves import open_root, readable_errors
from mlpf.data.events import Events, EventsWriter, read_metadata
from mlpf.data.input_files import base_name, checksum, expand_inputs
from mlpf.engine.jobs import run_jobs
from mlpf.engine.opening import ENGINE_FOLDER, HERE, Placement, engine_for
from mlpf.errors import DataError, OutputExists, SchemaMismatch
from mlpf.files.locking import Shard, locked, remove_stale_parts
from mlpf.physics.schemas import SCHEMAS, EventSchema

PICKLE_SUFFIXES = (".pkl", ".pkl.bz2")
SUFFIXES = (".root", *PICKLE_SUFFIXES)
LOCK_FILE = ".postprocess.lock"
CHECKSUM_KEY = "source_blake2b"

# What EDM4HEP files become; Delphes files are always made of tracks and towers.
SCHEMA_OF_ELEMENTS = {"clusters": SCHEMAS["clic"], "hits": SCHEMAS["clic_hits"]}
_DELPHES_TREE = "Delphes"
# No other file could be written either.
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FilePreparation(Protocol):
    """Reads one file, chunk by chunk."""

    def chunks(self) -> Iterator[Events]:
        """Yield the usable events."""

    @property
    def metadata(self) -> dict[str, Any]:
        """What describes the file; complete after the last chunk."""


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


def preparation_of(source: Path, elements: str) -> tuple[FilePreparation, EventSchema]:
    """Choose the reader by what the file is.

    Raises:
        DataError: a file of Delphes where hits are asked for, or a file that cannot be opened.
    """
    is_pickle = source.name.endswith(PICKLE_SUFFIXES)
    if not is_pickle and not _is_delphes(source):
        schema = SCHEMA_OF_ELEMENTS[elements]
        return Preparation(source, schema), schema
    if elements != "clusters":
        raise DataError(f"{source}: a file of Delphes has tracks and towers, no {elements}; drop --elements")
    reader = PicklePreparation(source) if is_pickle else DelphesPreparation(source)
    return reader, SCHEMAS["delphes"]


def _is_delphes(source: Path) -> bool:
    if not source.is_file():
        return False
    with open_root(source) as file, readable_errors(source):
        return _DELPHES_TREE in file.keys(cycle=False, recursive=False)


def _process(source: Path, target: Path, elements: str) -> FileReport:
    """Turn one file into parquet; what is wrong with the file itself becomes part of the report.

    Raises:
        DataError: the disk is full.
    """
    start = time.process_time()
    lost_energy = gen_energy = 0.0
    try:
        preparation, schema = preparation_of(source, elements)
        # Before the events: of a file that changes meanwhile, the next run finds another checksum.
        source_checksum = checksum(source)
        with EventsWriter(target, schema) as writer:
            for events in preparation.chunks():
                writer.write(events)
                lost_energy += float(events.scalars.get("lost_energy", np.zeros(1)).sum())
                if "gen_particles" in events.jagged:
                    gen_energy += float(events.jagged["gen_particles"].values[:, -1].sum(dtype=np.float64))
            # Sorted, so that a file has the same bytes whichever process writes it.
            metadata = {
                key: dict(sorted(value.items())) if isinstance(value, dict) else value
                for key, value in preparation.metadata.items()
            }
            if not writer.num_events:
                reasons = ", ".join(f"{n} x {reason}" for reason, n in metadata["skipped"].items())
                raise DataError(
                    f"{source}: holds no usable event ({reasons or 'it is empty'}); check the file"
                )
            writer.finish({**metadata, CHECKSUM_KEY: source_checksum})
    except DataError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in _DISK_FULL:
            raise
        return FileReport(source, error=str(error), cpu_seconds=time.process_time() - start)
    return FileReport(
        source,
        num_events=writer.num_events,
        skipped=metadata["skipped"],
        counters=metadata["counters"],
        lost_energy=lost_energy,
        gen_energy=gen_energy,
        cpu_seconds=time.process_time() - start,
    )


def _require_ours(source: Path, target: Path, elements: str) -> str | None:
    """Return what the output of a file is made of, None if it is not there.

    Raises:
        OutputExists: ``target`` is not ours, or was made from a file of another name or as other elements.
    """
    if not target.exists():
        return None
    remedy = "move it away, choose another --output, or replace it with --overwrite"
    try:
        found = read_metadata(target)
    except SchemaMismatch as error:
        raise OutputExists(f"{target} was made with other columns; {remedy}") from error
    except DataError as error:
        raise OutputExists(
            f"{target} is there and is no complete output of mlpf postprocess; {remedy}"
        ) from error
    if found.get("source") != source.name:
        raise OutputExists(f"{target} was made from {found.get('source')}, not from {source.name}; {remedy}")
    schemas = [SCHEMA_OF_ELEMENTS[elements].name]
    schemas += [SCHEMAS["delphes"].name] if elements == "clusters" else []
    made_of = found.get("schema")
    if made_of not in schemas:
        raise OutputExists(f"{target} holds events of {made_of}, asked for {' or '.join(schemas)}; {remedy}")
    return str(made_of)


def _is_finished(source: Path, target: Path, elements: str) -> bool:
    """Return whether ``target`` was made from ``source`` as it is now, by the present rules of truth.

    Raises:
        OutputExists: ``target`` is not ours, or was made from a file of another name or as other elements.
    """
    made_of = _require_ours(source, target, elements)
    if made_of is None:
        return False
    found = read_metadata(target)
    if not source.is_file():
        return False
    is_pickle = source.name.endswith(PICKLE_SUFFIXES)
    reader: FilePreparation
    if made_of == SCHEMAS["delphes"].name:
        reader = (PicklePreparation if is_pickle else DelphesPreparation)(source)
    else:
        reader = Preparation(source, SCHEMAS[made_of])
    wanted = reader.metadata
    if any(found.get(key) != wanted[key] for key in ("source_bytes", "truth_version")):
        return False
    try:
        return bool(found.get(CHECKSUM_KEY) == checksum(source))
    except DataError:
        return False  # the attempt to make it again reports and counts the file


def run(
    inputs: Sequence[str | Path],
    output: Path,
    *,
    elements: str = "clusters",
    placement: Placement = HERE,
    shard: Shard | None = None,
    overwrite: bool = False,
) -> PostprocessSummary:
    """Process every input file that has no finished output yet.

    An output of ours is made again if the content of its source, or the rules of truth, changed.

    Args:
        inputs: files of EDM4HEP or Delphes (ROOT or pickle), directories of them, or globs.
        output: directory for ``<base name>.parquet``.
        elements: ``clusters`` or ``hits``: what EDM4HEP events are made of besides tracks.
        placement: where the files are processed.
        shard: process the files of this job only: every n-th in the order of names.
        overwrite: make finished outputs again, and replace whatever has the name of an output.

    Returns:
        What became of each file. A file or event that cannot be used is reported and counted.

    Raises:
        DataError: an input matches nothing, every file failed, or the disk is full.
        OutputExists: another process is at work on this output, or a file of its name is not ours, was
            made from a file of another name or of other elements.
        MLPFError: worker processes were killed, or the site cannot be used.
    """
    start = time.perf_counter()
    console = Console()
    sources = expand_inputs(inputs, SUFFIXES)
    if shard is not None:
        sources = shard.of(sources)
    if sources and not any(source.exists() for source in sources):
        raise DataError(f"{sources[0]}: no such file; give files, directories or quoted globs")
    if not overwrite:
        for source in sources:
            _require_ours(source, _target(source, output), elements)
    try:
        output.mkdir(parents=True, exist_ok=True)
        with locked(output / LOCK_FILE, str(output), shard):
            reports = _process_all(sources, output, elements, placement, overwrite, console)
    except OSError as error:
        raise DataError(f"{output}: not usable as output directory ({error}); choose another") from error
    reports.sort(key=lambda r: r.source.name)
    summary = PostprocessSummary(tuple(reports), time.perf_counter() - start)
    if sources and summary.num_failed == len(sources):
        first = next(r.error for r in reports if r.error)
        raise DataError(f"none of {len(sources)} files could be used; the first: {first}")
    console.print(_table(summary, shard))
    return summary


def _target(source: Path, output: Path) -> Path:
    """Return the parquet file of a source."""
    return output / f"{base_name(source, SUFFIXES)}.parquet"


def _process_all(
    sources: Sequence[Path],
    output: Path,
    elements: str,
    placement: Placement,
    overwrite: bool,
    console: Console,
) -> list[FileReport]:
    """Process what is not finished, and say what is skipped as it happens."""
    targets = {source: _target(source, output) for source in sources}
    remove_stale_parts(output, {target.name for target in targets.values()})
    done = {s for s in sources if not overwrite and _is_finished(s, targets[s], elements)}
    reports = [FileReport(source, reused=True) for source in done]
    jobs = [(source, target, elements) for source, target in targets.items() if source not in done]
    with engine_for(placement, output / ENGINE_FOLDER, len(jobs)) as engine:
        for report in track(
            run_jobs(engine, _process, jobs, [source.name for source, *_ in jobs]),
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
    return reports


def _table(summary: PostprocessSummary, shard: Shard | None) -> Table:
    table = Table(f"postprocess, shard {shard}" if shard else "postprocess", "")
    table.add_row("files written", str(len(summary.files) - summary.num_failed - summary.num_reused))
    table.add_row("files reused (finished before)", str(summary.num_reused))
    table.add_row("files skipped", str(summary.num_failed))
    table.add_row("events written", str(summary.num_events))
    for reason, count in sorted(summary.skipped.items()):
        table.add_row(f"events skipped: {reason}", str(count))
    for name, count in sorted(summary.counters.items()):
        table.add_row(name, str(count))
    if any(f.gen_energy for f in summary.files):
        table.add_row("generator energy on no target", f"{100 * summary.lost_fraction:.2f} %")
    table.add_row("events per CPU second", f"{summary.events_per_cpu_second:.0f}")
    table.add_row("wall time", f"{summary.wall_seconds:.1f} s")
    return table
