"""Evaluate a trained model: predictions, metrics.json and two tables per dataset."""

import json
import math
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from mlpf.config.data_schema import EvaluationDatasetConfig
from mlpf.config.schema import Config
from mlpf.data.dataset.split import open_split
from mlpf.errors import DataError
from mlpf.evaluation.inference import Forward, keras_forward, predict
from mlpf.evaluation.metrics import evaluate_predictions
from mlpf.evaluation.predictions import EVENT_FIELDS, make_predictions, write_predictions
from mlpf.files.atomic import atomic_write
from mlpf.files.run_directory import RunDirectory
from mlpf.machine import session
from mlpf.plotting.report_text import caption, class_rows, response_rows, scale_sentence
from mlpf.runs.trained import load_run_config, load_trained_model, require_fit


def run(
    run_dir: Path,
    *,
    weights: str | Path | None = None,
    num_events: int | None = None,
    data_dir: Path | None = None,
) -> dict[str, Any]:
    """Evaluate a run on the datasets of its configuration.

    Args:
        run_dir: run directory of a training.
        weights: ``best`` (default), ``latest``, or the path of a checkpoint.
        num_events: maximum of events per dataset; default from the configuration.
        data_dir: folder of all datasets; default from the configuration.

    Returns:
        The contents of ``metrics.json``. Datasets that are not built are listed under ``skipped``.

    Raises:
        DataError: none of the datasets is built, or one is damaged.
        CheckpointError: no run directory, or its checkpoint is missing or of another model.
    """
    run_dir = Path(run_dir)
    config = load_run_config(run_dir)
    if data_dir is not None:
        config = config.with_data_dir(str(data_dir))
    skipped = _not_built(config)
    names = [name for name in config.evaluation_datasets if name not in skipped]
    if not names:
        reasons = "; ".join(skipped.values()) or "evaluation_datasets is empty"
        raise DataError(f"{run_dir}: nothing to evaluate on: {reasons}")
    session.prepare(config.setup.dtype, config.setup.allow_tf32)
    model, checkpoint = load_trained_model(run_dir, config, None if weights is None else str(weights))
    forward = keras_forward(model)
    metrics: dict[str, Any] = {"checkpoint": checkpoint.name, "datasets": {}, "skipped": skipped}
    console = Console()
    for name in names:
        settings = config.evaluation_datasets[name]
        if num_events is not None:
            settings = settings.model_copy(update={"num_events": num_events})
        numbers = _evaluate_dataset(name, config, settings, forward, run_dir, console)
        metrics["datasets"][name] = numbers
        console.print(response_table(name, numbers))
        console.print(class_table(name, numbers))
    for reason in skipped.values():
        console.print(f"skipped {reason}", style="yellow")
    with atomic_write(RunDirectory(run_dir).metrics) as part:
        part.write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return metrics


def _not_built(config: Config) -> dict[str, str]:
    """Return name -> reason for each evaluation dataset that is not built."""
    reasons = {}
    for name in config.evaluation_datasets:
        source = config.datasets[name]
        folder = Path(source.data_dir) / name / source.version
        if not (folder / "dataset_info.json").is_file():
            reasons[name] = (
                f"{name}: not built in {folder}; run "
                f"mlpf build {name} --data-dir {source.data_dir} --input <directory of parquet files>"
            )
    return reasons


def _evaluate_dataset(
    name: str,
    config: Config,
    settings: EvaluationDatasetConfig,
    forward: Forward,
    run_dir: Path,
    console: Console,
) -> dict[str, Any]:
    """Predict one dataset, write its predictions, return its numbers."""
    schema = config.dataset.event_schema
    split = open_split(name, config.datasets[name], settings.split, schema)
    total = split.num_events if settings.num_events < 0 else min(settings.num_events, split.num_events)
    if total == 0:
        raise DataError(f"{name}: split {settings.split} has no events; evaluate another one")
    require_fit(name, config.parameters, int(split.lengths[:total].max()))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    batching = config.batching
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"{name} {settings.split}", total=total)
        result = predict(
            forward,
            split,
            batch_size=settings.batch_size,
            bucket_size=config.parameters.bucket_size,
            growth=batching.bucket_growth if batching.bucket_by_sequence_length else math.inf,
            num_events=total,
            none_threshold=config.evaluation_none_threshold,
            fields=tuple(field for field in EVENT_FIELDS if field in split.fields),
            on_batch=lambda number: progress.advance(task, number),
        )
    predictions = make_predictions(name, result.events, result.predicted, config.evaluation_jet_algo, schema)
    write_predictions(predictions, RunDirectory(run_dir).predictions(name))
    return {
        "split": settings.split,
        "inference_events_per_second": round(result.events_per_second, 2),
        **evaluate_predictions(predictions),
    }


def response_table(name: str, numbers: dict[str, Any]) -> Table:
    """Return the response table for the terminal."""
    table = _table(f"{name}: jet, missing momentum and energy response", *response_rows(numbers))
    table.caption = f"{caption(numbers)}\n{scale_sentence(numbers)}"
    return table


def class_table(name: str, numbers: dict[str, Any]) -> Table:
    """Return the table of efficiencies and fake rates for the terminal."""
    return _table(f"{name}: elements against their targets", *class_rows(numbers))


def _table(title: str, header: list[str], rows: list[list[str]]) -> Table:
    # Without vertical lines the tables fit into 80 columns.
    table = Table(*header, title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    return table
