"""Jets and missing momentum of validation events after an epoch, beside the baseline and the limits."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mlpf.config.schema import Config
from mlpf.data.dataset.prepared_events import PreparedEvents
from mlpf.data.feeding.batch_loader import EventPool
from mlpf.evaluation.inference import Forward, predict
from mlpf.evaluation.metrics import response_summary
from mlpf.evaluation.particles import with_types_only
from mlpf.evaluation.predictions import (
    BASELINE,
    EVENT_FIELDS,
    GEN,
    NETWORK,
    Predictions,
    make_reference,
    with_network,
)
from mlpf.files.atomic import atomic_write
from mlpf.runs.data import VALIDATION_SPLIT, open_validation
from mlpf.runs.trained import REFERENCE_FILE
from mlpf.training.checkpoints.run_state import Record

# Events whose targets are in memory at a time while the reference is made.
_READ_CHUNK = 100
# With fewer jets matched, relative to the baseline, their width says nothing: that of one jet is 0.
_MIN_MATCHED = 0.5


class PhysicsValidation:
    """Epoch hook that adds ``PHYSICS_METRICS`` and ``val_physics_seconds`` to the record of the epoch.

    Args:
        config: the whole configuration; ``callbacks.physics.every`` is above 0.
        model: the network, with the weights that are to be judged when the hook is called.
        pool: validation events.
        reference: of its first events, without a network.
        is_last: says from the history whether its epoch is the last.

    Attributes:
        reference: what baseline, targets and limits reach on the same events; the contents of
            ``REFERENCE_FILE``.
    """

    def __init__(
        self,
        config: Config,
        model: keras.Model,
        pool: EventPool,
        reference: Predictions,
        is_last: Callable[[list[Record]], bool],
    ):
        self._config = config
        self._is_last = is_last
        self._pool = pool
        self._forward = graph_forward(model, config.dataset.num_input_features)
        self._predictions = reference
        self.reference: dict[str, Any] = {
            "dataset": reference.dataset,
            "split": VALIDATION_SPLIT,
            "num_events": reference.num_events,
            "num_gen_jets": len(reference.jets[GEN]),
            "gen_reference": reference.gen_reference,
            "methods": {method: response_summary(reference, method) for method in reference.methods},
        }

    def __call__(self, history: list[Record]) -> None:
        """Judge the network after every n-th epoch and the last one."""
        record = history[-1]
        if int(record["epoch"]) % self._config.callbacks.physics.every and not self._is_last(history):
            return
        started = time.perf_counter()
        record |= {f"val_{name}": value for name, value in self.measure().items()}
        record["val_physics_seconds"] = time.perf_counter() - started

    def measure(self) -> Record:
        """Return ``response_summary`` of the network as it is now.

        Without the width of the jet response where less than half as many jets are matched as those of the
        baseline: the few jets that an untrained network finds would win over all that it learns later.
        """
        config = self._config
        batching = config.batching
        result = predict(
            self._forward,
            self._pool,
            batch_size=config.validation_batch_size,
            bucket_size=config.parameters.bucket_size,
            growth=batching.bucket_growth if batching.bucket_by_sequence_length else math.inf,
            num_events=self._predictions.num_events,
            fields=("X",),
            none_threshold=config.evaluation_none_threshold,
            warm_up=False,
        )
        found = response_summary(with_network(self._predictions, result.predicted), NETWORK)
        baseline = self.reference["methods"][BASELINE].get("jet_matched_fraction", 0.0)
        if found.get("jet_matched_fraction", 0.0) < _MIN_MATCHED * baseline:
            found.pop("jet_response_iqr", None)
        return found

    def target_line(self) -> str:
        """Say in one line what there is to beat."""
        reached = self.reference["methods"]
        names = {BASELINE: "baseline", "oracle": "oracle", "perfect": "perfect"}

        def widths(quantity: str) -> str:
            values = {text: reached.get(method, {}).get(quantity) for method, text in names.items()}
            return ", ".join(f"{text} {value:.4f}" for text, value in values.items() if value is not None)

        return (
            f"validation physics on {self.reference['num_events']} events of {self.reference['dataset']}; "
            f"jet response IQR/median: {widths('jet_response_iqr') or 'undefined'}; "
            f"MET: {widths('met_response_iqr') or 'undefined'}"
        )


def build_physics_validation(
    config: Config,
    run_dir: Path,
    model: keras.Model,
    pool: EventPool,
    is_last: Callable[[list[Record]], bool],
) -> PhysicsValidation:
    """Read the truth and the baseline of validation events, judge the baseline, write ``REFERENCE_FILE``.

    Args:
        config: the whole configuration.
        run_dir: run directory, there already.
        model: the network.
        pool: validation events, the first ones of the validation split.
        is_last: says from the history whether its epoch is the last, which is judged in any case.

    Raises:
        DataError: the split cannot be read.
    """
    split = open_validation(config)
    number = min(config.callbacks.physics.num_events, pool.num_events)
    fields = tuple(field for field in EVENT_FIELDS if field in split.fields)
    chunks = [np.arange(first, min(first + _READ_CHUNK, number)) for first in range(0, number, _READ_CHUNK)]
    # Of X only the type of the element is needed: the network gets its input from the pool.
    events = PreparedEvents.concatenate([with_types_only(split.fetch(chunk, fields)) for chunk in chunks])
    schema = config.dataset.event_schema
    reference = make_reference(config.validation_dataset, events, config.evaluation_jet_algo, schema)
    hook = PhysicsValidation(config, model, pool, reference, is_last)
    with atomic_write(run_dir / REFERENCE_FILE) as part:
        part.write_text(json.dumps(hook.reference, indent=1, allow_nan=False), encoding="utf-8")
    return hook


def graph_forward(model: keras.Model, num_features: int) -> Forward:
    """Return the forward pass as one graph with open axes, traced once for all shapes.

    Not ``model.predict_on_batch``: under a strategy of several GPUs each would get the whole batch.
    """

    @tf.function(input_signature=[tf.TensorSpec((None, None, num_features), tf.float32)], autograph=False)
    def forward(X: tf.Tensor) -> dict[str, tf.Tensor]:
        return model(X, training=False)

    return lambda X: {name: values.numpy() for name, values in forward(tf.constant(X)).items()}
