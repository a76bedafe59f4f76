"""Draw one event of a file or dataset and print its contents."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Column, Table

from mlpf.config.data_schema import TRAIN
from mlpf.config.detector import CLIC, DetectorConfig, recorded_detector
from mlpf.data.dataset.examples import make_examples
from mlpf.data.dataset.folder import find_dataset
from mlpf.data.dataset.prepared_events import PreparedEvents
from mlpf.data.edm4hep.conversion import Edm4hepConversion
from mlpf.data.edm4hep.reader import FileDescription, describe
from mlpf.data.events import Events, iterate_events
from mlpf.data.formats import DEFAULT_ELEMENTS, elements_of_format, open_conversion
from mlpf.errors import DataError
from mlpf.files.atomic import atomic_write
from mlpf.physics.features import PARTICLE_COLUMNS
from mlpf.physics.methods import BASELINE, GEN
from mlpf.physics.particles import CLASSES
from mlpf.physics.schemas import EventSchema
from mlpf.plotting.event_display import EventView, event_display
from mlpf.plotting.style import style

FORMATS = (".png", ".pdf", ".svg")


def run(
    path: Path,
    event: int,
    *,
    split: str | None = None,
    elements: str | None = None,
    detector: DetectorConfig | None = None,
    output: Path | None = None,
) -> Path:
    """Draw an event.

    Args:
        path: ROOT file (EDM4HEP or Delphes), pickle of Delphes, parquet file of ``mlpf postprocess``, or
            folder of a dataset version.
        event: position among the usable events of the file or split, from 0.
        split: of a dataset, None for train, or the first if there is no train; nothing else has splits.
        elements: ``clusters`` or ``hits`` of an EDM4HEP file, None for clusters; nothing else has the choice.
        detector: of an EDM4HEP file, None for CLIC; parquet files and datasets name their own.
        output: figure; its suffix says the format. None for ``<name>_event<i>.png`` here.

    Returns:
        Path of the figure.

    Raises:
        DataError: there is no such file, collections are missing, no such event, unknown format, or an
            option that does not apply.
        SchemaMismatch: columns are not those of the code.
    """
    path = Path(path)
    console = Console()
    output = Path(f"{_stem(path)}_event{event}.png") if output is None else Path(output)
    if output.suffix not in FORMATS:
        raise DataError(f"{output}: unknown format {output.suffix!r}, expected {', '.join(FORMATS)}")
    if path.is_dir():
        if elements is not None:
            raise _without_choice(path, "a dataset")
        _require_no_detector(path, detector)
        one, schema, detector = _event_of_dataset(path, split, event)
    else:
        if split is not None:
            raise DataError(f"{path}: only a dataset folder has splits; drop --split {split}")
        one, schema, detector = _event_of_file(path, elements, detector, event, console)
    view = _view(f"{_stem(path)}, event {event}", one, schema, detector)
    console.print(_table(view, one))
    with style():
        figure = event_display(view)
        output.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(output) as part:
            figure.savefig(part, format=output.suffix[1:])
    console.print(f"figure: {output}", soft_wrap=True, markup=False, highlight=False)
    return output


def _stem(path: Path) -> str:
    """Return a short name: of a dataset with its version, of a file without suffixes."""
    path = path.resolve()
    return f"{path.parent.name}_{path.name}" if path.is_dir() else path.name.split(".")[0]


def _event_of_dataset(
    path: Path, split: str | None, event: int
) -> tuple[PreparedEvents, EventSchema, DetectorConfig | None]:
    folder = find_dataset(path)
    if split is None:
        split = TRAIN if TRAIN in folder.splits else folder.splits[0]
    opened = folder.open(split)
    if event >= opened.num_events:
        raise DataError(f"{folder.path}: no event {event}, split {split!r} has {opened.num_events}")
    return opened.fetch([event], opened.fields), folder.schema, folder.detector


def _without_choice(path: Path, what: str) -> DataError:
    return DataError(f"{path}: what elements {what} has was chosen when it was made; drop --elements")


def _require_no_detector(path: Path, detector: DetectorConfig | None) -> None:
    if detector is not None:
        raise DataError(f"{path}: names its own detector; drop --detector")


def _event_of_file(
    path: Path, elements: str | None, detector: DetectorConfig | None, event: int, console: Console
) -> tuple[PreparedEvents, EventSchema, DetectorConfig | None]:
    """Return the fields of one event as a dataset has them."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; give a ROOT, pickle or parquet file or a dataset folder")
    seen = 0
    for chunk, of in _chunks(path, elements, detector, console):
        if event < seen + len(chunk):
            one = chunk.take(np.array([event - seen]))
            return PreparedEvents.from_events([make_examples(one, path.stem)[0]]), chunk.schema, of
        seen += len(chunk)
    raise DataError(f"{path}: no event {event}, it has {seen} usable ones, counted from 0")


def _chunks(
    path: Path, elements: str | None, detector: DetectorConfig | None, console: Console
) -> Iterator[tuple[Events, DetectorConfig | None]]:
    """Yield the events of a file, some at a time, and the detector that they were measured with."""
    if path.suffix == ".parquet":
        if elements is not None:
            raise _without_choice(path, "a parquet file")
        _require_no_detector(path, detector)
        for events in iterate_events(path):
            told = recorded_detector(events.metadata, str(path)) if events.schema.has_positions else None
            yield events, told
        return
    with open_conversion(path, elements or DEFAULT_ELEMENTS, detector) as conversion:
        if elements is not None and len(conversion.schemas) == 1:
            raise DataError(f"{path}: {elements_of_format(type(conversion))} only; drop --elements")
        if isinstance(conversion, Edm4hepConversion):
            found = describe(conversion.source, conversion.detector or CLIC)
            if found.missing:
                console.print(_description(found))
                raise DataError(
                    f"{path}: cannot be drawn, missing {', '.join(found.missing)}; see the table above"
                )
        for events in conversion.chunks():
            yield events, conversion.detector


def _description(found: FileDescription) -> Table:
    """Print the contents of an EDM4HEP file that cannot be converted."""
    table = Table(
        Column(found.path.name, no_wrap=True), Column(f"events: {found.num_events}", overflow="fold")
    )
    table.add_row("layout", found.layout)
    table.add_row("ids of collections", found.id_table or "not known")
    table.add_row("read", ", ".join(found.leaves) or "nothing")
    table.add_row("missing", "\n".join(found.missing))
    for name, others in found.look_alikes.items():
        table.add_row(f"could be {name}", ", ".join(others))
    table.add_row("collections", ", ".join(found.collections) or "none")
    return table


def _view(
    title: str, event: PreparedEvents, schema: EventSchema, detector: DetectorConfig | None
) -> EventView:
    x = event["X"]
    rows = {
        kind.name: x[x[:, kind.features.index("elemtype")] == kind.elemtype][:, : len(kind.features)]
        for kind in schema.kinds
    }
    gen = "gen_particles" if "gen_particles" in event else "ygen"
    name = event.names[0] if "event" in event else ""
    return EventView(
        f"{title} ({name})" if name else title,
        schema,
        rows,
        {GEN: _particles(event[gen]), BASELINE: _particles(event["ycand"])},
        "generator particles" if gen == "gen_particles" else "targets",
        (0.0, 0.0) if detector is None else detector.face_mm,
    )


def _particles(rows: npt.NDArray) -> npt.NDArray:
    """Return the rows [n, 7] with a particle of a known class."""
    cls = rows[:, PARTICLE_COLUMNS.index("cls")]
    return rows[(cls > 0) & (cls < len(CLASSES))][:, : len(PARTICLE_COLUMNS)]


def _table(view: EventView, event: PreparedEvents) -> Table:
    """Table of numbers and energies of elements, and of particles by class."""
    lists = {view.gen_name: view.particles[GEN], "targets": _particles(event["ygen"])}
    lists["candidates"] = view.particles[BASELINE]
    table = Table(Column(view.title, overflow="fold"), *(Column(name, justify="right") for name in lists))
    for particle in CLASSES[1:]:
        cells = []
        for rows in lists.values():
            mine = rows[rows[:, PARTICLE_COLUMNS.index("cls")] == particle.index]
            cells.append(_amount(mine[:, PARTICLE_COLUMNS.index("energy")]))
        table.add_row(particle.name, *cells)
    energies = (rows[:, PARTICLE_COLUMNS.index("energy")] for rows in lists.values())
    table.add_row("all", *(_amount(energy) for energy in energies))
    for kind in view.schema.kinds:
        measured = "energy" if "energy" in kind.features.names else "p"
        rows = view.elements[kind.name]
        table.add_row(f"{kind.name}s", _amount(rows[:, kind.features.index(measured)]))
    table.caption = "number, and sum of energies (of tracks: momenta) in GeV"
    return table


def _amount(energy: npt.NDArray) -> str:
    return f"{len(energy)}, {energy.sum(dtype=np.float64):.1f}"
