"""Prepared array_record datasets: open a split, check its columns, fetch events by index."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpf.atomic import atomic_write
from mlpf.config.schema import DatasetSourceConfig
from mlpf.errors import DataError, SchemaMismatch
from mlpf.physics.features import PARTICLE_COLUMNS, TARGETS
from mlpf.physics.schemas import SCHEMAS, EventSchema

_LENGTHS_CHUNK = 1024


class PreparedSplit:
    """Random access to the events of one split; made by ``open_split``.

    Attributes:
        path: folder of the dataset version.
        split: name of the split.
        num_events: events in the split.
        fields: what ``fetch`` can return.
    """

    def __init__(self, builder: Any, path: Path, split: str) -> None:
        self._builder = builder
        self._decoders: dict[tuple[str, ...], Callable[[bytes], dict[str, Any]]] = {}
        self.path = path
        self.split = split
        self.num_events = int(builder.info.splits[split].num_examples)
        self.fields = tuple(builder.info.features)

    def fetch(
        self, indices: Iterable[int], fields: Sequence[str] = ("X", "ygen")
    ) -> list[dict[str, npt.NDArray]]:
        """Return the events at ``indices``, in that order.

        Args:
            indices: positions in the split, 0 to ``num_events`` - 1.
            fields: out of ``self.fields``; only these are decoded.

        Raises:
            DataError: a field that the dataset does not have, or a damaged record.
        """
        decode = self._decoder(tuple(fields))
        try:
            events = [decode(record) for record in self._records.__getitems__([int(i) for i in indices])]
        except (RuntimeError, OSError) as error:
            raise DataError(
                f"{self.path}: split {self.split!r} cannot be read ({str(error)[:120]}); "
                "build the dataset again"
            ) from error
        return [{name: _to_array(event[name]) for name in fields} for event in events]

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Elements per event, int64 [num_events]; kept in a file beside the data once computed."""
        try:
            cache = self.path / f".lengths-{self.split}-{self._fingerprint()}.npy"
        except OSError as error:
            raise DataError(f"{error.filename}: missing or unreadable; build the dataset again") from error
        try:
            lengths = np.load(cache, allow_pickle=False)
            if lengths.shape == (self.num_events,):
                return lengths.astype(np.int64)
        except (OSError, ValueError, EOFError):
            pass  # not there yet, or damaged: computed again below
        lengths = np.empty(self.num_events, dtype=np.int64)
        for start in range(0, self.num_events, _LENGTHS_CHUNK):
            chunk = range(start, min(start + _LENGTHS_CHUNK, self.num_events))
            lengths[chunk.start : chunk.stop] = [len(event["X"]) for event in self.fetch(chunk, ("X",))]
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

    def _decoder(self, fields: tuple[str, ...]) -> Callable[[bytes], dict[str, Any]]:
        """Return a function that decodes only ``fields`` of a record: the others are never unpacked."""
        if fields not in self._decoders:
            import tensorflow_datasets as tfds

            for name in fields:
                if name not in self.fields:
                    raise DataError(
                        f"{self.path}: no field {name!r}, the dataset has {', '.join(self.fields)}; "
                        "build it with mlpf build to have them all"
                    )
            features = tfds.features.FeaturesDict(
                {name: self._builder.info.features[name] for name in fields}
            )
            self._decoders[fields] = features.deserialize_example_np
        return self._decoders[fields]

    @cached_property
    def _records(self) -> Any:
        from tensorflow_datasets.core.decode import DeserializeMethod

        return self._builder.as_data_source(split=self.split, deserialize_method=DeserializeMethod.RAW_BYTES)


def _to_array(value: Any) -> npt.NDArray:
    return np.array(value.decode()) if isinstance(value, bytes) else np.asarray(value)


def open_split(
    name: str, source: DatasetSourceConfig, split: str, schema: EventSchema = SCHEMAS["clic"]
) -> PreparedSplit:
    """Open one split of a prepared dataset and check its columns.

    Args:
        name: ``<recipe>/<config>``, or the folder name of a published dataset.
        source: version and directory.
        split: ``train``, ``valid`` or ``test``.
        schema: what its events must be made of.

    Raises:
        DataError: the dataset is not built, is not array_record, or has no such split.
        SchemaMismatch: names the first column that differs.
    """
    path = Path(source.data_dir) / name / source.version
    if not (path / "dataset_info.json").is_file():
        raise DataError(_not_built(name, source, path))
    import tensorflow_datasets as tfds
    from google.protobuf.json_format import ParseError

    try:
        builder = tfds.builder_from_directory(str(path))
    except (OSError, ValueError, KeyError, AttributeError, ParseError) as error:
        raise DataError(f"{path}: not a complete dataset ({str(error)[:120]}); build it again") from error
    file_format = getattr(builder.info.file_format, "value", "unknown")
    if file_format != "array_record":
        raise DataError(f"{path}: file format {file_format}, expected array_record; build it with mlpf build")
    _check_columns(builder.info, path, schema)
    if split not in builder.info.splits:
        raise DataError(
            f"{path}: no split {split!r}, it has {', '.join(sorted(builder.info.splits))}; "
            "choose one of them or build the dataset again with more files"
        )
    return PreparedSplit(builder, path, split)


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
    """Compare the schema, shapes, and names where the dataset has them, with what is expected."""
    metadata, features = _metadata(path), info.features
    if metadata.get("schema", schema.name) != schema.name:
        raise SchemaMismatch(
            f"{path}: holds {metadata['schema']} events, expected {schema.name}; set dataset.schema to that"
        )
    required = {"X": schema.num_features, "ygen": len(TARGETS), "ycand": len(TARGETS)}
    optional = dict.fromkeys(schema.particle_lists, len(PARTICLE_COLUMNS))
    for field, width in {**required, **optional}.items():
        if field not in features:
            if field in optional:
                continue
            raise SchemaMismatch(
                f"{path}: field {field!r} is missing, found {', '.join(features)}; build it again"
            )
        shape = tuple(features[field].shape)
        if shape != (None, width):
            raise SchemaMismatch(
                f"{path}: {field} has shape {shape}, expected (None, {width}); "
                "it belongs to another detector or version"
            )
    names = metadata.get("columns", {})
    for kind, columns in schema.dataset_columns.items():
        if kind in names:
            columns.require(names[kind], str(path))


def _metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of the dataset; published ones may have none."""
    try:
        metadata = json.loads((path / "metadata.json").read_text())
    except (OSError, ValueError):
        return {}
    return metadata if isinstance(metadata, dict) else {}
