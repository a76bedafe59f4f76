"""Train one trial of a search up to its rung and write its outcome file."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import keras
import numpy as np

from mlpf.config.loading import load_config
from mlpf.config.schema import Config
from mlpf.config.search.schema import INFERENCE_MS, NUM_PARAMETERS, HypertuneConfig
from mlpf.config.search.space import search_section
from mlpf.data.dataset.split import data_errors
from mlpf.errors import CheckpointError
from mlpf.evaluation.latency import measure
from mlpf.files.atomic import read_json, write_json
from mlpf.files.run_directory import RunDirectory
from mlpf.forward import graph_forward
from mlpf.runs.data import open_validation
from mlpf.runs.early_stopping import StopCriterion
from mlpf.runs.setup import prepare_process
from mlpf.runs.trained import build_network, count_parameters, require_fit
from mlpf.search.state import read_search_config
from mlpf.search.trial_files import TrialFiles
from mlpf.training.loop.interruption import STOP_SIGNALS, TrainingStopped
from mlpf.training.loop.outcome import (
    Outcome,
    TrainingFailed,
    checkpointed_history,
    make_ready,
    recorded_outcome,
)
from mlpf.training.monitors.history_writer import HistoryWriter
from mlpf.workflows import train

# Number of timed validation events, spread over all lengths, and of timed passes of each.
_NUM_EVENTS, _NUM_RUNS = 5, 20


@dataclass
class TrialOutcome(Outcome):
    """How a trial ended; contents of ``TrialFiles.outcome``.

    Attributes:
        num_parameters: number of trainable parameters; None until the network is built.
        inference_ms: time of the network for one event, ms; None if not needed.
    """

    num_parameters: int | None = None
    inference_ms: float | None = None


def run(
    search_dir: Path,
    run: str,
    epochs: int,
    *,
    num_cpus: int | None = None,
    **limits_of_events: Any,
) -> TrialOutcome:
    """Train one trial up to an epoch, from its latest checkpoint if it has one, and write its outcome file.

    The configuration is ``runs/<run>.yaml`` of the search, the run directory ``runs/<run>``. The limits of
    section ``hypertune`` are checked before the training.

    Args:
        search_dir: directory of a search.
        run: name of the run.
        epochs: last epoch to train, counted from 1; schedules span ``setup.num_epochs``.
        num_cpus: threads; None = all cores.
        limits_of_events: ``ntrain`` and ``ntest`` of the training.

    Returns:
        The outcome of a completed trial.

    Raises:
        TrainingFailed: memory, a loss that is not finite, a limit, or a configuration that cannot be trained.
        TrainingStopped: a signal came. The state is saved.
        CheckpointError: not a search, or no such run in it.
        DataError: a dataset cannot be read.
        TrainingBusy: another process trains this run.
    """
    started = time.monotonic()
    limits = search_section(read_search_config(search_dir))
    files = TrialFiles(search_dir, run)
    if not files.config.is_file():
        raise CheckpointError(f"{files.config}: no such file; the driver of a search writes it")
    make_ready(files.run_dir, files.outcome)
    outcome = TrialOutcome()
    with recorded_outcome(files.outcome, files.run_dir, outcome):
        config = load_config(files.config)
        stop_criterion = StopCriterion(config, epochs)
        history = checkpointed_history(files.run_dir)
        with _stopped_at_once():
            _learn_cost(config, limits, files.network, outcome, num_cpus)
        _check_limits(outcome, limits)
        if stop_criterion.is_over(history):  # an earlier process was killed after the last epoch
            HistoryWriter(RunDirectory(files.run_dir).history)(history)
        else:
            history = train.run(
                config,
                files.run_dir,
                resume=True,
                num_cpus=num_cpus,
                started=started,
                stop_after=epochs,
                **limits_of_events,
            ).history
        outcome.state, outcome.reason = "completed", stop_criterion.reason(history)
    return outcome


@contextmanager
def _stopped_at_once() -> Iterator[None]:
    """During the block, raise TrainingStopped at once on a stop signal: there is nothing to save."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise TrainingStopped(f"{signal.Signals(number).name}, before the training")

    before = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _learn_cost(
    config: Config, limits: HypertuneConfig, path: Path, outcome: TrialOutcome, num_cpus: int | None
) -> None:
    """Measure number of parameters and inference time, once per run, and put them into ``outcome``."""
    timed = limits.max_inference_ms is not None or INFERENCE_MS in limits.objective_terms
    known: dict[str, Any] = read_json(path, dict)
    if NUM_PARAMETERS not in known or (timed and known.get(INFERENCE_MS) is None):
        train.check_callbacks(config)
        prepare_process(config, num_cpus)
        model = build_network(config)
        outcome.num_parameters = count_parameters(model)
        _check_limits(outcome, limits)  # do not time a network that is too large
        known = {NUM_PARAMETERS: outcome.num_parameters, INFERENCE_MS: None}
        if timed:
            known[INFERENCE_MS] = inference_time(config, model)
        write_json(path, known)
        del model
        keras.backend.clear_session()  # resets the numbers in names of layers
    outcome.num_parameters, outcome.inference_ms = known[NUM_PARAMETERS], known[INFERENCE_MS]


def inference_time(config: Config, model: keras.Model) -> float:
    """Return the time of a network for one event on the training device, in ms.

    It is the mean over validation events of the median over repeated passes. The events are spread over all
    lengths and not padded. A first pass traces the graph.

    Args:
        config: the whole configuration.
        model: the network; the time does not depend on its weights.

    Raises:
        DataError: the validation split cannot be read.
        EventTooLong: an event has more elements than the model takes.
    """
    with data_errors():
        split = open_validation(config)
        order = np.argsort(split.lengths, kind="stable")
        places = np.linspace(0, split.num_events - 1, _NUM_EVENTS).round().astype(int)
        events = split.fetch(order[places], ("X",)).elements
    require_fit(config.validation_dataset, config.parameters, int(events.counts.max()))
    forward = graph_forward(model)
    medians = [
        measure({"graph": forward}, event["X"][np.newaxis], _NUM_RUNS)[0].p50_ms for event in events.split()
    ]
    return float(np.mean(medians))


def _check_limits(outcome: TrialOutcome, limits: HypertuneConfig) -> None:
    """Refuse a network that is too large or too slow, if the numbers are known already."""
    number, most = outcome.num_parameters, limits.max_parameters
    if number is not None and most is not None and number > most:
        raise TrainingFailed("limit", f"{number} parameters, hypertune.max_parameters is {most}")
    time_ms, most_ms = outcome.inference_ms, limits.max_inference_ms
    if time_ms is not None and most_ms is not None and time_ms > most_ms:
        raise TrainingFailed(
            "limit", f"{time_ms:.4g} ms for one event, hypertune.max_inference_ms is {most_ms:g}"
        )
