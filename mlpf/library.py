"""The package from Python: datasets, networks, evaluation and export. ``import mlpf`` offers all of it.

What ``mlpf.__all__`` does not list is private and may change.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from mlpf.config.schema import Config
from mlpf.data.dataset.split import PreparedSplit, open_split
from mlpf.errors import DataError

if TYPE_CHECKING:
    import keras

    from mlpf.evaluation.predictions import Predictions
    from mlpf.export import ExportedFile


class Dataset:
    """The events of one split, read when they are asked for; made by ``open_dataset``.

    ``dataset[i]`` is an event, a dict of arrays. N elements, P particles (columns: docs/columns.md, in GeV,
    mm, ns, rad):

    * ``X`` [N, F] float32: detector elements;
    * ``ygen``, ``ycand`` [N, 8] float32: target and baseline candidate of each element;
    * ``gen_particles``, ``oracle_particles``, ``perfect_particles`` [P, 7] float32, ``event``: an identifier
      as bytes, where the dataset has them.

    Attributes:
        name: ``<recipe>/<config>``.
        split: ``train``, ``valid`` or ``test``.
        fields: names of the arrays of an event.
        lengths: int64 [number of events], elements N of each event.
    """

    def __init__(self, name: str, split: str, events: PreparedSplit) -> None:
        self.name = name
        self.split = split
        self.fields: tuple[str, ...] = events.fields
        self._events = events

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Elements of each event; the first call reads the whole split where no earlier one was stored."""
        return self._events.lengths

    def __len__(self) -> int:
        """Return the number of events."""
        return self._events.num_events

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one event: its arrays, and ``event``, its name as text.

        Raises:
            IndexError: there is no such event.
            DataError: it cannot be read.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name}: no event {index}, split {self.split!r} has {len(self)}")
        event = self._events.fetch([index % len(self)], self.fields)
        return {name: event.names[0] if name == "event" else event[name] for name in self.fields}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the events in order."""
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True)
class TrainedModel:
    """A network with the weights of a checkpoint; made by ``load_model``.

    Attributes:
        network: Keras model of X [B, N, F] float32, raw columns of a dataset; rows of zeros are padding.
            Returns a dict of float32 arrays, zero on padding: ``cls`` [B, N, 6] and ``charge`` [B, N, 3] are
            logits (charges -1, 0, +1), ``pt`` and ``energy`` [B, N, 1] are in GeV, ``eta``, ``sin_phi`` and
            ``cos_phi`` [B, N, 1] have no unit.
        config: of its training.
        checkpoint: folder that the weights come from.
    """

    network: "keras.Model"
    config: Config
    checkpoint: Path


def open_dataset(config: Config, name: str, split: Literal["train", "valid", "test"] = "test") -> Dataset:
    """Open one split of a dataset that ``mlpf build`` made.

    Args:
        config: says where the dataset is, in which version, and what its events are made of.
        name: a key of ``config.datasets``, such as ``clic_edm4hep/ttbar``.
        split: which events.

    Raises:
        DataError: the configuration has no such dataset, it is not built, of another detector, or it has no
            such split.
        SchemaMismatch: its columns are not those of the configuration.
    """
    if name not in config.datasets:
        raise DataError(
            f"{name}: not in the configuration, which has {', '.join(config.datasets)}; for a dataset of "
            f"your own give load_config the override 'datasets.{name}.version=1.0.0'"
        )
    section = config.dataset
    events = open_split(name, config.datasets[name], split, section.event_schema, section.detector)
    return Dataset(name, split, events)


def build_network(config: Config) -> "keras.Model":
    """Build the network of a configuration, with random weights.

    Returns:
        What ``TrainedModel.network`` describes.
    """
    from mlpf.runs.trained import build_network as build

    with _dtype_policy(config.setup.dtype):
        return build(config)


def load_model(run_dir: str | Path, weights: str = "best") -> TrainedModel:
    """Load the network of a run directory that ``mlpf train`` wrote.

    Args:
        run_dir: the directory.
        weights: ``best``, ``latest``, or the path of a checkpoint.

    Raises:
        CheckpointError: no run directory, or the checkpoint is missing, damaged or of another network.
    """
    from mlpf.runs.trained import load_run_config, load_trained_model

    config = load_run_config(Path(run_dir))
    with _dtype_policy(config.setup.dtype):
        network, checkpoint = load_trained_model(Path(run_dir), config, weights)
    return TrainedModel(network, config, checkpoint)


def predict(
    model: TrainedModel, dataset: Dataset, num_events: int | None = None, batch_size: int | None = None
) -> "Predictions":
    """Let a network find the particles of the first events of a dataset, and make jets of them.

    Args:
        model: of ``load_model``.
        dataset: of ``open_dataset``.
        num_events: at most this many; default all.
        batch_size: events that the network gets at once; default ``validation_batch_size``.

    Returns:
        Particles and jets of network (``pred``), baseline (``cand``), targets and the limits set by
        truth, where the dataset has them.

    Raises:
        DataError: the dataset has no events, or one cannot be read.
        EventTooLong: an event has more elements than the network takes.
    """
    from mlpf.forward import graph_forward
    from mlpf.runs.prediction import predict_dataset

    total = len(dataset) if num_events is None else min(num_events, len(dataset))
    if total < 1:
        raise DataError(f"{dataset.name}: {total} events to predict; ask for one at least")
    found, _ = predict_dataset(
        graph_forward(model.network),
        model.config,
        dataset.name,
        dataset._events,
        batch_size=batch_size or model.config.validation_batch_size,
        num_events=total,
    )
    return found


def read_predictions(path: str | Path) -> "Predictions":
    """Read a file that ``mlpf evaluate`` wrote: ``predictions/<dataset>.parquet`` of a run directory.

    Raises:
        DataError: no such file, or it does not hold predictions.
    """
    from mlpf.evaluation.predictions import read_predictions as read

    return read(Path(path))


def export_onnx(
    model: TrainedModel,
    path: str | Path,
    *,
    target: Literal["onnxruntime", "cmssw"] = "onnxruntime",
    precisions: Sequence[Literal["float32", "float16", "int8"]] = ("float32",),
) -> "dict[str, ExportedFile]":
    """Write a network as ONNX, checked against Keras; docs/export.md describes the files.

    Args:
        model: of ``load_model``.
        path: file of float32, such as ``model.onnx``; others and ``model_card.json`` are written beside it.
        target: what reads the file.
        precisions: numbers inside the network, one file each.

    Returns:
        The files by precision.

    Raises:
        ExportError: a file would differ too much from Keras; nothing is written.
    """
    from mlpf.export import export_onnx as export
    from mlpf.runs.trained import export_metadata

    config = model.config
    return export(
        model.network,
        Path(path),
        target=target,
        precisions=precisions,
        schema=config.dataset.event_schema,
        detector=config.dataset.detector,
        metadata=export_metadata(config, model.checkpoint),
    )


@contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    """Let Keras build layers of a number format; the choice of the program that calls us stays."""
    import keras

    from mlpf.machine.session import set_dtype_policy

    before = keras.config.dtype_policy()
    set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
