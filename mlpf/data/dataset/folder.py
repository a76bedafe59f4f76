"""A prepared dataset found by its folder: its splits and the schema of its events."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlpf.config.data_schema import DatasetSourceConfig
from mlpf.config.detector import DetectorConfig, recorded_detector
from mlpf.data.dataset.split import PreparedSplit, open_split
from mlpf.errors import DataError
from mlpf.physics.schemas import SCHEMAS, EventSchema, schema_named


@dataclass(frozen=True)
class DatasetFolder:
    """One version of a dataset.

    Attributes:
        path: folder of the version.
        schema: what its events are made of.
        splits: names of its splits, as the dataset lists them.
        detector: that its events were measured with; None where they have no positions.
    """

    path: Path
    schema: EventSchema
    splits: tuple[str, ...]
    detector: DetectorConfig | None

    def open(self, split: str) -> PreparedSplit:
        """Open one split.

        Raises:
            DataError: no such split, or not readable.
            SchemaMismatch: columns differ from those of the schema.
        """
        # The stored splits: no events are held out of train.
        source = DatasetSourceConfig(
            version=self.path.name, data_dir=str(self.path.parent.parent), valid_fraction=0.0
        )
        return open_split(self.path.parent.name, source, split, self.schema)


def find_dataset(path: Path) -> DatasetFolder:
    """Read a folder ``<name>/<version>``, or ``<name>`` if it has one version.

    Published datasets do not name their schema; the number of columns decides.

    Raises:
        DataError: there is no dataset, several versions, or an incomplete one.
        SchemaMismatch: its events are of no known schema.
    """
    path = Path(path).resolve()
    if not (path / "dataset_info.json").is_file():
        versions = sorted(p.parent for p in path.glob("*/dataset_info.json"))
        if not versions:
            raise DataError(
                f"{path}: no prepared dataset, no dataset_info.json there; give the folder of a version, "
                "e.g. tensorflow_datasets/clic_edm4hep/ttbar/1.0.0"
            )
        if len(versions) > 1:
            names = ", ".join(p.name for p in versions)
            raise DataError(f"{path}: has versions {names}; give the folder of one of them")
        path = versions[0]
    try:
        info = json.loads((path / "dataset_info.json").read_text(encoding="utf-8"))
        splits = tuple(str(split["name"]) for split in info["splits"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path / 'dataset_info.json'}: damaged ({error!r}); build the dataset again"
        ) from None
    if not splits:
        raise DataError(f"{path / 'dataset_info.json'}: lists no splits; build the dataset again")
    metadata = _metadata(path)
    schema = _schema(path, metadata)
    detector = recorded_detector(metadata, str(path)) if schema.has_positions else None
    return DatasetFolder(path, schema, splits, detector)


def _metadata(path: Path) -> dict[str, Any]:
    """Return what a dataset says of itself; published ones need not say anything."""
    try:
        metadata = json.loads((path / "metadata.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _schema(path: Path, metadata: dict[str, Any]) -> EventSchema:
    if "schema" in metadata:
        return schema_named(str(metadata["schema"]), str(path))
    try:
        features: Any = json.loads((path / "features.json").read_text(encoding="utf-8"))
        width = int(features["featuresDict"]["features"]["X"]["tensor"]["shape"]["dimensions"][-1])
    except (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{path / 'features.json'}: does not say how many columns X has ({error!r}); "
            "it is no dataset of events or damaged"
        ) from None
    fitting = [schema for schema in SCHEMAS.values() if schema.num_features == width]
    if not fitting:
        known = ", ".join(f"{schema.name} {schema.num_features}" for schema in SCHEMAS.values())
        raise DataError(f"{path}: X has {width} columns, expected those of a known schema: {known}")
    return fitting[0]
