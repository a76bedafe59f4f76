"""Jet and missing-momentum metrics of validation events, compared with baseline and limits."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mlpf.config.data_schema import VALID
from mlpf.config.schema import Config
from mlpf.data.dataset.prepared_events import PreparedEvents
from mlpf.data.feeding.batch_loader import EventPool
from mlpf.evaluation.inference import predict
from mlpf.evaluation.metrics import response_summary
from mlpf.evaluation.particles import with_types_only
from mlpf.evaluation.predictions import (
    EVENT_FIELDS,
    Predictions,
    make_reference,
    with_network,
)
from mlpf.files.atomic import atomic_write
from mlpf.files.run_directory import RunDirectory
from mlpf.forward import graph_forward
from mlpf.physics.methods import BASELINE, GEN, LIMITS, METHOD_NAMES, NETWORK
from mlpf.runs.data import open_validation
from mlpf.training.checkpoints.run_state import EpochRecord

# Events read at a time while the reference is made.
_READ_CHUNK = 100
# With fewer matched jets than this share of the baseline's, the width means nothing: that of one jet is 0.
_MIN_MATCHED = 0.5


class PhysicsValidation:
    """Epoch hook that adds ``PHYSICS_METRICS`` and ``val_physics_seconds`` to the record of the epoch.

    Args:
        config: the whole configuration; ``callbacks.physics.every`` is above 0.
        model: the network; when the hook is called it must have the weights to evaluate.
        pool: validation events.
        reference: predictions of the first events of ``pool``, without a network.
        is_last: returns from the history whether its epoch is the last.

    Attributes:
        reference: metrics of baseline, targets and limits on the same events; the contents of
            ``RunDirectory.reference``.
    """

    def __init__(
        self,
        config: Config,
        model: keras.Model,
        pool: EventPool,
        reference: Predictions,
        is_last: Callable[[list[EpochRecord]], bool],
    ):
        self._config = config
        self._is_last = is_last
        self._pool = pool
        self._forward = graph_forward(model)
        self._predictions = reference
        self.reference: dict[str, Any] = {
            "dataset": reference.dataset,
            "split": VALID,
            "num_events": reference.num_events,
            "num_gen_jets": len(reference.jets[GEN]),
            "gen_reference": reference.gen_reference,
            "methods": {method: response_summary(reference, method) for method in reference.methods},
        }

    def __call__(self, history: list[EpochRecord]) -> None:
        """Evaluate the network after every n-th epoch and after the last one."""
        record = history[-1]
        if int(record["epoch"]) % self._config.callbacks.physics.every and not self._is_last(history):
            return
        started = time.perf_counter()
        record |= {f"val_{name}": value for name, value in self.measure().items()}
        record["val_physics_seconds"] = time.perf_counter() - started

    def measure(self) -> EpochRecord:
        """Return ``response_summary`` of the network as it is now.

        The width of the jet response is left out if fewer than half as many jets are matched as for the
        baseline. An untrained network finds few jets, and their small width would look best.
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
        """Return in one line what baseline and limits reach."""
        reached = self.reference["methods"]
        names = {method: METHOD_NAMES[method] for method in (BASELINE, *LIMITS)}

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
    is_last: Callable[[list[EpochRecord]], bool],
) -> PhysicsValidation:
    """Make the hook: read the validation events, evaluate the baseline, write the reference file.

    Args:
        config: the whole configuration.
        run_dir: run directory; must exist.
        model: the network.
        pool: validation events, in the order of the validation split.
        is_last: returns from the history whether its epoch is the last; that one is always evaluated.

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
    with atomic_write(RunDirectory(run_dir).reference) as part:
        part.write_text(json.dumps(hook.reference, indent=1, allow_nan=False), encoding="utf-8")
    return hook
