"""Delphes -> prepared events: ROOT files, and the published pickles of features, targets and candidates.

Layout of a pickle: a dictionary of ``X``, ``ygen`` and ``ycand``, each a list with one float64 array per
event, of 12, 7 and 7 columns; element types and order of columns are those of ``mlpf.physics.features``. What
the published files leave out or get wrong is repaired here; docs/delphes.md lists it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from mlpf.data.conversion import Chunk, Conversion
from mlpf.data.delphes.reader import TREE, read_events
from mlpf.data.delphes.safe_unpickling import MAX_BYTES, load_arrays, read_checked
from mlpf.data.delphes.truth import DELPHES_TRUTH_VERSION, prepare_chunk
from mlpf.data.events import Events
from mlpf.data.flat_tables import Table, offsets_from_counts
from mlpf.data.source_file import PICKLE_SUFFIXES, SourceFile
from mlpf.errors import DataError
from mlpf.physics.features import DELPHES_TRACK_FEATURES, PARTICLE_COLUMNS
from mlpf.physics.particles import (
    CHARGED_HADRON,
    ELECTRON,
    MUON,
    NEUTRAL_HADRON,
    NONE,
    NUM_CLASSES,
    PHOTON,
)
from mlpf.physics.schemas import SCHEMAS, EventSchema


class DelphesConversion(Conversion):
    """Converts a ROOT file of Delphes."""

    name = "Delphes"
    suffixes = (".root",)
    schemas: ClassVar[Mapping[str, EventSchema]] = {"clusters": SCHEMAS["delphes"]}
    truth_version = DELPHES_TRUTH_VERSION

    @classmethod
    def recognises(cls, source: SourceFile) -> bool:
        """Return whether a file has a tree of Delphes."""
        return TREE in source.trees

    def read(self) -> Iterator[Chunk]:
        """Yield all events in file order, some at a time."""
        for raw in read_events(self.source):
            yield prepare_chunk(raw)


PUBLISHED_TRUTH_VERSION = "delphes-published-1.0.0"
COLUMNS = {
    "X": len(DELPHES_TRACK_FEATURES),
    "ygen": len(PARTICLE_COLUMNS),
    "ycand": len(PARTICLE_COLUMNS),
}
BAD_SHAPE = "arrays of unequal length or other columns"
UNKNOWN_TYPE = "element of unknown type"
UNKNOWN_CLASS = "target of unknown class"
CHUNK_EVENTS = 25

NEUTRAL_CLASSES = (NEUTRAL_HADRON, PHOTON)
CHARGED_CLASSES = (CHARGED_HADRON, ELECTRON, MUON)
LEPTON_CLASSES = (ELECTRON, MUON)

Rows = npt.NDArray[np.float32]


class PickleConversion(Conversion):
    """Converts a pickle of published Delphes events; it needs the memory of one decompressed file.

    If ``<name>.md5`` lies beside the file, its checksum is compared.

    Attributes:
        max_bytes: largest number of bytes after decompression.
    """

    name = "Delphes (pickle)"
    suffixes = PICKLE_SUFFIXES
    schemas: ClassVar[Mapping[str, EventSchema]] = {"clusters": SCHEMAS["delphes"]}
    truth_version = PUBLISHED_TRUTH_VERSION
    max_bytes = MAX_BYTES

    @classmethod
    def recognises(cls, source: SourceFile) -> bool:
        """Return whether a file is a pickle."""
        return source.data is not None

    def read(self) -> Iterator[Chunk]:
        """Yield all events in file order, in chunks."""
        path = self.source.path
        arrays = load_arrays(read_checked(self.source, self.max_bytes), str(path), self.max_bytes)
        _check_layout(arrays, path)
        columns = [arrays[key] for key in COLUMNS]
        del arrays
        for start in range(0, len(columns[0]), CHUNK_EVENTS):
            chunk = [values[start : start + CHUNK_EVENTS] for values in columns]
            for values in columns:  # events that were yielded are freed
                values[start : start + CHUNK_EVENTS] = [None] * len(chunk[0])  # type: ignore[list-item]  # these places are not read again
            yield _prepare_chunk(self.schema, start, *chunk)


def _check_layout(arrays: dict[str, list[npt.NDArray]], path: Path) -> None:
    if set(arrays) != set(COLUMNS):
        found = ascii(", ".join(sorted(arrays)))[1:-1][:80]
        raise DataError(
            f"{path}: holds {found or 'nothing'}, expected {', '.join(COLUMNS)}; "
            "give a published file of Delphes events"
        )
    lengths = [len(values) for values in arrays.values()]
    if len(set(lengths)) > 1:
        raise DataError(
            f"{path}: {', '.join(arrays)} differ in number of events ({', '.join(map(str, lengths))}); "
            "copy or download it again"
        )


def _prepare_chunk(
    schema: EventSchema, start: int, x: list[npt.NDArray], ygen: list[npt.NDArray], ycand: list[npt.NDArray]
) -> Chunk:
    """Join the events of a chunk, repair them and separate tracks from towers."""
    bad = {reason: np.zeros(len(x), dtype=bool) for reason in (BAD_SHAPE, UNKNOWN_TYPE, UNKNOWN_CLASS)}
    good = np.array([_is_aligned(parts) for parts in zip(x, ygen, ycand, strict=True)], dtype=bool)
    bad[BAD_SHAPE] |= ~good
    counts = np.array([len(rows) if ok else 0 for rows, ok in zip(x, good, strict=True)])
    event = np.repeat(np.arange(len(x)), counts)
    joined = {
        key: _joined([rows for rows, ok in zip(part, good, strict=True) if ok], COLUMNS[key])
        for key, part in zip(COLUMNS, (x, ygen, ycand), strict=True)
    }
    kinds = {kind.name: joined["X"][:, 0] == kind.elemtype for kind in schema.kinds}
    bad[UNKNOWN_TYPE][event[~np.any(list(kinds.values()), axis=0)]] = True
    values = {"X": joined["X"]}
    for key, repair in (("ygen", repaired_gen), ("ycand", repaired_cand)):
        known = np.isin(joined[key][:, 0], np.arange(NUM_CLASSES))
        bad[UNKNOWN_CLASS][event[~known]] = True
        joined[key][~known] = 0.0
        values[key] = repair(joined[key])
    tables = {
        name: Table(
            {key: rows[of_kind] for key, rows in values.items()},
            offsets_from_counts(np.bincount(event[of_kind], minlength=len(x))),
        )
        for name, of_kind in kinds.items()
    }
    number = Table.one_row_per_event({"event": np.arange(start, start + len(x))})
    return Chunk(Events(tables, number, schema), bad, Counter())


def _is_aligned(parts: tuple[npt.NDArray, ...]) -> bool:
    expected = [(len(parts[0]), columns) if parts[0].ndim else () for columns in COLUMNS.values()]
    return [part.shape for part in parts] == expected


def _joined(parts: list[npt.NDArray], columns: int) -> Rows:
    with np.errstate(over="ignore"):  # infinite in float32: the event is skipped
        return np.concatenate([np.zeros((0, columns), np.float32), *(p.astype(np.float32) for p in parts)])


def repaired_gen(rows: Rows) -> Rows:
    """Repair published targets, [n, 7] ``PARTICLE_COLUMNS``.

    The charge of leptons is published as the sign of their PDG code, the opposite of their charge.
    """
    out = rows.copy()
    out[np.isin(rows[:, 0], LEPTON_CLASSES), PARTICLE_COLUMNS.index("charge")] *= -1
    out[rows[:, 0] == NONE] = 0.0
    return out


def repaired_cand(rows: Rows) -> Rows:
    """Repair published candidates, [n, 7] ``PARTICLE_COLUMNS``.

    Neutral candidates are published without pt, charged ones without energy. Each is computed from the other
    and eta.
    """
    pt, eta, energy = (
        rows[:, PARTICLE_COLUMNS.index(name)].astype(np.float64) for name in ("pt", "eta", "energy")
    )
    out = rows.copy()
    with np.errstate(over="ignore", invalid="ignore"):  # numbers that overflow: their event is skipped
        ratio = np.cosh(eta)
        without_pt = np.isin(rows[:, 0], NEUTRAL_CLASSES) & (pt == 0)
        without_energy = np.isin(rows[:, 0], CHARGED_CLASSES) & (energy == 0)
        out[without_pt, PARTICLE_COLUMNS.index("pt")] = (energy / ratio)[without_pt]
        out[without_energy, PARTICLE_COLUMNS.index("energy")] = (pt * ratio)[without_energy]
    out[rows[:, 0] == NONE] = 0.0
    return out
