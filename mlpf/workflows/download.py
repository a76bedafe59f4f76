"""Download files of public records: each once, with resume and checksum."""

import difflib
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Column, Table

from mlpf.data.download.archive import API, SAMPLES, ArchivedSample, in_order, list_record, remote_file
from mlpf.data.download.transfer import Client, Destination, RemoteFile, resumable_bytes
from mlpf.errors import DataError
from mlpf.files.locking import locked

# Parts, notes and the lock are in a separate folder: folders of samples hold only finished files.
STATE_FOLDER = ".download"


@dataclass(frozen=True)
class Job:
    """One file to fetch.

    Attributes:
        folder: name of the folder below the output directory.
        file: what to fetch.
        destination: where to.
    """

    folder: str
    file: RemoteFile
    destination: Destination

    @property
    def bytes_there(self) -> int:
        """Bytes that need not be fetched, as far as sizes tell."""
        if self.destination.final.is_file() and self.destination.final.stat().st_size == self.file.size:
            return self.file.size
        return resumable_bytes(self.file, self.destination)


@dataclass(frozen=True)
class DownloadSummary:
    """The result of a download.

    Attributes:
        fetched: number of files that this run fetched.
        reused: number of files that existed with the right checksum.
        failures: one line for each missing file.
        num_bytes: size of all existing files.
        wall_seconds: time of this run.
    """

    fetched: tuple[Path, ...]
    reused: tuple[Path, ...]
    failures: tuple[str, ...]
    num_bytes: int
    wall_seconds: float


def print_samples() -> None:
    """Print the table of samples."""
    table = Table(Column("sample", no_wrap=True), "record", "content")
    for sample in SAMPLES.values():
        table.add_row(sample.name, sample.record, sample.content)
    Console().print(table)


def run(
    samples: Sequence[str],
    output: Path,
    *,
    record: str | None = None,
    max_files: int | None = None,
    dry_run: bool = False,
    workers: int = 2,
    api: str = API,
    sleep: Callable[[float], object] | None = None,
) -> DownloadSummary | None:
    """Fetch the files of samples into ``<output>/<sample>/``.

    Args:
        samples: names of ``SAMPLES``; with ``record`` also globs of its file names, none for all files.
        output: directory.
        record: take the files from this record, into ``<output>/record_<number>/`` if given by a glob.
        max_files: largest number of files of each sample.
        dry_run: print the files that would be fetched, and fetch nothing.
        workers: number of parallel downloads.
        api: base address of the archive.
        sleep: function that waits a number of seconds between attempts.

    Returns:
        The result, None for a dry run.

    Raises:
        DataError: unknown sample, no such files, archive not reachable, no space; or, after all other
            files were fetched, a file that failed.
        OutputExists: another download into the directory is at work.
    """
    start = time.perf_counter()
    console = Console()
    stop = threading.Event()

    def client() -> Client:
        return Client(not api.startswith("http://"), sleep or stop.wait, stop)

    chosen = _selections(samples, record)
    with console.status("asking the archive"), client() as session:
        jobs, failures = _plan(chosen, Path(output), session, api, max_files)
    num_files = len(jobs) + len(failures)
    if dry_run:
        console.print(_plan_table(jobs, Path(output)))
        _warn(console, failures)
        return None
    _require_space(jobs, Path(output))
    with _only_download(Path(output)):
        _warn(console, failures)
        fetched, reused, failed = _fetch_all(jobs, workers, client, stop, console)
    failures += failed
    summary = _summary(fetched, reused, failures, time.perf_counter() - start)
    console.print(_summary_table(fetched, reused, summary, Path(output)))
    if failures:
        raise DataError(
            f"{output}: {len(failures)} of {num_files} files failed; "
            "run the same command again to fetch what is missing"
        )
    return summary


def _selections(samples: Sequence[str], record: str | None) -> list[ArchivedSample]:
    """Return the named samples. With a record a word that is no name is a glob."""
    if record is None:
        for name in samples:
            if name not in SAMPLES:
                close = difflib.get_close_matches(name, SAMPLES, n=1)
                hint = f"did you mean {close[0]}? " if close else ""
                raise DataError(f"{name}: no such sample; {hint}mlpf download --list shows them all")
        return [SAMPLES[name] for name in dict.fromkeys(samples)]
    chosen = []
    for name in dict.fromkeys(samples or ("*",)):
        known = SAMPLES.get(name)
        folder, patterns = (name, known.patterns) if known else (f"record_{record}", (name,))
        chosen.append(ArchivedSample(folder, record, patterns, known.excluded if known else (), name))
    return chosen


def _plan(
    samples: Sequence[ArchivedSample], output: Path, client: Client, api: str, max_files: int | None
) -> tuple[list[Job], list[str]]:
    """Ask the archive; return the files to fetch, and lines about files that cannot be fetched."""
    records: dict[str, list[dict[str, Any]]] = {}
    jobs: dict[Path, Job] = {}
    failures: list[str] = []
    for sample in samples:
        if sample.record not in records:
            records[sample.record] = in_order(list_record(client, api, sample.record))
        listed = records[sample.record]
        entries = [entry for entry in listed if sample.holds(entry["key"])][:max_files]
        if not entries:
            raise DataError(_nothing(sample, listed))
        for entry in entries:
            try:
                job = _job(sample.name, remote_file(entry), output)
            except DataError as error:
                failures.append(str(error))
                continue
            if jobs.setdefault(job.destination.final, job).file != job.file:
                failures.append(f"{entry['listed_at']}: two different files {job.file.name!r}; report it")
    return list(jobs.values()), failures


def _nothing(sample: ArchivedSample, listed: Sequence[dict[str, Any]]) -> str:
    globs = " ".join(sample.patterns)
    names = ", ".join(repr(entry["key"][:80]) for entry in listed[:5])
    more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    return (
        f"{sample.name}: no file of record {sample.record} matches {globs}; the record has "
        f"{names or 'no files'}{more}; choose with mlpf download --record {sample.record} 'GLOB'"
    )


def _job(folder: str, file: RemoteFile, output: Path) -> Job:
    """Return the paths of a file.

    Raises:
        DataError: a link in the output directory leads out of it.
    """
    final, state = output / folder / file.name, output / STATE_FOLDER / folder
    if not final.resolve().is_relative_to(output.resolve()):
        raise DataError(f"{final}: leads out of {output} through a link; remove the link")
    return Job(folder, file, Destination(final, state / f"{file.name}.part", state / f"{file.name}.json"))


@contextmanager
def _only_download(output: Path) -> Iterator[None]:
    """Lock the directory against other downloads."""
    state = output / STATE_FOLDER
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{output}: not usable as output directory ({error}); choose another") from error
    with locked(state / "lock", str(output)):
        yield


def _require_space(jobs: Sequence[Job], output: Path) -> None:
    needed = sum(job.file.size - job.bytes_there for job in jobs)
    folder = output.resolve()
    free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.is_dir())).free
    if needed > free:
        raise DataError(
            f"{output}: {decimal(needed)} to fetch, {decimal(free)} free; "
            "free space, choose another directory or fetch fewer with --max-files"
        )


def _fetch_all(
    jobs: Sequence[Job],
    workers: int,
    client: Callable[[], Client],
    stop: threading.Event,
    console: Console,
) -> tuple[list[Job], list[Job], list[str]]:
    """Return numbers of fetched and existing files, and one line for each failure; prints failures."""
    fetched: list[Job] = []
    reused: list[Job] = []
    failures: list[str] = []
    for job, error, new in _in_threads(jobs, workers, client, stop, console):
        if error:
            failures.append(error)
            _warn(console, [error])
        else:
            (fetched if new else reused).append(job)
    return fetched, reused, failures


def _in_threads(
    jobs: Sequence[Job],
    workers: int,
    client: Callable[[], Client],
    stop: threading.Event,
    console: Console,
) -> Iterator[tuple[Job, str, bool]]:
    """Fetch files; yield each job with its error (or empty), and whether it was fetched now."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        everything = progress.add_task("all files", total=sum(job.file.size for job in jobs))

        def fetch(job: Job) -> bool:
            task = progress.add_task(Path(job.file.name).name, total=job.file.size)
            before = 0

            def report(position: int) -> None:
                nonlocal before
                progress.update(task, completed=position)
                progress.advance(everything, position - before)
                before = position

            try:
                with client() as session:
                    new = session.fetch(job.file, job.destination, report)
                report(job.file.size)
                return new
            finally:
                progress.remove_task(task)

        with ThreadPoolExecutor(workers) as pool:
            futures = {pool.submit(fetch, job): job for job in jobs}
            try:
                for future in as_completed(futures):
                    error = future.exception()
                    if error is not None and not isinstance(error, DataError):
                        raise error
                    yield futures[future], str(error or ""), error is None and future.result()
            except BaseException:
                # After an interrupt arrived parts stay, and no further file is begun.
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _summary(
    fetched: Sequence[Job], reused: Sequence[Job], failures: Sequence[str], seconds: float
) -> DownloadSummary:
    return DownloadSummary(
        tuple(sorted(job.destination.final for job in fetched)),
        tuple(sorted(job.destination.final for job in reused)),
        tuple(failures),
        sum(job.file.size for job in (*fetched, *reused)),
        seconds,
    )


def _warn(console: Console, failures: Sequence[str]) -> None:
    for failure in failures:
        console.print(f"failed {failure}", style="yellow", soft_wrap=True, markup=False, highlight=False)


def _plan_table(jobs: Sequence[Job], output: Path) -> Table:
    table = Table(Column("file", overflow="fold"), "size", "to fetch")
    for job in jobs:
        table.add_row(
            f"{job.folder}/{job.file.name}",
            decimal(job.file.size),
            decimal(job.file.size - job.bytes_there),
        )
    existing = next(path for path in (output.absolute(), *output.absolute().parents) if path.is_dir())
    total = sum(job.file.size for job in jobs)
    missing = total - sum(job.bytes_there for job in jobs)
    table.add_section()
    table.add_row(f"{len(jobs)} files", decimal(total), decimal(missing))
    table.add_row(f"free at {existing}", "", decimal(shutil.disk_usage(existing).free))
    return table


def _summary_table(
    fetched: Sequence[Job], reused: Sequence[Job], summary: DownloadSummary, output: Path
) -> Table:
    table = Table(Column("download", overflow="fold"), "files", "size")
    counts: dict[str, Sequence[Job]] = {"fetched": fetched, "were there": reused}
    for name, jobs in counts.items():
        for folder, count in sorted(Counter(job.folder for job in jobs).items()):
            size = sum(job.file.size for job in jobs if job.folder == folder)
            table.add_row(f"{folder}: {name}", str(count), decimal(size))
    if fetched:
        rate = sum(job.file.size for job in fetched) / max(summary.wall_seconds, 1e-3)
        table.add_row("fetched per second", "", decimal(int(rate)))
    table.add_row("failed", str(len(summary.failures)), "")
    table.add_row("in " + str(output), str(len(fetched) + len(reused)), decimal(summary.num_bytes))
    return table
