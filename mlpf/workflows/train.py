"""Train a model: data, model, distribution and hooks into one run directory."""

import json
import math
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mlpf import runtime
from mlpf.atomic import atomic_write
from mlpf.config.loading import write_resolved
from mlpf.config.schema import Config
from mlpf.data.input_pipeline import BatchLoader
from mlpf.data.prepared import data_errors
from mlpf.errors import OutputExists
from mlpf.training.checkpoints import (
    best_epoch,
    find_checkpoint,
    load_optimizer,
    load_weights,
    read_state,
)
from mlpf.training.distribution import Distribution, build_distribution
from mlpf.training.losses import MLPFLoss
from mlpf.training.optimizers import build_optimizer
from mlpf.training.progress import TerminalProgress
from mlpf.training.trainer import Record, Trainer
from mlpf.workflows.divergence import saved_batch
from mlpf.workflows.trained import build_network
from mlpf.workflows.training_data import build_loaders, fit_normalizer
from mlpf.workflows.training_hooks import check_callbacks, training_hooks

ENVIRONMENT_FILE = "environment.json"


@dataclass(frozen=True)
class TrainingSummary:
    """What a training did.

    Attributes:
        run_dir: run directory.
        history: one record per epoch.
        best_epoch: epoch, counted from 1, with the smallest monitored metric.
        monitor: that metric.
        seconds: wall time of this call.
    """

    run_dir: Path
    history: list[Record]
    best_epoch: int
    monitor: str
    seconds: float


def run(
    config: Config,
    run_dir: Path,
    *,
    ntrain: int | None = None,
    ntest: int | None = None,
    weights: Path | None = None,
    resume: bool = False,
    num_cpus: int | None = None,
) -> TrainingSummary:
    """Train as ``config`` describes.

    Args:
        config: the whole configuration.
        run_dir: directory of the run; must be empty or absent unless ``resume``.
        ntrain: most training events per dataset.
        ntest: most validation events.
        weights: start from the weights of this run directory (its best), checkpoint or file.
        resume: continue after the latest checkpoint of ``run_dir``.
        num_cpus: threads; None = all cores.

    Raises:
        OutputExists: ``run_dir`` is not empty.
        CheckpointError: a checkpoint is missing, damaged or of another model.
        DataError: a dataset cannot be read or has no events.
        ConfigError: a callback asks for what there is not.
        TrainingDiverged: the loss is NaN or infinite.
    """
    started = time.perf_counter()
    if not resume and run_dir.exists() and any(run_dir.iterdir()):
        raise OutputExists(f"{run_dir}: is not empty; choose another directory or continue with --resume")
    check_callbacks(config)
    recorded = _recorded_limits(run_dir) if resume else {}
    limits = {"ntrain": ntrain or recorded.get("ntrain"), "ntest": ntest or recorded.get("ntest")}
    _prepare_process(config, num_cpus)
    distribution = build_distribution(config.setup.jit_compile)
    train, valid = build_loaders(config, distribution.num_replicas, **limits)
    trainer = _build_trainer(config, distribution, train)
    history = _restore(trainer, run_dir) if resume else []
    if weights is not None:
        _start_from(weights, trainer)
    _write_description(config, run_dir, limits)
    console = Console()
    with (
        data_errors(),
        saved_batch(config, run_dir, trainer, train),
        training_hooks(config, run_dir, trainer, valid.pool, console) as hooks,
        closing(TerminalProgress(console)) as progress,
    ):
        history = trainer.fit(
            train,
            valid,
            config.setup.num_epochs,
            history=history,
            on_epoch_end=hooks.epoch,
            on_step=hooks.step,
            progress=progress,
        )
    return _summarise(config, run_dir, history, time.perf_counter() - started)


def _summarise(config: Config, run_dir: Path, history: list[Record], seconds: float) -> TrainingSummary:
    """Print the table that ends a training and return what is in it."""
    monitor = config.callbacks.checkpoint.monitor
    summary = TrainingSummary(run_dir, history, best_epoch(history, monitor), monitor, seconds)
    Console().print(_summary_table(summary))
    return summary


def _start_from(weights: Path, trainer: Trainer) -> None:
    """Load weights from a run directory (its best), a checkpoint or a file."""
    is_run = (weights / "checkpoints").is_dir()
    load_weights(find_checkpoint(weights) if is_run else weights, trainer.model)


def _prepare_process(config: Config, num_cpus: int | None) -> None:
    runtime.set_threads(num_cpus)
    runtime.grow_gpu_memory()
    runtime.set_dtype_policy(config.setup.dtype)
    runtime.set_seeds(config.setup.seed)


def _restore(trainer: Trainer, run_dir: Path) -> list[Record]:
    """Load the latest checkpoint of ``run_dir`` into ``trainer``; return the history up to it."""
    checkpoint = find_checkpoint(run_dir, "latest")
    load_weights(checkpoint, trainer.model)
    load_optimizer(checkpoint, trainer.optimizer)
    return read_state(checkpoint)["history"]


def _build_trainer(config: Config, distribution: Distribution, train: BatchLoader) -> Trainer:
    """Build model, optimizer and loss on the devices of the run."""
    with distribution.scope():
        model = build_network(config)
        fit_normalizer(config, model, train.pool)
        total_steps = len(train.plan(1)) * config.setup.num_epochs
        optimizer = build_optimizer(config.setup, config.optimizer, total_steps)
    return Trainer(
        model,
        MLPFLoss(config.loss),
        optimizer,
        distribution,
        clipnorm=config.setup.clipnorm,
        seed=config.setup.seed,
        schema=config.dataset.event_schema,
    )


def _recorded_limits(run_dir: Path) -> dict[str, int | None]:
    """Return the event limits that a run to be resumed was started with."""
    try:
        return json.loads((run_dir / ENVIRONMENT_FILE).read_text())["limits"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # written by hand, or lost: the limits are those of the command line


def _write_description(config: Config, run_dir: Path, limits: dict[str, int | None]) -> None:
    """Write what is needed to repeat the run."""
    run_dir.mkdir(parents=True, exist_ok=True)
    write_resolved(config, run_dir / "config.resolved.yaml")
    with atomic_write(run_dir / ENVIRONMENT_FILE) as part:
        part.write_text(json.dumps({**runtime.environment(), "limits": limits}, indent=1))


def _summary_table(summary: TrainingSummary) -> Table:
    """Return the table that ends a training."""
    history = summary.history
    last, best = history[-1], history[summary.best_epoch - 1]
    seconds = sum(record["seconds"] for record in history)
    rows = {
        "run directory": str(summary.run_dir),
        "epochs": str(len(history)),
        # A metric of physics is undefined in an epoch without jets.
        "best epoch": f"{summary.best_epoch} ({summary.monitor} {best.get(summary.monitor, math.nan):.5g})",
        "loss, val_loss": f"{last['loss']:.5g}, {last['val_loss']:.5g}",
        "training events/s": f"{sum(r['num_events'] for r in history) / seconds:.0f}, "
        f"last epoch {last['events_per_second']:.0f}",
        "wall time": f"{summary.seconds:.1f} s",
        "waiting for data": f"{sum(r['wait_share'] * r['seconds'] for r in history) / seconds:.2%}",
        "padding": f"{last['padded_fraction']:.1%}",
        # Their gradients were too large for float16; records of older runs do not have them.
        "steps skipped": str(sum(record.get("skipped_steps", 0) for record in history)),
        "graphs traced": str(last["num_traces"]),
        "NaN or infinite inputs": str(last["bad_values"]),
    }
    table = Table("training", "", show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    return table
