"""What a trained network finds in the events of a dataset, under the settings of its configuration."""

import math
from collections.abc import Callable

from mlpf.config.schema import Config
from mlpf.data.dataset.split import PreparedSplit
from mlpf.evaluation.inference import Inference, predict
from mlpf.evaluation.predictions import EVENT_FIELDS, Predictions, make_predictions
from mlpf.forward import Forward
from mlpf.runs.trained import require_fit


def predict_dataset(
    forward: Forward,
    config: Config,
    name: str,
    split: PreparedSplit,
    *,
    batch_size: int,
    num_events: int,
    on_batch: Callable[[int], None] | None = None,
) -> tuple[Predictions, Inference]:
    """Run a network over the first events of a split and make jets of what it finds.

    Args:
        forward: X [B, N, F] float32 -> outputs of the network.
        config: of the network.
        name: dataset.
        split: its events; at least one.
        batch_size: events per batch B.
        num_events: first events only.
        on_batch: called after each batch with its number of events.

    Returns:
        The predictions beside truth and baseline, and how fast they were made.

    Raises:
        EventTooLong: an event has more elements than the network takes.
        DataError: an event cannot be read.
    """
    require_fit(name, config.parameters, int(split.lengths[:num_events].max()))
    batching = config.batching
    result = predict(
        forward,
        split,
        batch_size=batch_size,
        bucket_size=config.parameters.bucket_size,
        growth=batching.bucket_growth if batching.bucket_by_sequence_length else math.inf,
        num_events=num_events,
        none_threshold=config.evaluation_none_threshold,
        fields=tuple(field for field in EVENT_FIELDS if field in split.fields),
        on_batch=on_batch,
    )
    schema = config.dataset.event_schema
    found = make_predictions(name, result.events, result.predicted, config.evaluation_jet_algo, schema)
    return found, result
