"""Evaluate a trained model: predictions, metrics.json and two tables per dataset."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from mlpf.config.data_schema import DatasetSourceConfig, EvaluationDatasetConfig
from mlpf.config.schema import Config
from mlpf.data.dataset.folder import find_dataset
from mlpf.data.dataset.split import PreparedSplit, open_split
from mlpf.errors import DataError
from mlpf.evaluation.metrics import evaluate_predictions
from mlpf.evaluation.predictions import write_predictions
from mlpf.files.atomic import atomic_write, read_json
from mlpf.files.run_directory import RunDirectory
from mlpf.forward import Forward, graph_forward
from mlpf.machine import session
from mlpf.plotting.report_text import caption, class_rows, response_rows, scale_sentence
from mlpf.runs.prediction import predict_dataset
from mlpf.runs.trained import load_run_config, load_trained_model, require_fit


def run(
    run_dir: Path,
    *,
    weights: str | Path | None = None,
    num_events: int | None = None,
    data_dir: Path | None = None,
    datasets: Sequence[str] = (),
) -> dict[str, Any]:
    """Evaluate a run on the datasets of its configuration, or on others.

    Predictions and numbers of before stay until all new ones are complete. Those of other datasets stay if
    the checkpoint is the same. If it is another one, they and their figures are removed, and a line says so.

    Args:
        run_dir: run directory of a training.
        weights: ``best`` (default), ``latest``, or the path of a checkpoint.
        num_events: maximum of events per dataset; default from the configuration.
        data_dir: folder of all datasets; default from the configuration.
        datasets: evaluate on these instead, known to the configuration or not.

    Returns:
        The contents of ``metrics.json``. Datasets that are not built are listed under ``skipped``.

    Raises:
        DataError: no dataset is built, or not one of ``datasets``; one is damaged; or ``datasets`` are given,
            and the numbers of others are of another checkpoint.
        CheckpointError: no run directory, or its checkpoint is missing or of another model.
    """
    run_dir = Path(run_dir)
    config = _with_datasets(load_run_config(run_dir), data_dir, datasets)
    skipped = _not_built(config)
    names = [name for name in config.evaluation_datasets if name not in skipped]
    if not names:
        reasons = "; ".join(skipped.values()) or "evaluation_datasets is empty"
        raise DataError(f"{run_dir}: nothing to evaluate on: {reasons}")
    session.prepare(config.setup.dtype, config.setup.allow_tf32)
    model, checkpoint = load_trained_model(run_dir, config, None if weights is None else str(weights))
    parts = [_open(name, config, num_events) for name in names]
    kept, outdated = _numbers_before(run_dir, checkpoint.name, names, needed=bool(datasets))
    # Not XLA: it would compile each bucket for longer than an evaluation takes.
    forward = graph_forward(model)
    files = RunDirectory(run_dir)
    metrics: dict[str, Any] = {"checkpoint": checkpoint.name, "datasets": kept, "skipped": skipped}
    console = Console()
    # All get their names when the last is complete, and none before; the numbers after the predictions.
    with ExitStack() as outputs:
        file = outputs.enter_context(atomic_write(files.metrics))
        for part in parts:
            path = files.predictions(part.name)
            path.parent.mkdir(exist_ok=True)
            numbers = _evaluate_dataset(
                part, config, forward, outputs.enter_context(atomic_write(path)), console
            )
            metrics["datasets"][part.name] = numbers
        file.write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    _remove_outputs(files, outdated, list(metrics["datasets"]))
    # Printed last: a reader that closes the pipe ends the process.
    _print_results(console, metrics, names, outdated)
    return metrics


def _print_results(
    console: Console, metrics: dict[str, Any], names: Sequence[str], outdated: Sequence[str]
) -> None:
    for name in names:
        console.print(response_table(name, metrics["datasets"][name]))
        console.print(class_table(name, metrics["datasets"][name]))
    for reason in metrics["skipped"].values():
        console.print(f"skipped {reason}", style="yellow")
    if outdated:
        console.print(
            f"removed {', '.join(outdated)}: evaluated with another checkpoint than {metrics['checkpoint']}",
            style="yellow",
            soft_wrap=True,
        )


def _with_datasets(config: Config, data_dir: Path | None, names: Sequence[str]) -> Config:
    """Return a configuration that looks for datasets in ``data_dir`` and evaluates these only, if any.

    Raises:
        DataError: one that the configuration does not know is not built.
    """
    if data_dir is not None:
        config = config.with_data_dir(str(data_dir))
    if not names:
        return config
    folder = next(iter(config.datasets.values())).data_dir
    sources, evaluated = dict(config.datasets), {}
    for name in names:
        evaluated[name] = config.evaluation_datasets.get(name, EvaluationDatasetConfig())
        if name not in sources:
            if not any((Path(folder) / name).glob("*/dataset_info.json")):
                raise DataError(_how_to_build(name, Path(folder) / name, folder))
            version = find_dataset(Path(folder) / name).path.name
            sources[name] = DatasetSourceConfig(version=version, data_dir=folder)
    return config.model_copy(update={"datasets": sources, "evaluation_datasets": evaluated})


def _numbers_before(
    run_dir: Path, checkpoint: str, names: Sequence[str], needed: bool
) -> tuple[dict[str, Any], list[str]]:
    """Sort the numbers of datasets that were evaluated before.

    Args:
        run_dir: run directory.
        checkpoint: to evaluate now.
        names: datasets to evaluate now.
        needed: whether numbers of other datasets must stay.

    Returns:
        Numbers by dataset, all if they are of this checkpoint, else none; names of other datasets whose
        numbers are of another checkpoint.

    Raises:
        DataError: numbers must stay, and are of another checkpoint.
    """
    file = RunDirectory(run_dir).metrics
    metrics = read_json(file, dict)
    numbers = dict(metrics.get("datasets", {}))
    if metrics.get("checkpoint") == checkpoint:
        return numbers, []
    others = [name for name in numbers if name not in names]
    if metrics and needed:
        raise DataError(
            f"{file}: numbers of {metrics.get('checkpoint')}, now asked for {checkpoint}; "
            "evaluate without --dataset first, or give that checkpoint with -w"
        )
    return {}, others


def _remove_outputs(files: RunDirectory, names: Sequence[str], stay: Sequence[str]) -> None:
    """Remove predictions and figures of datasets; those of datasets that stay are left alone."""
    removed = {files.predictions(name).stem: files.predictions(name) for name in names}
    stems = sorted([*removed, *(files.predictions(name).stem for name in stay)], key=len, reverse=True)
    for figure in files.figures.glob("*"):
        # The longest name decides: figures of ttbar_pu10 begin with ttbar, too.
        owner = next((stem for stem in stems if figure.name.startswith(f"{stem}_")), None)
        if owner in removed:
            figure.unlink()
    for path in removed.values():
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Part:
    """A split to evaluate, found to fit the model.

    Attributes:
        name: dataset.
        split: its events.
        settings: how they are evaluated.
        total: number of events to evaluate.
    """

    name: str
    split: PreparedSplit
    settings: EvaluationDatasetConfig
    total: int


def _open(name: str, config: Config, num_events: int | None) -> _Part:
    """Open a dataset and check that the model takes its events.

    Raises:
        DataError: it cannot be read, is of another detector, or has no events.
        EventTooLong: an event is too long for the model.
    """
    settings = config.evaluation_datasets[name]
    limit = settings.num_events if num_events is None else num_events
    section, source = config.dataset, config.datasets[name]
    split = open_split(name, source, settings.split, section.event_schema, section.detector)
    total = split.num_events if limit < 0 else min(limit, split.num_events)
    if total == 0:
        raise DataError(f"{name}: split {settings.split} has no events; evaluate another one")
    require_fit(name, config.parameters, int(split.lengths[:total].max()))
    return _Part(name, split, settings, total)


def _not_built(config: Config) -> dict[str, str]:
    """Return name -> reason for each evaluation dataset that is not built."""
    reasons = {}
    for name in config.evaluation_datasets:
        source = config.datasets[name]
        folder = Path(source.data_dir) / name / source.version
        if not (folder / "dataset_info.json").is_file():
            reasons[name] = _how_to_build(name, folder, source.data_dir)
    return reasons


def _how_to_build(name: str, folder: Path, data_dir: str) -> str:
    return (
        f"{name}: not built in {folder}; run "
        f"mlpf build {name} --data-dir {data_dir} --input <directory of parquet files>"
    )


def _evaluate_dataset(
    part: _Part, config: Config, forward: Forward, path: Path, console: Console
) -> dict[str, Any]:
    """Predict one dataset, write its predictions to ``path``, return its numbers."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    settings = part.settings
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"{part.name} {settings.split}", total=part.total)
        predictions, result = predict_dataset(
            forward,
            config,
            part.name,
            part.split,
            batch_size=settings.batch_size,
            num_events=part.total,
            on_batch=lambda number: progress.advance(task, number),
        )
    write_predictions(predictions, path)
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
