"""The data of a training: loaders of batches out of the configuration, and the input normaliser."""

import math
from collections.abc import Iterator

import keras
import numpy as np

from mlpf.config.schema import Config
from mlpf.data.input_pipeline import BatchLoader, EventPool, length_buckets
from mlpf.data.prepared import PreparedSplit, open_split
from mlpf.errors import DataError
from mlpf.layers.input_normalization import fit_normalization
from mlpf.workflows.trained import require_fit

TRAINING_SPLIT, VALIDATION_SPLIT = "train", "valid"
_NORMALIZATION_EVENTS = 256  # events read at a time while fitting


def build_loaders(
    config: Config, num_replicas: int, *, ntrain: int | None = None, ntest: int | None = None
) -> tuple[BatchLoader, BatchLoader]:
    """Return the loaders of shuffled training batches and of validation batches.

    Args:
        config: the whole configuration.
        num_replicas: devices that share a batch.
        ntrain: most training events per dataset.
        ntest: most validation events.

    Raises:
        DataError: a dataset cannot be read, or a split has no events.
    """
    names = dataset_names(config)
    schema = config.dataset.event_schema
    pool = EventPool([(open_training(config, name), ntrain) for name in names], schema=schema)
    _require_events(pool, ", ".join(names), TRAINING_SPLIT)
    scale = num_replicas * config.batching.batch_multiplier
    groups, position = [], 0
    for group in config.train_test_datasets.values():
        events = [pool.events_of(position + i) for i in range(len(group.datasets))]
        groups.append((np.concatenate(events), group.batch_per_gpu * scale))
        position += len(group.datasets)
    limits = [n for n in (config.validation_num_events, ntest) if n is not None and n >= 0]
    valid = EventPool([(open_validation(config), min(limits, default=None))], schema=schema)
    _require_events(valid, config.validation_dataset, VALIDATION_SPLIT)
    longest = max(int(pool.lengths.max()), int(valid.lengths.max()))
    require_fit(", ".join(names), config.parameters, longest)
    growth = config.batching.bucket_growth if config.batching.bucket_by_sequence_length else math.inf
    edges = length_buckets([pool, valid], config.parameters.bucket_size, growth)
    valid_size = math.ceil(config.validation_batch_size / num_replicas) * num_replicas
    return (
        BatchLoader(pool, groups, edges, seed=config.setup.seed),
        BatchLoader(valid, [(valid.events_of(0), valid_size)], edges),
    )


def dataset_names(config: Config) -> list[str]:
    """Return the dataset of each split of the training pool, in its order."""
    return [name for group in config.train_test_datasets.values() for name in group.datasets]


def open_training(config: Config, name: str) -> PreparedSplit:
    """Open the split whose first events are trained on.

    Raises:
        DataError: it cannot be read.
    """
    return open_split(name, config.datasets[name], TRAINING_SPLIT, config.dataset.event_schema)


def open_validation(config: Config) -> PreparedSplit:
    """Open the split whose first events are those of the validation loader.

    Raises:
        DataError: it cannot be read.
    """
    name = config.validation_dataset
    return open_split(name, config.datasets[name], VALIDATION_SPLIT, config.dataset.event_schema)


def _require_events(pool: EventPool, name: str, split: str) -> None:
    """Refuse a split without events."""
    if not pool.num_events:
        raise DataError(f"{name}: split {split} has no events; build it from more files or other fractions")


def fit_normalizer(config: Config, model: keras.Model, pool: EventPool) -> None:
    """Fit the input normalisation to the training events, where the model has one."""
    if not config.parameters.use_normalizer:
        return

    def batches() -> Iterator[np.ndarray]:
        for first in range(0, pool.num_events, _NORMALIZATION_EVENTS):
            indices = np.arange(first, min(first + _NORMALIZATION_EVENTS, pool.num_events))
            yield pool.fetch_padded(indices, int(pool.lengths[indices].max()))["X"]

    statistics = fit_normalization(batches(), config.dataset.num_input_classes)
    model.input_normalization.set_statistics(statistics)
