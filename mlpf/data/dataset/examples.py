"""What all TFDS recipes share: features, metadata, examples out of parquet files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds

from mlpf import __version__
from mlpf.data.dataset.splitting import DEFAULT_FRACTIONS, EventSelection, event_keys, partition
from mlpf.data.events import Events, Jagged, iterate_events, read_metadata
from mlpf.data.flat_tables import IntArray, expand_ranges, offsets_from_counts
from mlpf.data.input_files import checksum
from mlpf.errors import DataError
from mlpf.physics.features import PARQUET_TARGETS, PARTICLE_COLUMNS, TARGETS
from mlpf.physics.jets import JetAlgorithm, jet_index
from mlpf.physics.particles import class_from_label
from mlpf.physics.samples import CLIC_SAMPLES, DELPHES_SAMPLES, PhysicsSample
from mlpf.physics.schemas import SCHEMAS, EventSchema


def recipe(
    files: Sequence[Path], seed: int, fractions: Sequence[float], schema: EventSchema
) -> dict[str, Any]:
    """Describe what a dataset is made from; equal recipes give equal datasets.

    Raises:
        DataError: a file is missing, not one of ours, or of another schema; or a split gets no events.
        SchemaMismatch: its columns differ from those of the code.
    """
    return {
        "schema": schema.name,
        "split_seed": int(seed),
        "split_fractions": [float(f) for f in fractions],
        "split_by": partition(files, seed, fractions).by,
        "truth_version": common_truth_version(files, schema),
        "source_files": [source_entry(path) for path in files],
    }


def source_entry(path: Path) -> dict[str, str]:
    """Return name, source and checksum of an input; reads the whole file.

    Raises:
        DataError: missing, or not one of ours.
    """
    source = read_metadata(path)["source"]
    return {"file": path.name, "source": source, "blake2b": checksum(path)}


def common_truth_version(files: Sequence[Path], schema: EventSchema) -> str:
    """Return the truth version of all files, having looked at the description of each.

    Raises:
        DataError: a file is missing, not one of ours, holds events of another schema, or the versions differ.
        SchemaMismatch: its columns differ from those of the code.
    """
    versions = set()
    for path in files:
        description = read_metadata(path)
        found = description.get("schema", "clic")
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


def dataset_targets(parquet: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Replace the PDG label in column 0 of ``PARQUET_TARGETS`` [n, 7] by the class index."""
    out = parquet.astype(np.float32, copy=True)
    label = PARQUET_TARGETS.index("PDG")
    out[:, label] = class_from_label(parquet[:, label].astype(np.int64))
    return out


def jet_ranks(
    counts: IntArray, targets: npt.NDArray[np.float32], algorithm: JetAlgorithm = "ee_genkt"
) -> npt.NDArray[np.float32]:
    """Return the rank in pt of the jet of each target, 1 = hardest, 0 = no jet or no particle.

    Args:
        counts: [E] elements per event.
        targets: [n, 7] ``PARTICLE_COLUMNS``, event after event.
        algorithm: what makes jets.
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


@dataclass(frozen=True)
class Examples:
    """What a dataset holds of E events.

    Attributes:
        keys: [E] ``<file base name>_<event number>``.
        fields: matrices of all events by the name they have in the dataset.
    """

    keys: list[str]
    fields: dict[str, Jagged]

    def __len__(self) -> int:
        """Return the number of events E."""
        return len(self.keys)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Return one event as TFDS takes it."""
        return {**{name: values[i] for name, values in self.fields.items()}, "event": self.keys[i]}


def make_examples(events: Events, base_name: str) -> Examples:
    """Turn events of the file called ``base_name`` into what a dataset holds of them."""
    schema = events.schema
    as_class = {
        name: Jagged(dataset_targets(events.jagged[name].values), events.jagged[name].offsets)
        for name, columns in schema.jagged_columns.items()
        if columns is PARQUET_TARGETS
    }
    x = _stack([events.jagged[f"X_{kind.name}"] for kind in schema.kinds], schema.num_features)
    targets = {
        name: _stack([as_class[f"{name}_{kind.name}"] for kind in schema.kinds], len(TARGETS))
        for name in ("ygen", "ycand")
    }
    particles = targets["ygen"].values[:, : len(PARTICLE_COLUMNS)]
    ranks = jet_ranks(np.diff(x.offsets), particles, schema.jet_algorithm)
    for jagged in targets.values():
        jagged.values[:, TARGETS.index("jet_idx")] = ranks
    fields = {"X": x, **targets, **{name: as_class[name] for name in schema.particle_lists}}
    if schema.account:
        rows = np.stack([events.scalars[name].astype(np.float32) for name, _ in schema.account], axis=1)
        fields["account"] = Jagged(rows, np.arange(len(events) + 1))
    return Examples(event_keys(base_name, events.scalars["event"].tolist()), fields)


def _stack(parts: Sequence[Jagged], width: int) -> Jagged:
    """Put the rows of all parts behind each other within every event, padded to ``width`` columns."""
    counts = np.stack([np.diff(part.offsets) for part in parts])
    offsets = offsets_from_counts(counts.sum(axis=0))
    begin = offsets[:-1] + np.cumsum(counts, axis=0) - counts
    values = np.zeros((offsets[-1], width), dtype=np.float32)
    for part, first, count in zip(parts, begin, counts, strict=True):
        values[expand_ranges(first, count), : part.values.shape[1]] = part.values
    return Jagged(values, offsets)


def dataset_features(schema: EventSchema) -> tfds.features.FeaturesDict:
    """Return what TFDS has to know of the fields; matrices are kept as raw bytes, which is fast to read."""

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
        inputs: parquet files; without them those in ``<manual_dir>/<config>`` are read, as ``tfds build``
            does.
        split_seed: seed of the split, by file name, or by event where files are too few.
        split_fractions: share of train, valid, test.
        **kwargs: those of ``tfds.core.GeneratorBasedBuilder``.
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
                examples = make_examples(events, path.stem)
                yield from ((key, examples[i]) for i, key in enumerate(examples.keys) if selection.holds(key))


def clic_configs() -> list[tfds.core.BuilderConfig]:
    """Return one configuration of a recipe per sample of CLIC."""
    return _configs(CLIC_SAMPLES)


def delphes_configs() -> list[tfds.core.BuilderConfig]:
    """Return one configuration of a recipe per sample of Delphes."""
    return _configs(DELPHES_SAMPLES)


def _configs(samples: Mapping[str, PhysicsSample]) -> list[tfds.core.BuilderConfig]:
    return [tfds.core.BuilderConfig(name=s.name, description=s.description) for s in samples.values()]
