"""The data of a training: batch loaders and the fit of the input normalisation."""

import math
from collections.abc import Iterator

import keras
import numpy as np

from mlpf.config.data_schema import TRAIN, VALID, SplitName
from mlpf.config.schema import Config
from mlpf.data.dataset.split import PreparedSplit, open_split
from mlpf.data.feeding.batch_loader import BatchLoader, EventPool, length_buckets
from mlpf.data.feeding.batch_plan import WeightedEvents
from mlpf.errors import DataError
from mlpf.layers.input_normalization import fit_normalization
from mlpf.physics.features import TARGETS
from mlpf.runs.trained import require_fit

_NORMALIZATION_EVENTS = 256  # events read at a time while fitting
_JET_TERMS = ("gen_jet_mse", "gen_jet_logcosh")
_JET_EVENTS = 64  # events looked at for jets


def build_loaders(
    config: Config,
    num_replicas: int,
    *,
    ntrain: int | None = None,
    ntest: int | None = None,
    ranks: tuple[int, int] = (0, 1),
) -> tuple[BatchLoader, BatchLoader]:
    """Return the loaders of shuffled training batches and of validation batches.

    Args:
        config: the whole configuration.
        num_replicas: devices that share a batch, summed over all processes.
        ntrain: maximum of training events per dataset, before the dataset's weight is applied.
        ntest: maximum of validation events.
        ranks: (rank of this process, number of ranks), see ``BatchLoader``.

    Raises:
        DataError: a dataset cannot be read, or a split has no events.
    """
    schema, memory_limit = config.dataset.event_schema, config.batching.memory_limit_bytes
    names = dataset_names(config)
    splits = [(open_training(config, name), ntrain) for name in names]
    pool = EventPool(splits, memory_limit=memory_limit, schema=schema)
    _require_events(pool, ", ".join(names), TRAIN)
    limits = [n for n in (config.validation_num_events, ntest) if n is not None and n >= 0]
    split = (open_validation(config), min(limits, default=None))
    valid = EventPool([split], memory_limit=memory_limit, schema=schema)
    _require_events(valid, config.validation_dataset, VALID)
    longest = max(int(pool.lengths.max()), int(valid.lengths.max()))
    require_fit(", ".join(names), config.parameters, longest)
    growth = config.batching.bucket_growth if config.batching.bucket_by_sequence_length else math.inf
    edges = length_buckets([pool, valid], config.parameters.bucket_size, growth)
    valid_size = math.ceil(config.validation_batch_size / num_replicas) * num_replicas
    groups = _groups(config, pool, num_replicas)
    return (
        BatchLoader(pool, groups, edges, seed=config.setup.seed, ranks=ranks),
        BatchLoader(valid, [(valid.events_of(0), valid_size)], edges, ranks=ranks),
    )


def _groups(config: Config, pool: EventPool, num_replicas: int) -> list[tuple[list[WeightedEvents], int]]:
    """Return for each group its datasets, as positions in ``pool``, and its batch size."""
    scale = num_replicas * config.batching.batch_multiplier
    groups, position = [], 0
    for group in config.train_test_datasets.values():
        datasets = [
            WeightedEvents(pool.events_of(position + i), group.weights.get(name, 1.0))
            for i, name in enumerate(group.datasets)
        ]
        groups.append((datasets, group.batch_per_gpu * scale))
        position += len(group.datasets)
    return groups


def dataset_names(config: Config) -> list[str]:
    """Return the names of the training datasets, in the order of the pool."""
    return [name for group in config.train_test_datasets.values() for name in group.datasets]


def _open(config: Config, name: str, split: SplitName) -> PreparedSplit:
    section = config.dataset
    return open_split(name, config.datasets[name], split, section.event_schema, section.detector)


def open_training(config: Config, name: str) -> PreparedSplit:
    """Open the training split of a dataset.

    Raises:
        DataError: it cannot be read.
    """
    return _open(config, name, TRAIN)


def open_validation(config: Config) -> PreparedSplit:
    """Open the validation split.

    Raises:
        DataError: it cannot be read.
    """
    name = config.validation_dataset
    return _open(config, name, VALID)


def _require_events(pool: EventPool, name: str, split: str) -> None:
    """Refuse a split without events."""
    if not pool.num_events:
        raise DataError(f"{name}: split {split} has no events; build it from more files or other fractions")


def require_jets(config: Config, pool: EventPool) -> None:
    """Refuse jet losses for events without jets: the losses would always be 0.

    Raises:
        DataError: no event of a sample spread over the pool has a jet.
    """
    asked = [f"loss.event_loss.{name}" for name in _JET_TERMS if name in config.loss.term_names]
    if not asked:
        return
    events = np.unique(np.linspace(0, pool.num_events - 1, _JET_EVENTS).astype(np.int64))
    targets = pool.fetch_padded(events, int(pool.lengths[events].max()))["ygen"]
    if not (targets[..., TARGETS.index("jet_idx")] > 0).any():
        raise DataError(
            f"{' and '.join(asked)}: {len(events)} training events were looked at and no target is in a jet "
            "(jet_idx is 0, or not stored in this dataset); set coef to 0, or build the dataset anew"
        )


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
