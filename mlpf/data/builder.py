"""What all TFDS recipes share: features, metadata, seeded split by file, examples out of parquet files."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds

from mlpf import __version__
from mlpf.data.event import JAGGED_COLUMNS, Events, read_events, read_metadata
from mlpf.errors import DataError
from mlpf.physics.features import (
    CLUSTER_FEATURES,
    NUM_CLIC_FEATURES,
    PARQUET_TARGETS,
    PARTICLE_COLUMNS,
    TARGETS,
    TRACK_FEATURES,
    Columns,
)
from mlpf.physics.jets import jet_index
from mlpf.physics.particles import class_from_label

SPLITS = ("train", "valid", "test")
DEFAULT_FRACTIONS = (0.8, 0.1, 0.1)
MAX_SEEDS_TRIED = 100
PARTICLE_FIELDS = ("gen_particles", "oracle_particles", "perfect_particles")
DATASET_COLUMNS: dict[str, Columns] = {
    "X_track": TRACK_FEATURES,
    "X_cluster": CLUSTER_FEATURES,
    "targets": TARGETS,
    "particles": PARTICLE_COLUMNS,
}


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


def recipe(files: Sequence[Path], seed: int, fractions: Sequence[float]) -> dict[str, Any]:
    """Describe what a dataset is made from; equal recipes give equal datasets.

    Raises:
        DataError: a file is missing or not one of ours.
        SchemaMismatch: its columns differ from those of the code.
    """
    sources, truth_versions = [], set()
    for path in files:
        description = read_metadata(path)
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


def jet_ranks(targets: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the rank in pt of the jet of each target [N, 7], 1 = hardest, 0 = no jet or no particle."""
    index = {name: PARTICLE_COLUMNS.index(name) for name in PARTICLE_COLUMNS.names}
    real = np.flatnonzero(targets[:, index["cls"]] > 0)
    rows = targets[real].astype(np.float64)
    phi = np.arctan2(rows[:, index["sin_phi"]], rows[:, index["cos_phi"]])
    ranks = np.zeros(len(targets), dtype=np.float32)
    ranks[real] = jet_index(rows[:, index["pt"]], rows[:, index["eta"]], phi, rows[:, index["energy"]])
    return ranks


def examples(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield key and example of every event of a parquet file.

    Raises:
        DataError: the file cannot be used.
    """
    events = read_events(path)
    targets = {
        name: dataset_targets(events.jagged[name].values)
        for name, c in JAGGED_COLUMNS.items()
        if c is PARQUET_TARGETS
    }
    for i, number in enumerate(events.scalars["event"].tolist()):
        key = f"{path.stem}_{number}"
        yield key, _example(events, targets, i, key)


def _example(events: Events, targets: dict[str, npt.NDArray], i: int, key: str) -> dict[str, Any]:
    def rows(name: str) -> npt.NDArray[np.float32]:
        offsets = events.jagged[name].offsets
        return targets[name][offsets[i] : offsets[i + 1]]

    track, cluster = events.jagged["X_track"][i], events.jagged["X_cluster"][i]
    x = np.zeros((len(track) + len(cluster), NUM_CLIC_FEATURES), dtype=np.float32)
    x[: len(track), : len(TRACK_FEATURES)] = track
    x[len(track) :] = cluster
    ygen = np.concatenate([rows("ygen_track"), rows("ygen_cluster")])
    ycand = np.concatenate([rows("ycand_track"), rows("ycand_cluster")])
    jets = jet_ranks(ygen)[:, None]
    return {
        "X": x,
        "ygen": np.concatenate([ygen, jets], axis=1),
        "ycand": np.concatenate([ycand, jets], axis=1),
        **{name: rows(name) for name in PARTICLE_FIELDS},
        "event": key,
    }


class ElementDatasetBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A dataset of events made of tracks and clusters, from parquet files of ``mlpf postprocess``.

    Args:
        inputs: parquet files; without them those in ``<manual_dir>/<config>`` are read, as ``tfds build``
            does.
        split_seed: seed of the split by file name.
        split_fractions: share of train, valid, test.
        **kwargs: those of ``tfds.core.GeneratorBasedBuilder``.
    """

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
            "X": matrix(NUM_CLIC_FEATURES),
            "ygen": matrix(len(TARGETS)),
            "ycand": matrix(len(TARGETS)),
            **{name: matrix(len(PARTICLE_COLUMNS)) for name in PARTICLE_FIELDS},
            "event": tfds.features.Text(),
        }
        metadata = {
            "columns": {name: list(c.names) for name, c in DATASET_COLUMNS.items()},
            "units": {name: list(c.units) for name, c in DATASET_COLUMNS.items()},
            "mlpf_version": __version__,
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), metadata=tfds.core.MetadataDict(metadata)
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        files = self._inputs or tuple(
            sorted(Path(dl_manager.manual_dir, self.builder_config.name).glob("*.parquet"))
        )
        self.info.metadata.update(recipe(files, self._split_seed, self._split_fractions))
        splits = split_files(files, self._split_seed, self._split_fractions)
        return {name: self._generate_examples(members) for name, members in splits.items()}

    def _generate_examples(self, files: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
        for path in files:
            yield from examples(path)
