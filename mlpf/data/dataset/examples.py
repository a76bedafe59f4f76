"""Common parts of all TFDS recipes: features, metadata, examples from parquet files."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds

from mlpf import __version__
from mlpf.data.dataset.detectors import detector_entry
from mlpf.data.dataset.splitting import DEFAULT_FRACTIONS, EventSelection, event_keys, partition
from mlpf.data.events import Events, iterate_events, read_metadata
from mlpf.data.flat_tables import IntArray, Table, expand_ranges, offsets_from_counts
from mlpf.data.input_files import checksum
from mlpf.errors import DataError
from mlpf.physics.features import PARTICLE_COLUMNS, TARGETS
from mlpf.physics.jets import JetAlgorithm, jet_index
from mlpf.physics.samples import CLIC_SAMPLES, DELPHES_SAMPLES, PhysicsSample
from mlpf.physics.schemas import SCHEMAS, EventSchema


def recipe(
    files: Sequence[Path], seed: int, fractions: Sequence[float], schema: EventSchema
) -> dict[str, Any]:
    """Describe the inputs of a dataset; equal descriptions give equal datasets.

    Raises:
        DataError: a file is missing, not one of ours, or of another schema; files are of different detectors;
            or a split gets no events.
        SchemaMismatch: its columns differ from those of the code.
    """
    return {
        "schema": schema.name,
        "split_seed": int(seed),
        "split_fractions": [float(f) for f in fractions],
        "split_by": partition(files, seed, fractions).by,
        "truth_version": common_truth_version(files, schema),
        **detector_entry(files, schema),
        "source_files": [source_entry(path) for path in files],
    }


def source_entry(path: Path) -> dict[str, str]:
    """Return name, source and checksum of an input; reads the whole file.

    Raises:
        DataError: the file is missing, or not from ``mlpf postprocess``.
    """
    source = read_metadata(path)["source"]
    return {"file": path.name, "source": source, "blake2b": checksum(path)}


def common_truth_version(files: Sequence[Path], schema: EventSchema) -> str:
    """Return the common truth version of all files; reads the description of each.

    Raises:
        DataError: a file is missing, not from ``mlpf postprocess``, holds events of another schema, or the
            versions differ.
        SchemaMismatch: its columns differ from those of the code.
    """
    versions = set()
    for path in files:
        description = read_metadata(path)
        found = description["schema"]
        if found != schema.name:
            raise DataError(
                f"{path}: holds {found} events, expected {schema.name}; choose the recipe made for them "
                "or run mlpf postprocess with the options for this one"
            )
        versions.add(description["truth_version"])
    if len(versions) > 1:
        raise DataError(
            f"input files of truth versions {', '.join(sorted(versions))}, expected one; "
            "run mlpf postprocess --overwrite on all of them"
        )
    return next(iter(versions), "")


def jet_ranks(
    counts: IntArray, targets: npt.NDArray[np.float32], algorithm: JetAlgorithm = "ee_genkt"
) -> npt.NDArray[np.float32]:
    """Return the rank in pt of the jet of each target, 1 = hardest, 0 = no jet or no particle.

    Args:
        counts: [E] elements per event.
        targets: [n, 7] ``PARTICLE_COLUMNS``, one event after the other.
        algorithm: jet algorithm.
    """
    index = {name: PARTICLE_COLUMNS.index(name) for name in PARTICLE_COLUMNS.names}
    real = np.flatnonzero(targets[:, index["cls"]] > 0)
    rows = targets[real].astype(np.float64)
    phi = np.arctan2(rows[:, index["sin_phi"]], rows[:, index["cos_phi"]])
    event = np.repeat(np.arange(len(counts)), counts)[real]
    particles = np.bincount(event, minlength=len(counts))
    ranks = np.zeros(len(targets), dtype=np.float32)
    momenta = rows[:, index["pt"]], rows[:, index["eta"]], phi, rows[:, index["energy"]]
    ranks[real] = jet_index(particles, *momenta, algorithm=algorithm)
    return ranks


def make_examples(events: Events, base_name: str) -> list[dict[str, Any]]:
    """Return the examples of a dataset from the events of the file called ``base_name``.

    Returns:
        Per event, name of the field -> matrix; and ``event``, which is ``<base name>_<event number>``.
    """
    schema = events.schema
    elements = _stacked([events[kind.name] for kind in schema.kinds], schema)
    ranks = jet_ranks(elements.counts, elements["ygen"][:, : len(PARTICLE_COLUMNS)], schema.jet_algorithm)
    for name in ("ygen", "ycand"):
        elements[name][:, TARGETS.index("jet_idx")] = ranks
    tables = [elements, *(events[name] for name in schema.particle_lists)]
    if schema.account:
        rows = np.stack([events.scalars[name].astype(np.float32) for name, _ in schema.account], axis=1)
        tables.append(Table.one_row_per_event({"account": rows}))
    keys = event_keys(base_name, events.scalars["event"].tolist())
    examples: list[dict[str, Any]] = [{"event": key} for key in keys]
    for table in tables:
        for example, (start, stop) in zip(examples, pairwise(table.offsets.tolist()), strict=True):
            example.update((name, values[start:stop]) for name, values in table.columns.items())
    return examples


def _stacked(tables: Sequence[Table], schema: EventSchema) -> Table:
    """Join the elements of all kinds within every event, kind after kind, with the columns of datasets."""
    counts = np.stack([table.counts for table in tables])
    offsets = offsets_from_counts(counts.sum(axis=0))
    begin = offsets[:-1] + np.cumsum(counts, axis=0) - counts
    widths = {"X": schema.num_features, "ygen": len(TARGETS), "ycand": len(TARGETS)}
    columns = {name: np.zeros((offsets[-1], width), np.float32) for name, width in widths.items()}
    for table, first, count in zip(tables, begin, counts, strict=True):
        rows = expand_ranges(first, count)
        for name, values in columns.items():
            values[rows, : table[name].shape[1]] = table[name]
    return Table(columns, offsets)


def dataset_features(schema: EventSchema) -> tfds.features.FeaturesDict:
    """Return the features of the fields for TFDS. Matrices are stored as raw bytes, which is fast to read."""

    def matrix(columns: int) -> Any:
        return tfds.features.Tensor(shape=(None, columns), dtype=np.float32, encoding="bytes")

    return tfds.features.FeaturesDict(
        {
            "X": matrix(schema.num_features),
            "ygen": matrix(len(TARGETS)),
            "ycand": matrix(len(TARGETS)),
            **{name: matrix(width) for name, width in schema.optional_widths.items()},
            "event": tfds.features.Text(),
        }
    )


class ElementDatasetBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]  # an argument of TFDS' metaclass hook
    """A dataset of events, from parquet files of ``mlpf postprocess``. A recipe sets ``SCHEMA``.

    Args:
        inputs: parquet files; by default those in ``<manual_dir>/<config>``, as for ``tfds build``.
        split_seed: seed of the split, by file name, or by event if there are too few files.
        split_fractions: fractions of train, valid, test.
        **kwargs: arguments of ``tfds.core.GeneratorBasedBuilder``.
    """

    SCHEMA: EventSchema = SCHEMAS["clic"]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put the parquet files of `mlpf postprocess` into <manual_dir>/<config name>/."
    )

    def __init__(
        self,
        *,
        inputs: Sequence[Path] = (),
        split_seed: int = 0,
        split_fractions: Sequence[float] = DEFAULT_FRACTIONS,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("file_format", "array_record")
        self._inputs = tuple(inputs)
        self._split_seed = split_seed
        self._split_fractions = tuple(split_fractions)
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        metadata = {
            "schema": self.SCHEMA.name,
            "columns": {name: list(c.names) for name, c in self.SCHEMA.dataset_columns.items()},
            "units": {name: list(c.units) for name, c in self.SCHEMA.dataset_columns.items()},
            "mlpf_version": __version__,
        }
        return self.dataset_info_from_configs(
            features=dataset_features(self.SCHEMA), metadata=tfds.core.MetadataDict(metadata)
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        files = self._inputs or tuple(
            sorted(Path(dl_manager.manual_dir, self.builder_config.name).glob("*.parquet"))
        )
        self.info.metadata.update(recipe(files, self._split_seed, self._split_fractions, self.SCHEMA))
        parts = partition(files, self._split_seed, self._split_fractions)
        return {
            name: self._generate_examples(members, parts.selection(name))
            for name, members in parts.files.items()
        }

    def _generate_examples(
        self, files: Sequence[Path], selection: EventSelection
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for path in files:
            for events in iterate_events(path):
                for example in make_examples(events, path.stem):
                    if selection.holds(example["event"]):
                        yield example["event"], example


def clic_configs() -> list[tfds.core.BuilderConfig]:
    """Return one configuration of a recipe per sample of CLIC."""
    return _configs(CLIC_SAMPLES)


def delphes_configs() -> list[tfds.core.BuilderConfig]:
    """Return one configuration of a recipe per sample of Delphes."""
    return _configs(DELPHES_SAMPLES)


def _configs(samples: Mapping[str, PhysicsSample]) -> list[tfds.core.BuilderConfig]:
    return [tfds.core.BuilderConfig(name=s.name, description=s.description) for s in samples.values()]
