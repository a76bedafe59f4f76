"""Prepared array_record datasets: open a split, check its columns, fetch events by index."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpf.config.data_schema import TRAIN, VALID, DatasetSourceConfig
from mlpf.config.detector import DetectorConfig
from mlpf.data.dataset.array_records import RECORD_ERRORS, Decoder, RecordFiles, record_decoder
from mlpf.data.dataset.detectors import require_detector
from mlpf.data.dataset.prepared_events import ELEMENT_FIELDS, PreparedEvents
from mlpf.data.flat_tables import Table
from mlpf.errors import DataError, MLPFError, SchemaMismatch, one_line
from mlpf.files.atomic import atomic_write
from mlpf.physics.features import TARGETS
from mlpf.physics.schemas import SCHEMAS, EventSchema

_FEATURE_MODULE = "tensorflow_datasets.core.features"
_FEATURE_CLASS = rf"{re.escape(_FEATURE_MODULE)}(\.[A-Za-z_0-9]+)+"
_LENGTHS_CHUNK = 1024
# The published builders name columns under these keys of the metadata.
_PUBLISHED_KEY = "x_features_{kind}"
_PUBLISHED_TARGETS = "y_features"
# Targets of published sets of hits have no rank of the jet; it becomes 0.
_TARGET_FIELDS = ("ygen", "ycand")
_TARGET_WIDTHS = (len(TARGETS), TARGETS.index("jet_idx"))


class PreparedSplit:
    """Random access to the events of one split; made by ``open_split``.

    Args:
        builder: the dataset.
        path: its folder.
        split: name of the stored split.
        selected: [n] increasing positions of the events to use; None = all.

    Attributes:
        path: folder of the dataset version.
        split: name of the split.
        num_events: events in the split.
        fields: fields that ``fetch`` can return.
    """

    def __init__(
        self, builder: Any, path: Path, split: str, selected: npt.NDArray[np.int64] | None = None
    ) -> None:
        self._builder = builder
        self._decoders: dict[tuple[str, ...], Decoder] = {}
        self._num_stored = int(builder.info.splits[split].num_examples)
        self._selected = np.arange(self._num_stored) if selected is None else selected
        self.path = path
        self.split = split
        self.num_events = len(self._selected)
        self.fields = tuple(builder.info.features)

    def fetch(self, indices: Iterable[int], fields: Sequence[str] = ("X", "ygen")) -> PreparedEvents:
        """Return the events at ``indices``, in that order.

        Args:
            indices: positions in the split, 0 to ``num_events`` - 1.
            fields: out of ``self.fields``; only these are decoded.

        Raises:
            DataError: a field that the dataset does not have, a damaged record, or an event whose inputs
                and targets have different numbers of rows.
        """
        return self._fetch_stored(self._selected[np.fromiter(indices, np.int64)], fields)

    def _fetch_stored(self, positions: npt.NDArray[np.int64], fields: Sequence[str]) -> PreparedEvents:
        decode = self._decoder(tuple(fields))
        if not len(positions):
            return self._no_events(fields)
        events: list[dict[str, npt.NDArray]] = []
        try:
            events += [decode(record) for record in self._records.read(positions)]
            return _with_jets(PreparedEvents.from_events(events))
        except RECORD_ERRORS as error:
            reason = _different_rows(positions, events) or f" cannot be read ({one_line(error)})"
            raise DataError(f"{self.path}: split {self.split!r}{reason}; build the dataset again") from error

    def _no_events(self, fields: Sequence[str]) -> PreparedEvents:
        """Return the fields of no event: arrays of length 0 with the columns of the dataset."""
        shapes = {name: self._builder.info.features[name].shape for name in fields}
        event = {name: np.zeros([size or 0 for size in shape], np.float32) for name, shape in shapes.items()}
        return _with_jets(PreparedEvents.from_events([event]).take(np.empty(0, np.int64)))

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Elements per event, int64 [num_events]; once computed, stored in a file beside the data."""
        return self._stored_lengths()[self._selected]

    def _stored_lengths(self) -> npt.NDArray[np.int64]:
        try:
            cache = self.path / f".lengths-{self.split}-{self._fingerprint()}.npy"
        except OSError as error:
            raise DataError(f"{error.filename}: missing or unreadable; build the dataset again") from error
        try:
            lengths = np.load(cache, allow_pickle=False)
            if lengths.shape == (self._num_stored,) and lengths.dtype == np.int64 and (lengths >= 0).all():
                return lengths
        except (OSError, ValueError, EOFError):
            pass  # missing or damaged: computed again below
        lengths = np.empty(self._num_stored, dtype=np.int64)
        for start in range(0, self._num_stored, _LENGTHS_CHUNK):
            chunk = np.arange(start, min(start + _LENGTHS_CHUNK, self._num_stored))
            lengths[chunk] = self._fetch_stored(chunk, ("X",)).elements.counts
        try:
            with atomic_write(cache) as part, part.open("wb") as stream:
                np.save(stream, lengths, allow_pickle=False)
        except OSError:
            pass  # a read-only dataset: computed in every run
        return lengths

    def _fingerprint(self) -> str:
        """Identify the records of the split, so that lengths of an older build are not used."""
        info = self._builder.info.splits[self.split]
        files = [(Path(f).name, Path(f).stat().st_size, Path(f).stat().st_mtime_ns) for f in info.filepaths]
        return hashlib.blake2b(repr(files).encode(), digest_size=8).hexdigest()

    def _decoder(self, fields: tuple[str, ...]) -> Decoder:
        if fields not in self._decoders:
            for name in fields:
                if name not in self.fields:
                    raise DataError(
                        f"{self.path}: no field {name!r}, the dataset has {', '.join(self.fields)}; "
                        "build it with mlpf build to have them all"
                    )
            self._decoders[fields] = record_decoder(self._builder.info.features, fields)
        return self._decoders[fields]

    @cached_property
    def _records(self) -> RecordFiles:
        info = self._builder.info.splits[self.split]
        return RecordFiles(info.filepaths, info.shard_lengths)


@contextmanager
def data_errors() -> Iterator[None]:
    """Raise a data error of a tf.data pipeline unchanged, which TensorFlow would replace by its own error.

    Raises:
        DataError: the error of the split that was read in the background.
    """
    try:
        yield
    except Exception as error:
        said = None if isinstance(error, MLPFError) else re.search(r"\bDataError: (.+)", str(error))
        if said is None:
            raise
        raise DataError(said[1]) from error


def _different_rows(
    positions: npt.NDArray[np.int64], events: Sequence[Mapping[str, npt.NDArray]]
) -> str | None:
    """Name the first event whose inputs and targets have different numbers of rows."""
    for position, event in zip(positions.tolist(), events, strict=False):
        rows = {name: len(event[name]) for name in ELEMENT_FIELDS if name in event}
        if len(set(rows.values())) > 1:
            found = ", ".join(f"{name} {count}" for name, count in rows.items())
            return f", event {position}: different numbers of rows, {found}, expected one per element in each"
    return None


def _with_jets(events: PreparedEvents) -> PreparedEvents:
    """Add the missing column of targets without the rank of the jet."""
    elements = events.elements
    columns = {
        name: np.pad(values, ((0, 0), (0, len(TARGETS) - values.shape[1])))
        for name, values in elements.columns.items()
        if name in _TARGET_FIELDS and values.shape[1] < len(TARGETS)
    }
    return replace(events, elements=Table(elements.columns | columns, elements.offsets))


def require_built(name: str, source: DatasetSourceConfig) -> Path:
    """Return the folder of a prepared dataset. Looks for its description and does not read events.

    Args:
        name: ``<recipe>/<config>``, or the folder name of a published dataset.
        source: version and directory.

    Raises:
        DataError: the dataset is not built.
    """
    path = Path(source.data_dir) / name / source.version
    if not (path / "dataset_info.json").is_file():
        raise DataError(_not_built(name, source, path))
    return path


def open_split(
    name: str,
    source: DatasetSourceConfig,
    split: str,
    schema: EventSchema = SCHEMAS["clic"],
    detector: DetectorConfig | None = None,
) -> PreparedSplit:
    """Open one split of a prepared dataset and check its columns.

    If a dataset has no ``valid`` split, a fraction of ``train``, chosen by a hash of the position, is that
    split, and ``train`` is the rest.

    Args:
        name: ``<recipe>/<config>``, or the folder name of a published dataset.
        source: version and directory, and the fraction of validation events.
        split: ``train``, ``valid`` or ``test``.
        schema: what its events must be made of.
        detector: that they must be measured with; None = any.

    Raises:
        DataError: the dataset is not built, not array_record, of another detector, or has no such split.
        SchemaMismatch: names the first column that differs.
    """
    path = require_built(name, source)
    import tensorflow_datasets as tfds

    _require_known_classes(path)
    try:
        builder = tfds.builder_from_directory(str(path))
        for listed in builder.info.splits.values():
            _check_counts(listed.name, listed.filepaths, listed.shard_lengths)
    except Exception as error:  # exceptions inside TFDS by wrong types in its JSON files
        raise DataError(f"{path}: not a complete dataset ({one_line(error)}); build it again") from error
    file_format = getattr(builder.info.file_format, "value", "unknown")
    if file_format != "array_record":
        raise DataError(f"{path}: file format {file_format}, expected array_record; build it with mlpf build")
    _check_columns(builder.info, path, schema)
    if detector is not None:
        require_detector(builder.info.metadata or {}, path, detector)
    names = builder.info.splits
    if VALID not in names and TRAIN in names and split in (TRAIN, VALID) and source.valid_fraction > 0:
        _check_sizes(names[TRAIN], path)
        held_out = _held_out(int(names[TRAIN].num_examples), source.valid_fraction, source.valid_seed)
        selected = np.flatnonzero(held_out if split == VALID else ~held_out)
        if not len(selected):
            raise DataError(
                f"{path}: no event is left for {split!r} with valid_fraction {source.valid_fraction:g} and "
                f"valid_seed {source.valid_seed} of {len(held_out)} training events; change one of them"
            )
        return PreparedSplit(builder, path, TRAIN, selected)
    if split not in names:
        raise DataError(
            f"{path}: no split {split!r}, it has {', '.join(sorted(names))}; "
            "choose one of them, or build the dataset again with other --split-fractions"
        )
    _check_sizes(names[split], path)
    return PreparedSplit(builder, path, split)


def _check_counts(name: str, paths: Sequence[Any], counts: Sequence[int]) -> None:
    """Raise ValueError unless each file of a split has a number of events."""
    if len(paths) != len(counts) or min(counts, default=0) < 0:
        raise ValueError(f"split {name!r} lists {list(counts)[:5]} events in {len(paths)} files")


def _check_sizes(split: Any, path: Path) -> None:
    """Refuse more events than the files can hold.

    Arrays of this length are made before files are read.

    Files of other splits may be missing.
    """
    try:
        size = sum(Path(file).stat().st_size for file in split.filepaths)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: split {split.name!r}: a file is missing or unreadable ({one_line(error)}); "
            "build the dataset again"
        ) from error
    if split.num_examples > size:
        raise DataError(
            f"{path}: split {split.name!r} lists {split.num_examples} events in {size} bytes; "
            "build the dataset again"
        )


def _held_out(num_events: int, fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """Return [n] True for held out events; depends on position and seed only."""
    # splitmix64 of the position: the same numbers on every machine and with every numpy.
    state = (np.arange(1, num_events + 1, dtype=np.uint64) + np.uint64(seed << 32)) * np.uint64(
        0x9E3779B97F4A7C15
    )
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return state.astype(np.float64) < fraction * 2.0**64


def _require_known_classes(path: Path) -> None:
    """Refuse features of classes outside TFDS, because TFDS would import any module that the file names.

    Raises:
        DataError: there is such a class; names the first one.
    """
    try:
        text = (path / "features.json").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a complete dataset ({one_line(error)}); build it again") from error
    for name in re.findall(r'"pythonClassName"\s*:\s*"((?:[^"\\]|\\.)*)"', text):
        if not re.fullmatch(_FEATURE_CLASS, name):
            raise DataError(
                f"{path}: features of class {name[:80]!r}, expected those of {_FEATURE_MODULE}; "
                "do not open it, it could run code"
            )


def _not_built(name: str, source: DatasetSourceConfig, path: Path) -> str:
    folder = path.parent
    versions = sorted(p.parent.name for p in folder.glob("*/dataset_info.json"))
    if versions:
        return (
            f"{name}: version {source.version} is not in {folder}, which has {', '.join(versions)}; "
            "change the version"
        )
    return (
        f"{name}: not built, no {path / 'dataset_info.json'}; run "
        f"mlpf build {name} --data-dir {source.data_dir} --input <directory of parquet files>"
    )


def _check_columns(info: Any, path: Path, schema: EventSchema) -> None:
    """Compare schema, shapes and, if the dataset has them, names with the expected ones."""
    metadata, features = _metadata(path), info.features or {}
    if metadata.get("schema", schema.name) != schema.name:
        raise SchemaMismatch(
            f"{path}: holds {metadata['schema']} events, expected {schema.name}; set dataset.schema to that"
        )
    required = {"X": (schema.num_features,), **dict.fromkeys(_TARGET_FIELDS, _TARGET_WIDTHS)}
    optional = {name: (width,) for name, width in schema.optional_widths.items()}
    for field, widths in {**required, **optional}.items():
        if field not in features:
            if field in optional:
                continue
            raise SchemaMismatch(
                f"{path}: field {field!r} is missing, found {', '.join(features)}; build it again"
            )
        shape = tuple(features[field].shape)
        if len(shape) != 2 or shape[1] not in widths:
            raise SchemaMismatch(
                f"{path}: {field} has shape {shape}, expected (None, {widths[0]}); "
                "it belongs to another detector or version"
            )
        if not np.issubdtype(features[field].np_dtype, np.floating):
            raise SchemaMismatch(
                f"{path}: {field} holds {features[field].np_dtype}, expected float32; build it again"
            )
    named = metadata.get("columns") or {}
    if not isinstance(named, dict):
        raise SchemaMismatch(
            f"{path / 'metadata.json'}: columns is {named!r:.80}, expected lists of names; build it again"
        )
    for kind, columns in schema.dataset_columns.items():
        if kind in named:
            columns.require(_names(named, kind, path), str(path))
    _check_published_names(metadata, path, schema)


def _check_published_names(metadata: dict[str, Any], path: Path, schema: EventSchema) -> None:
    """Compare the columns that a published dataset names."""
    for kind in schema.kinds:
        key = _PUBLISHED_KEY.format(kind=kind.name)
        if names := _names(metadata, key, path):
            kind.features.require(names, f"{path}: {key}")
    # Column 0 has several names, and the last column is not always listed.
    targets = _names(metadata, _PUBLISHED_TARGETS, path)
    for i, (found, expected) in enumerate(zip(targets, TARGETS.names, strict=False)):
        if i and found != expected:
            raise SchemaMismatch(
                f"{path}: {_PUBLISHED_TARGETS} column {i} is {found!r}, expected {expected!r}"
            )


def _names(metadata: dict[str, Any], key: str, path: Path) -> list[str]:
    """Return a list of column names, empty if there is none."""
    names = metadata.get(key) or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SchemaMismatch(
            f"{path / 'metadata.json'}: {key} is {names!r:.80}, expected a list of names; build it again"
        )
    return names


def _metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of the dataset; published ones may have none."""
    try:
        metadata = json.loads((path / "metadata.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return metadata if isinstance(metadata, dict) else {}
