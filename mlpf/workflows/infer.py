"""Latency and throughput of a model: Keras eager, as a graph and compiled, and onnxruntime."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mlpf.config.data_schema import TEST, DatasetConfig
from mlpf.config.schema import Config
from mlpf.data.dataset.split import open_split
from mlpf.data.feeding.batch_plan import pad_events
from mlpf.errors import DataError
from mlpf.evaluation.latency import Latency, measure, scaling_exponents
from mlpf.files.atomic import atomic_write
from mlpf.forward import Forward, eager_forward, graph_forward, xla_forward
from mlpf.machine import devices, session
from mlpf.physics.random_events import sample_events
from mlpf.plotting.latency import latency_figure
from mlpf.plotting.style import style
from mlpf.runs.trained import count_parameters, load_run_config, load_trained_model, require_fit

# What is timed unless the caller says otherwise.
ENGINES = ("eager", "graph", "xla", "onnx")
# How each engine of Keras is made, and the precision of each engine of onnxruntime.
KERAS_ENGINES = {"eager": eager_forward, "graph": graph_forward, "xla": xla_forward}
ONNX_PRECISIONS = {"onnx": "float32", "onnx-float16": "float16", "onnx-int8": "int8"}


def run(
    run_dir: Path,
    *,
    engines: Sequence[str] = ENGINES,
    batch_sizes: Sequence[int] = (1, 4),
    num_elements: Sequence[int] = (128, 256, 512, 1024, 2560),
    dataset: str | None = None,
    data_dir: Path | None = None,
    num_runs: int = 20,
    num_cpus: int | None = None,
    weights: str | None = None,
    output: Path | None = None,
) -> dict[str, Any]:
    """Time forward passes of a trained model; write ``infer.json`` and ``infer.png``.

    Args:
        run_dir: run directory of a training.
        engines: names from ``ENGINES`` and ``ONNX_PRECISIONS``.
        batch_sizes: events per pass.
        num_elements: elements per event, for random events.
        dataset: use test events of this dataset, padded to the longest of each batch, instead of random ones.
        data_dir: folder of datasets.
        num_runs: timed passes per shape and engine.
        num_cpus: threads; None = all cores.
        weights: ``best`` (default), ``latest``, or the path of a checkpoint.
        output: directory for the files; default ``run_dir``.

    Returns:
        The contents of ``infer.json``.

    Raises:
        DataError: the dataset is not there, or events are longer than the model takes.
        CheckpointError: no run directory, or its checkpoint is missing.
    """
    config = load_run_config(run_dir)
    if data_dir is not None:
        config = config.with_data_dir(str(data_dir))
    console = Console()
    _prepare(config, engines, num_cpus, console)
    model, checkpoint = load_trained_model(run_dir, config, weights)
    shapes = _batches(config, batch_sizes, num_elements, dataset)
    latencies: list[Latency] = []
    with tempfile.TemporaryDirectory() as folder:
        sessions = _onnx(model, Path(folder), num_cpus, engines, config.dataset)
        functions = {name: sessions.get(name) or KERAS_ENGINES[name](model) for name in engines}
        for events in track(shapes, "infer", console=console, disable=not console.is_terminal):
            latencies += measure(functions, events, num_runs)
    facts = {
        "checkpoint": checkpoint.name,
        "events": dataset or "random",
        "num_parameters": count_parameters(model),
        "environment": session.environment(),
    }
    return _report(facts, latencies, model.name, output or run_dir, console)


def _prepare(config: Config, engines: Sequence[str], num_cpus: int | None, console: Console) -> None:
    """Set up the process; print a warning if the CPU emulates the number format."""
    session.prepare(config.setup.dtype, config.setup.allow_tf32, num_cpus=num_cpus)
    if set(engines) <= ONNX_PRECISIONS.keys():
        return  # ONNX files have their own precisions
    if problem := devices.why_bfloat16_is_slow(config.setup.dtype):
        console.print(problem, style="yellow", highlight=False, soft_wrap=True)


def _batches(
    config: Config, batch_sizes: Sequence[int], num_elements: Sequence[int], dataset: str | None
) -> list[npt.NDArray[np.float32]]:
    """Return one batch [B, N, F] per shape to measure."""
    if dataset is None:
        require_fit("random events", config.parameters, max(num_elements))
        section = config.dataset
        return [
            sample_events(section.event_schema, b, n, section.detector)
            for b in batch_sizes
            for n in num_elements
        ]
    if dataset not in config.datasets:
        raise DataError(
            f"--dataset {dataset}: not in the configuration, which has {', '.join(config.datasets)}"
        )
    section = config.dataset
    split = open_split(dataset, config.datasets[dataset], TEST, section.event_schema, section.detector)
    batches = []
    for size in batch_sizes:
        if split.num_events < size:
            raise DataError(f"--batch-size {size}: {dataset} has {split.num_events} test events; give less")
        # Spread over all lengths, so that the batches are typical of the dataset.
        order = np.argsort(split.lengths, kind="stable")
        for place in np.linspace(0, split.num_events - size, 5).astype(int):
            found = split.fetch(order[place : place + size], ("X",)).elements
            longest = int(found.counts.max())
            require_fit(dataset, config.parameters, longest)
            batches.append(pad_events(found, np.arange(size), longest)["X"])
    return batches


def _onnx(
    model: keras.Model, folder: Path, num_cpus: int | None, engines: Sequence[str], section: DatasetConfig
) -> dict[str, Forward]:
    """Export the precisions that the engines need, at once, and return the forward pass of each engine."""
    precisions = {name: ONNX_PRECISIONS[name] for name in engines if name in ONNX_PRECISIONS}
    if not precisions:
        return {}
    from mlpf.export import export_onnx, onnx_forward, open_session

    files = export_onnx(
        model,
        folder / "model.onnx",
        precisions=tuple(precisions.values()),
        schema=section.event_schema,
        detector=section.detector,
    )
    return {
        name: onnx_forward(open_session(str(files[precision].path), num_cpus))
        for name, precision in precisions.items()
    }


def _report(
    facts: dict[str, Any], latencies: Sequence[Latency], name: str, output: Path, console: Console
) -> dict[str, Any]:
    """Write the files, print the tables, return the contents of ``infer.json``."""
    exponents = scaling_exponents(latencies)
    fitted = [{"engine": e, "batch_size": b, "exponent": a} for (e, b), a in exponents.items()]
    result = {**facts, "latencies": [x.as_dict() for x in latencies], "scaling_exponents": fitted}
    output.mkdir(parents=True, exist_ok=True)
    with atomic_write(output / "infer.json") as part:
        part.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    with style(), atomic_write(output / "infer.png") as part:
        figure = latency_figure(result["latencies"], f"{name}, {facts['events']} events")
        figure.savefig(part, format="png", dpi=150)
    for table in _tables(latencies, exponents):
        console.print(table)
    return result


def _tables(latencies: Sequence[Latency], exponents: dict[tuple[str, int], float]) -> list[Table]:
    table = Table("engine", "B", "N", "p50 [ms]", "p95 [ms]", "events/s", "peak memory [MB]", "first [ms]")
    for x in latencies:
        memory = "-" if x.peak_memory_mb is None else f"{x.peak_memory_mb:.0f}"
        times = (
            f"{x.p50_ms:.2f}",
            f"{x.p95_ms:.2f}",
            f"{x.events_per_second:.1f}",
            memory,
            f"{x.first_ms:.0f}",
        )
        table.add_row(x.engine, str(x.batch_size), str(x.num_elements), *times)
    if not exponents:
        return [table]
    fitted = Table("engine", "B", "a", title="time ~ N^a")
    for (engine, size), exponent in exponents.items():
        fitted.add_row(engine, str(size), f"{exponent:.2f}")
    return [table, fitted]
