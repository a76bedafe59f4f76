"""What all TFDS recipes share: features, metadata, seeded split by file, examples out of parquet files."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds

from mlpf import __version__
from mlpf.data.event import Events, iterate_events, read_metadata
from mlpf.errors import DataError
from mlpf.physics.features import PARQUET_TARGETS, PARTICLE_COLUMNS, TARGETS
from mlpf.physics.jets import JetAlgorithm, jet_index
from mlpf.physics.particles import class_from_label
from mlpf.physics.schemas import SCHEMAS, EventSchema

SPLITS = ("train", "valid", "test")
DEFAULT_FRACTIONS = (0.8, 0.1, 0.1)
MAX_SEEDS_TRIED = 100


def split_of_file(base_name: str, seed: int, fractions: Sequence[float]) -> str:
    """Return the split of a file: it depends on its name and the seed only, not on the other files.

    Args:
        base_name: file name without folder and suffix.
        seed: seed of the split.
        fractions: share of each of ``SPLITS``, summing to 1.
    """
    digest = hashlib.blake2b(f"{seed}:{base_name}".encode(), digest_size=8).digest()
    position = int.from_bytes(digest, "big") / 2**64
    edges = np.cumsum(fractions)[:-1]
    return SPLITS[int(np.searchsorted(edges, position, side="right"))]


def split_files(files: Sequence[Path], seed: int, fractions: Sequence[float]) -> dict[str, list[Path]]:
    """Distribute files over the splits whose fraction is not zero.

    Raises:
        DataError: a split gets no file.
    """
    splits = _distribute(files, seed, fractions)
    for name, members in splits.items():
        if not members:
            good = (s for s in range(MAX_SEEDS_TRIED) if all(_distribute(files, s, fractions).values()))
            raise DataError(
                f"split {name!r} has no events: none of {len(files)} files falls into it with seed {seed} "
                f"and fractions {','.join(f'{f:g}' for f in fractions)}; give more files, other "
                f"--split-fractions or another --split-seed (first that works: {next(good, 'none')})"
            )
    return splits


def _distribute(files: Sequence[Path], seed: int, fractions: Sequence[float]) -> dict[str, list[Path]]:
    splits: dict[str, list[Path]] = {n: [] for n, f in zip(SPLITS, fractions, strict=True) if f > 0}
    for path in files:
        splits[split_of_file(path.stem, seed, fractions)].append(path)
    return splits


def recipe(
    files: Sequence[Path], seed: int, fractions: Sequence[float], schema: EventSchema
) -> dict[str, Any]:
    """Describe what a dataset is made from; equal recipes give equal datasets.

    Raises:
        DataError: a file is missing, not one of ours, or holds events of another schema.
        SchemaMismatch: its columns differ from those of the code.
    """
    sources, truth_versions = [], set()
    for path in files:
        description = read_metadata(path)
        found = description.get("schema", "clic")
        if found != schema.name:
            raise DataError(
                f"{path}: holds {found} events, expected {schema.name}; choose the recipe made for them "
                "or run mlpf postprocess with the options for this one"
            )
        truth_versions.add(description["truth_version"])
        with path.open("rb") as stream:
            checksum = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        sources.append({"file": path.name, "source": description["source"], "blake2b": checksum})
    if len(truth_versions) > 1:
        raise DataError(
            f"input files of truth versions {', '.join(sorted(truth_versions))}, expected one; "
            "run mlpf postprocess --overwrite on all of them"
        )
    return {
        "schema": schema.name,
        "split_seed": int(seed),
        "split_fractions": [float(f) for f in fractions],
        "truth_version": next(iter(truth_versions), ""),
        "source_files": sources,
    }


def dataset_targets(parquet: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Replace the PDG label in column 0 of ``PARQUET_TARGETS`` [n, 7] by the class index."""
    out = parquet.astype(np.float32, copy=True)
    label = PARQUET_TARGETS.index("PDG")
    out[:, label] = class_from_label(parquet[:, label].astype(np.int64))
    return out


def jet_ranks(
    targets: npt.NDArray[np.float32], algorithm: JetAlgorithm = "ee_genkt"
) -> npt.NDArray[np.float32]:
    """Return the rank in pt of the jet of each target [N, 7], 1 = hardest, 0 = no jet or no particle."""
    index = {name: PARTICLE_COLUMNS.index(name) for name in PARTICLE_COLUMNS.names}
    real = np.flatnonzero(targets[:, index["cls"]] > 0)
    rows = targets[real].astype(np.float64)
    phi = np.arctan2(rows[:, index["sin_phi"]], rows[:, index["cos_phi"]])
    ranks = np.zeros(len(targets), dtype=np.float32)
    momenta = rows[:, index["pt"]], rows[:, index["eta"]], phi, rows[:, index["energy"]]
    ranks[real] = jet_index(*momenta, algorithm=algorithm)
    return ranks


def examples(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield key and example of every event of a parquet file.

    Raises:
        DataError: the file cannot be used.
    """
    for events in iterate_events(path):
        targets = {
            name: dataset_targets(events.jagged[name].values)
            for name, columns in events.schema.jagged_columns.items()
            if columns is PARQUET_TARGETS
        }
        for i, number in enumerate(events.scalars["event"].tolist()):
            key = f"{path.stem}_{number}"
            yield key, _example(events, targets, i, key)


def _example(events: Events, targets: dict[str, npt.NDArray], i: int, key: str) -> dict[str, Any]:
    schema = events.schema

    def rows(name: str) -> npt.NDArray[np.float32]:
        offsets = events.jagged[name].offsets
        return targets[name][offsets[i] : offsets[i + 1]]

    features = [events.jagged[f"X_{kind.name}"][i] for kind in schema.kinds]
    x = np.zeros((sum(map(len, features)), schema.num_features), dtype=np.float32)
    start = 0
    for part in features:
        x[start : start + len(part), : part.shape[1]] = part
        start += len(part)
    ygen = np.concatenate([rows(f"ygen_{kind.name}") for kind in schema.kinds])
    ycand = np.concatenate([rows(f"ycand_{kind.name}") for kind in schema.kinds])
    jets = jet_ranks(ygen, schema.jet_algorithm)[:, None]
    return {
        "X": x,
        "ygen": np.concatenate([ygen, jets], axis=1),
        "ycand": np.concatenate([ycand, jets], axis=1),
        **{name: rows(name) for name in schema.particle_lists},
        "event": key,
    }


class ElementDatasetBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A dataset of events, from parquet files of ``mlpf postprocess``. A recipe sets ``SCHEMA``.

    Args:
        inputs: parquet files; without them those in ``<manual_dir>/<config>`` are read, as ``tfds build``
            does.
        split_seed: seed of the split by file name.
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
        def matrix(columns: int) -> Any:
            return tfds.features.Tensor(shape=(None, columns), dtype=np.float32, encoding="bytes")

        features = {
            "X": matrix(self.SCHEMA.num_features),
            "ygen": matrix(len(TARGETS)),
            "ycand": matrix(len(TARGETS)),
            **{name: matrix(len(PARTICLE_COLUMNS)) for name in self.SCHEMA.particle_lists},
            "event": tfds.features.Text(),
        }
        metadata = {
            "schema": self.SCHEMA.name,
            "columns": {name: list(c.names) for name, c in self.SCHEMA.dataset_columns.items()},
            "units": {name: list(c.units) for name, c in self.SCHEMA.dataset_columns.items()},
            "mlpf_version": __version__,
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), metadata=tfds.core.MetadataDict(metadata)
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        files = self._inputs or tuple(
            sorted(Path(dl_manager.manual_dir, self.builder_config.name).glob("*.parquet"))
        )
        self.info.metadata.update(recipe(files, self._split_seed, self._split_fractions, self.SCHEMA))
        splits = split_files(files, self._split_seed, self._split_fractions)
        return {name: self._generate_examples(members) for name, members in splits.items()}

    def _generate_examples(self, files: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
        for path in files:
            yield from examples(path)
