"""The detector of a dataset: one for all its files, and that of the configuration."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlpf.config.detector import DetectorConfig, recorded_detector
from mlpf.data.events import read_metadata
from mlpf.errors import DataError
from mlpf.physics.schemas import EventSchema


def detector_entry(files: Sequence[Path], schema: EventSchema) -> dict[str, Any]:
    """Return ``detector`` -> description of the detector of all files; empty if the events depend on none.

    Raises:
        DataError: they are of different detectors.
    """
    if not schema.has_positions:
        return {}
    first: DetectorConfig | None = None
    for path in files:
        found = recorded_detector(read_metadata(path), str(path))
        first = first or found
        if difference := first.difference(found, f"in {files[0]}", f"in {path}"):
            raise DataError(
                f"input files of different detectors: {difference}; build them into different datasets, "
                "or run mlpf postprocess --overwrite with one --detector"
            )
    return {} if first is None else {"detector": first.model_dump()}


def require_detector(metadata: Mapping[str, Any], path: Path, wanted: DetectorConfig) -> None:
    """Refuse a dataset of another detector than that of the configuration, and so of the network.

    Args:
        metadata: of the dataset.
        path: its folder.
        wanted: detector of the configuration.

    Raises:
        DataError: names the first difference.
    """
    found = recorded_detector(metadata, str(path))
    if difference := found.difference(wanted, "in the dataset", "in the configuration"):
        raise DataError(
            f"{path}: of another detector: {difference}; set dataset.detector to that of the dataset and "
            "train a network for it, or give datasets of the configuration's detector"
        )
