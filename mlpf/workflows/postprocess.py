"""Files of events -> one parquet file of features and targets each, in parallel processes."""

import errno
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mlpf.config.detector import DetectorConfig, recorded_detector
from mlpf.data.events import FORMAT_VERSION, EventsWriter, read_description, read_metadata
from mlpf.data.formats import DEFAULT_ELEMENTS, FORMATS, SUFFIXES, open_conversion
from mlpf.data.input_files import base_name, checksum, expand_inputs
from mlpf.engine.jobs import run_jobs
from mlpf.engine.opening import ENGINE_FOLDER, HERE, Placement, engine_for
from mlpf.errors import DataError, OutputExists, SchemaMismatch
from mlpf.files.locking import Shard, locked, remove_stale_parts
from mlpf.physics.features import PARTICLE_COLUMNS

LOCK_FILE = ".postprocess.lock"
CHECKSUM_KEY = "source_blake2b"
# Reason to make an output without a message.
NOT_THERE = "not there"
# Errors that also prevent writing other files.
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class FileReport:
    """The result of one file.

    Attributes:
        source: the ROOT file.
        error: reason why it was skipped; empty if it was not.
        reused: its parquet file existed already.
        num_events: events written.
        skipped: events left out, by reason.
        counters: numbers of ignored and unusual items, by name.
        lost_energy: sum over the events, GeV.
        gen_energy: energy of all generator particles, sum over the events, GeV.
        cpu_seconds: its processor time.
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
        """Number of events written by this run."""
        return sum(f.num_events for f in self.files)

    @property
    def num_failed(self) -> int:
        """Files that could not be used."""
        return sum(bool(f.error) for f in self.files)

    @property
    def num_reused(self) -> int:
        """Files whose output existed already."""
        return sum(f.reused for f in self.files)

    @property
    def skipped(self) -> Counter[str]:
        """Events left out, by reason."""
        return sum((Counter(f.skipped) for f in self.files), Counter())

    @property
    def counters(self) -> Counter[str]:
        """Numbers of ignored and unusual items, by name."""
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


def _process(path: Path, target: Path, elements: str, detector: DetectorConfig | None) -> FileReport:
    """Turn one file into parquet; what is wrong with the file itself becomes part of the report.

    Raises:
        DataError: the disk is full.
    """
    start = time.process_time()
    lost_energy = gen_energy = 0.0
    try:
        with (
            open_conversion(path, elements, detector) as conversion,
            EventsWriter(target, conversion.schema) as writer,
        ):
            # Before the events: of a file that changes meanwhile, the next run finds another checksum.
            checksum_before = conversion.source.checksum()
            for events in conversion.chunks():
                writer.write(events)
                if "lost_energy" in events.scalars.columns:
                    lost_energy += float(events.scalars["lost_energy"].sum())
                    particles = events["gen_particles"]["gen_particles"]
                    gen_energy += float(particles[:, PARTICLE_COLUMNS.index("energy")].sum(dtype=np.float64))
            metadata = conversion.metadata
            if not writer.num_events:
                reasons = ", ".join(f"{n} x {reason}" for reason, n in metadata["skipped"].items())
                raise DataError(f"{path}: holds no usable event ({reasons or 'it is empty'}); check the file")
            writer.finish({**metadata, CHECKSUM_KEY: checksum_before})
    except DataError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in _DISK_FULL:
            raise
        return FileReport(path, error=str(error), cpu_seconds=time.process_time() - start)
    return FileReport(
        path,
        num_events=writer.num_events,
        skipped=metadata["skipped"],
        counters=metadata["counters"],
        lost_energy=lost_energy,
        gen_energy=gen_energy,
        cpu_seconds=time.process_time() - start,
    )


def _require_ours(
    source: Path, target: Path, elements: str, detector: DetectorConfig | None
) -> dict[str, Any] | None:
    """Return the description of ``target``, None if it is not there; reads nothing of ``source``.

    Raises:
        OutputExists: ``target`` is not ours, or was made from a file of another name, as other elements, for
            another detector, or by a newer version.
    """
    if not target.exists():
        return None
    remedy = "move it away, choose another --output, or replace it with --overwrite"
    try:
        found = read_description(target)
        version = int(found["format_version"])
        if version == FORMAT_VERSION:
            read_metadata(target)
    except SchemaMismatch as error:
        raise OutputExists(f"{target} was made with other columns; {remedy}") from error
    except (DataError, LookupError, TypeError, ValueError) as error:
        raise OutputExists(
            f"{target} is there and is no complete output of mlpf postprocess; {remedy}"
        ) from error
    if found.get("source") != source.name:
        raise OutputExists(f"{target} was made from {found.get('source')}, not from {source.name}; {remedy}")
    possible = [known for known in FORMATS if elements in known.schemas]
    schemas = list(dict.fromkeys(known.schemas[elements].name for known in possible))
    if found["schema"] not in schemas:
        raise OutputExists(
            f"{target} holds events of {found['schema']}, asked for {' or '.join(schemas)}; {remedy}"
        )
    made_by = next((known for known in possible if known.name == found.get("format")), None)
    wanted = detector or (made_by.default_detector if made_by else None)
    if wanted is not None:
        before = recorded_detector(found, str(target))
        if difference := before.difference(wanted, "there", "asked for"):
            raise OutputExists(f"{target} was made for another detector: {difference}; {remedy}")
    if version > FORMAT_VERSION:
        raise OutputExists(
            f"{target} was written by a newer version (format {version}, expected {FORMAT_VERSION}); {remedy}"
        )
    return found


def _reason_to_make(source: Path, target: Path, elements: str, detector: DetectorConfig | None) -> str:
    """Say why ``target`` has to be made; empty if it was made from ``source`` as it is now, by present rules.

    Reads the whole source if nothing else differs, because the content of a file can change while size and
    times stay the same.

    Raises:
        OutputExists: see ``_require_ours``.
    """
    found = _require_ours(source, target, elements, detector)
    if found is None:
        return NOT_THERE
    version = int(found["format_version"])
    if version < FORMAT_VERSION:
        return f"written by an older version (format {version}, expected {FORMAT_VERSION})"
    possible = [known for known in FORMATS if elements in known.schemas]
    if (found.get("format"), found.get("truth_version")) not in [(f.name, f.truth_version) for f in possible]:
        return "made by other rules of truth"
    try:
        same = source.stat().st_size == found.get("source_bytes")
        same = same and checksum(source) == found.get(CHECKSUM_KEY)
    except (OSError, DataError):
        return NOT_THERE  # reading the source later reports and counts the error
    return "" if same else "their input file has changed"


def run(
    inputs: Sequence[str | Path],
    output: Path,
    *,
    elements: str = DEFAULT_ELEMENTS,
    detector: DetectorConfig | None = None,
    placement: Placement = HERE,
    shard: Shard | None = None,
    overwrite: bool = False,
) -> PostprocessSummary:
    """Process every input file that has no finished output yet.

    An output of ``mlpf postprocess`` is made again if the content of its source or the rules of truth
    changed, or if its format is older.

    Args:
        inputs: files of EDM4HEP or Delphes (ROOT or pickle), directories of them, or globs.
        output: directory for ``<base name>.parquet``.
        elements: ``clusters`` or ``hits``: what EDM4HEP events are made of besides tracks.
        detector: that EDM4HEP events were measured with; default CLIC.
        placement: where the files are processed.
        shard: process the files of this job only: every n-th in the order of names.
        overwrite: make finished outputs again, and replace any file with the name of an output.

    Returns:
        The result of each file. Unusable files and events are reported and counted.

    Raises:
        DataError: an input matches nothing, every file failed, or the disk is full.
        OutputExists: another process is at work on this output, or a file of its name is not ours, was
            made from a file of another name, of other elements or for another detector.
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
            _require_ours(source, _target(source, output), elements, detector)
    try:
        output.mkdir(parents=True, exist_ok=True)
        with locked(output / LOCK_FILE, str(output), shard):
            reports = _process_all(sources, output, (elements, detector), placement, overwrite, console)
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
    options: tuple[str, DetectorConfig | None],
    placement: Placement,
    overwrite: bool,
    console: Console,
) -> list[FileReport]:
    """Process unfinished files, and print skipped files at once."""
    targets = {source: _target(source, output) for source in sources}
    remove_stale_parts(output, {target.name for target in targets.values()})
    reasons = {s: NOT_THERE if overwrite else _reason_to_make(s, targets[s], *options) for s in sources}
    for reason, number in Counter(reasons.values()).items():
        if reason not in (NOT_THERE, ""):
            console.print(f"made again, {reason}: {number} outputs", highlight=False, soft_wrap=True)
    reports = [FileReport(source, reused=True) for source, reason in reasons.items() if not reason]
    jobs = [(source, targets[source], *options) for source, reason in reasons.items() if reason]
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
