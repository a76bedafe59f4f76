"""Published Delphes events: pickles of features, targets and candidates -> prepared events.

Layout: a dictionary of ``X``, ``ygen`` and ``ycand``, each a list with one float64 array per event, of 12, 7
and 7 columns; element types and order of columns are those of ``mlpf.physics.features``. What the published
files leave out or get wrong is repaired here; docs/delphes.md lists it.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mlpf.data.delphes.conversion import SCHEMA, DelphesFilePreparation, PreparedChunk
from mlpf.data.delphes.safe_unpickling import MAX_BYTES, load_arrays, read_checked
from mlpf.data.events import Events, Jagged
from mlpf.data.flat_tables import IntArray, offsets_from_counts
from mlpf.errors import DataError
from mlpf.physics.features import DELPHES_TRACK_FEATURES, PARQUET_TARGETS, PARTICLE_COLUMNS
from mlpf.physics.particles import CLASS_INDEX, PDG_LABELS

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

NEUTRAL_CLASSES = tuple(CLASS_INDEX[name] for name in ("neutral hadron", "photon"))
CHARGED_CLASSES = tuple(CLASS_INDEX[name] for name in ("charged hadron", "electron", "muon"))
LEPTON_CLASSES = tuple(CLASS_INDEX[name] for name in ("electron", "muon"))

Rows = npt.NDArray[np.float32]


class PicklePreparation(DelphesFilePreparation):
    """Reads a pickle of published Delphes events; it needs the memory of one decompressed file.

    Args:
        path: a ``.pkl`` or ``.pkl.bz2`` file. If ``<name>.md5`` lies beside it, its checksum is compared.
        max_bytes: most bytes after decompression.
    """

    truth_version = PUBLISHED_TRUTH_VERSION

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES):
        super().__init__(path)
        self._max_bytes = max_bytes

    def _read(self) -> Iterator[PreparedChunk]:
        arrays = load_arrays(read_checked(self._path, self._max_bytes), str(self._path), self._max_bytes)
        _check_layout(arrays, self._path)
        columns = [arrays[key] for key in COLUMNS]
        del arrays
        for start in range(0, len(columns[0]), CHUNK_EVENTS):
            chunk = [values[start : start + CHUNK_EVENTS] for values in columns]
            for values in columns:  # what has been handed on is freed
                values[start : start + CHUNK_EVENTS] = [None] * len(chunk[0])  # type: ignore[list-item]  # these places are not read again
            yield _prepare_chunk(start, *chunk)


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
    start: int, x: list[npt.NDArray], ygen: list[npt.NDArray], ycand: list[npt.NDArray]
) -> PreparedChunk:
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
    kinds = {kind.name: joined["X"][:, 0] == kind.elemtype for kind in SCHEMA.kinds}
    bad[UNKNOWN_TYPE][event[~np.any(list(kinds.values()), axis=0)]] = True
    values = {"X": joined["X"]}
    for key, repair in (("ygen", repaired_gen), ("ycand", repaired_cand)):
        known = np.isin(joined[key][:, 0], np.arange(len(PDG_LABELS)))
        bad[UNKNOWN_CLASS][event[~known]] = True
        joined[key][~known] = 0.0
        values[key] = repair(joined[key])
    jagged: dict[str, Jagged] = {}
    for name, of_kind in kinds.items():
        offsets: IntArray = offsets_from_counts(np.bincount(event[of_kind], minlength=len(x)))
        jagged |= {f"{key}_{name}": Jagged(rows[of_kind], offsets) for key, rows in values.items()}
    return PreparedChunk(Events(jagged, {"event": np.arange(start, start + len(x))}, {}, SCHEMA), bad)


def _is_aligned(parts: tuple[npt.NDArray, ...]) -> bool:
    expected = [(len(parts[0]), columns) if parts[0].ndim else () for columns in COLUMNS.values()]
    return [part.shape for part in parts] == expected


def _joined(parts: list[npt.NDArray], columns: int) -> Rows:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and its event is skipped
        return np.concatenate([np.zeros((0, columns), np.float32), *(p.astype(np.float32) for p in parts)])


def repaired_gen(rows: Rows) -> Rows:
    """Turn published targets into ``PARQUET_TARGETS``, [n, 7] both.

    The charge of leptons is published as the sign of their PDG code, the opposite of their charge.
    """
    out = rows.copy()
    out[np.isin(rows[:, 0], LEPTON_CLASSES), PARQUET_TARGETS.index("charge")] *= -1
    return _labelled(out, rows[:, 0])


def repaired_cand(rows: Rows) -> Rows:
    """Turn published candidates into ``PARQUET_TARGETS``, [n, 7] both.

    Neutral ones are published without pt, charged ones without energy; both follow from the other and eta.
    """
    pt, eta, energy = (
        rows[:, PARQUET_TARGETS.index(name)].astype(np.float64) for name in ("pt", "eta", "energy")
    )
    out = rows.copy()
    with np.errstate(over="ignore", invalid="ignore"):  # numbers that overflow: their event is skipped
        ratio = np.cosh(eta)
        without_pt = np.isin(rows[:, 0], NEUTRAL_CLASSES) & (pt == 0)
        without_energy = np.isin(rows[:, 0], CHARGED_CLASSES) & (energy == 0)
        out[without_pt, PARQUET_TARGETS.index("pt")] = (energy / ratio)[without_pt]
        out[without_energy, PARQUET_TARGETS.index("energy")] = (pt * ratio)[without_energy]
    return _labelled(out, rows[:, 0])


def _labelled(rows: Rows, cls: Rows) -> Rows:
    """Replace the class index by its label and empty the rows of no particle."""
    rows[:, PARQUET_TARGETS.index("PDG")] = PDG_LABELS[cls.astype(np.int64)]
    rows[cls == 0] = 0.0
    return rows
