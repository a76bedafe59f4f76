"""Check every event of a prepared dataset: counts, sums, histograms and problems."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table

from mlpf.data.dataset.checks import (
    Binning,
    Finding,
    Findings,
    SplitCheck,
    choose_binning,
    find_duplicates,
    tables,
)
from mlpf.data.dataset.folder import find_dataset
from mlpf.data.dataset.prepared_events import PreparedEvents
from mlpf.data.dataset.split import PreparedSplit
from mlpf.errors import DataError, OutputNotWritable
from mlpf.files.atomic import atomic_write
from mlpf.physics.particles import CLASSES
from mlpf.physics.schemas import EventSchema
from mlpf.plotting.dataset_histograms import column_distributions
from mlpf.plotting.style import style

# Largest numbers of events and rows in memory at once: an event of hits has thousands of rows.
CHUNK = 200
CHUNK_ROWS = 60_000
# Largest numbers of events and rows of each split for the choice of bins; read in steps.
SAMPLED = 400
SAMPLED_ROWS = 60_000
SAMPLE_STEP = 20


@dataclass(frozen=True)
class CheckSummary:
    """Result of a check.

    Attributes:
        num_events: split -> number of checked events.
        findings: problems and remarks.
        figures: written files.
    """

    num_events: dict[str, int]
    findings: tuple[Finding, ...]
    figures: tuple[Path, ...]


def run(path: Path, output: Path | None = None) -> CheckSummary:
    """Check all splits of a dataset and draw its columns.

    Args:
        path: folder of a dataset version.
        output: directory for the figures; None for ``<path>/check``, without figures if that cannot be made.

    Raises:
        DataError: there is no dataset, or it has problems.
        SchemaMismatch: its columns are not those of its schema.
        OutputNotWritable: figures cannot be written to ``output``.
    """
    console = Console()
    folder = find_dataset(path)
    splits = {name: folder.open(name) for name in folder.splits}
    fields = _fields(next(iter(splits.values())), folder.schema)
    # Before hours of reading, whose result a wrong directory would lose.
    figure_folder = _figure_folder(folder.path, output, console)
    findings = Findings()
    found = [events for split in splits.values() for events in _sample(split, fields)]
    if not found:
        raise DataError(f"{folder.path}: no event can be read in any split; build the dataset again")
    sample = PreparedEvents.concatenate(found)
    binning = {name: choose_binning(columns, rows) for name, columns, rows in tables(sample, folder.schema)}
    mean_rows = sample.elements.counts.mean()
    step = max(1, min(CHUNK, int(CHUNK_ROWS / max(mean_rows, 1))))
    checks = []
    for name, split in splits.items():
        check = SplitCheck(name, folder.schema, binning, findings)
        chunks = list(_chunks(range(split.num_events), step))
        for indices in track(chunks, name, console=console, disable=not console.is_terminal):
            for events, positions in _read(split, indices, fields, findings):
                check.add(events, positions)
        checks.append(check)
    find_duplicates(checks, findings)
    console.print(_table(checks, folder.schema, folder.path))
    console.print(_closure_table(checks, folder.schema))
    for finding in sorted(findings.values(), key=lambda f: not f.fatal):
        text = f"{'problem' if finding.fatal else 'remark'}: {_in_words(finding)}"
        colour = "red" if finding.fatal else "yellow"
        console.print(text, style=colour, soft_wrap=True, markup=False, highlight=False)
    figures = [] if figure_folder is None else _draw(checks, binning, figure_folder, console)
    problems = [finding for finding in findings.values() if finding.fatal]
    if problems:
        raise DataError(
            f"{folder.path}: {len(problems)} problem(s), e.g. {_in_words(problems[0], 1)}; "
            "correct its input files and build it again"
        )
    counts = {check.split: check.num_events for check in checks}
    return CheckSummary(counts, tuple(findings.values()), tuple(figures))


def _figure_folder(dataset: Path, output: Path | None, console: Console) -> Path | None:
    """Make the directory for figures; None, with a line on the console, if the dataset folder is read-only.

    Raises:
        OutputNotWritable: the user named a directory that cannot be written.
    """
    folder = dataset / "check" if output is None else Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # An existing directory may be read-only.
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        reason = f"{folder}: cannot be written ({error.strerror or error})"
        if output is not None:
            raise OutputNotWritable(f"{reason}; give another directory with -o") from error
    console.print(
        f"{reason}: no figures; give a directory for them with -o",
        style="yellow",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
    return None


def _fields(split: PreparedSplit, schema: EventSchema) -> tuple[str, ...]:
    """Return the fields to check; published datasets lack some."""
    wanted = ("X", "ygen", "ycand", *schema.optional_widths, "event")
    return tuple(name for name in wanted if name in split.fields)


def _chunks(indices: Sequence[int], step: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(indices), step):
        yield indices[start : start + step]


def _read(
    split: PreparedSplit, indices: Sequence[int], fields: Sequence[str], findings: Findings
) -> Iterator[tuple[PreparedEvents, Sequence[int]]]:
    """Yield events and their positions. Report damaged records; read their neighbours one by one."""
    try:
        yield split.fetch(indices, fields), indices
        return
    except DataError:
        pass
    for index in indices:
        try:
            yield split.fetch([index], fields), [index]
        except DataError:
            findings.add("record cannot be read", [f"{split.split} event {index}"], fatal=True)


def _sample(split: PreparedSplit, fields: Sequence[str]) -> list[PreparedEvents]:
    """Return readable events spread over a split."""
    indices = np.unique(np.linspace(0, split.num_events - 1, min(SAMPLED, split.num_events)).astype(int))
    steps = -(-len(indices) // SAMPLE_STEP)
    found: list[PreparedEvents] = []
    for k in range(steps):
        found += [events for events, _ in _read(split, indices[k::steps].tolist(), fields, Findings())]
        if sum(len(events.elements) for events in found) >= SAMPLED_ROWS:
            break
    return found


def _draw(
    checks: Sequence[SplitCheck], binning: Mapping[str, Binning], output: Path, console: Console
) -> list[Path]:
    """Write one figure for each table.

    Raises:
        OutputNotWritable: a figure cannot be written.
    """
    paths = []
    with style(), console.status("drawing figures"):
        for name, bins in binning.items():
            counts = {check.split: check.histograms[name] for check in checks}
            figure = column_distributions(name.replace("_", " "), bins, counts)
            path = output / f"{name}.png"
            try:
                with atomic_write(path) as part:
                    figure.savefig(part, format="png")
            except OSError as error:
                raise OutputNotWritable(
                    f"{path}: cannot be written ({error.strerror or error}); free space or give another "
                    "directory with -o"
                ) from error
            paths.append(path)
    console.print(f"{len(paths)} figures in {output}", soft_wrap=True, markup=False, highlight=False)
    return paths


def _table(checks: Sequence[SplitCheck], schema: EventSchema, path: Path) -> Table:
    """Table of events, elements per event, and fractions of each class in targets and candidates."""
    table = Table(
        Column(f"{path.parent.name}/{path.name}", no_wrap=True),
        *(check.split for check in checks),
        caption="elements per event: least / mean / most; classes: rows (share)",
    )

    def row(label: str, values: Sequence[str]) -> None:
        table.add_row(label, *values)

    row("events", [str(check.num_events) for check in checks])
    for k, kind in enumerate(schema.kinds):
        row(
            f"{kind.name}s per event",
            [_spread(check.kind_counts[:, k]) for check in checks],
        )
    row(
        "elements per event",
        [_spread(check.kind_counts.sum(axis=1)) for check in checks],
    )
    table.add_section()
    for name, title in (("ygen", "targets"), ("ycand", "candidates")):
        for particle in CLASSES:
            counts = [check.class_counts[name] for check in checks]
            row(
                f"{title}: {particle.name}",
                [f"{c[particle.index]} ({c[particle.index] / max(1, c.sum()):.1%})" for c in counts],
            )
    return table


def _closure_table(checks: Sequence[SplitCheck], schema: EventSchema) -> Table:
    """Energy sums per event relative to those of a reference.

    The reference are the generator particles, or the targets if the dataset has no generator particles.
    Generator particles include those outside acceptance: the targets are less by the losses of truth.
    """
    reference = "gen_particles" if any(len(check.energy("gen_particles")) for check in checks) else "ygen"
    table = Table(
        Column(f"energy / energy of {reference}", no_wrap=True),
        *(check.split for check in checks),
        caption="of all events; in brackets 5 %, median and 95 % of single events",
    )
    for name in ("ygen", "ycand", *schema.particle_lists):
        if name == reference or not any(len(check.energy(name)) for check in checks):
            continue
        cells = []
        for check in checks:
            value, base = check.energy(name), check.energy(reference)
            if not len(value) or not base.any():
                cells.append("-")
                continue
            low, middle, high = np.quantile(value[base > 0] / base[base > 0], (0.05, 0.5, 0.95))
            cells.append(f"{value.sum() / base.sum():.3f} ({low:.3f}, {middle:.3f}, {high:.3f})")
        table.add_row(name, *cells)
    return table


def _spread(values: npt.NDArray[np.int64]) -> str:
    """Return smallest, mean and largest."""
    if not len(values):
        return "-"
    return f"{values.min()} / {values.mean():.1f} / {values.max()}"


def _in_words(finding: Finding, examples: int | None = None) -> str:
    shown = finding.examples[:examples]
    more = ", ..." if finding.count > len(shown) else ""
    return f"{finding.what}: {finding.count} x ({', '.join(shown)}{more})"
