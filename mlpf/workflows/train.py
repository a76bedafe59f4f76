"""Train a model: data, model, distribution and hooks into one run directory."""

import json
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mlpf import runtime
from mlpf.atomic import atomic_write
from mlpf.config.loading import resolved_yaml, write_resolved
from mlpf.config.schema import Config
from mlpf.data.prepared import data_errors
from mlpf.errors import ConfigError, OutputExists
from mlpf.locking import locked
from mlpf.training.callbacks import HistoryWriter, TensorBoardWriter, TerminalProgress
from mlpf.training.checkpoint_store import CheckpointStore, best_epoch
from mlpf.training.distribution import Distribution, build_distribution
from mlpf.training.guard import Guard, StopRequest, TrainingStopped
from mlpf.training.losses import TERM_NAMES, MLPFLoss
from mlpf.training.optimizers import build_optimizer
from mlpf.training.run_state import Record, RunState
from mlpf.training.trainer import EpochHook, Trainer, TrainingDiverged
from mlpf.workflows.resuming import recorded_limits, restore, start_from
from mlpf.workflows.run_status import recorded_status
from mlpf.workflows.trained import CONFIG_FILE, ENVIRONMENT_FILE, build_network
from mlpf.workflows.training_data import build_loaders, fit_normalizer

LOCK_FILE = ".lock"


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
    horovod: bool = False,
    time_limit: float | None = None,
    started: float | None = None,
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
        horovod: this is one of the processes that ``horovodrun`` started; the first one writes.
        time_limit: seconds after which to save and stop.
        started: ``time.monotonic()`` of the beginning of that time; None = now.

    Raises:
        OutputExists: ``run_dir`` is not empty, or another process trains there.
        CheckpointError: a checkpoint is missing, damaged or of another model.
        DataError: a dataset cannot be read or has no events.
        MissingDependency: Horovod is asked for and not installed.
        TrainingDiverged: the loss is NaN or infinite.
        TrainingStopped: the time limit is over or a signal came; all is saved.
    """
    started = time.monotonic() if started is None else started
    stop = StopRequest(time_limit, started)
    _prepare_process(config, num_cpus)
    distribution = build_distribution(config.setup.jit_compile, horovod)
    first = distribution.rank == 0
    if first and not resume:
        _require_empty(run_dir)
    recorded = recorded_limits(run_dir) if resume else {}
    limits = {"ntrain": ntrain or recorded.get("ntrain"), "ntest": ntest or recorded.get("ntest")}
    console = Console(quiet=not first)
    with ExitStack() as stack:
        stack.enter_context(stop.signals())
        if first:
            run_dir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(run_dir / LOCK_FILE, f"{run_dir}: training"))
            _write_description(config, run_dir, limits)
        stack.enter_context(recorded_status(run_dir, writes=first))
        try:
            history = _train(config, run_dir, distribution, stop, console, limits, weights, resume)
        except (TrainingStopped, TrainingDiverged) as error:
            # All processes say the same: one of them does it aloud.
            raise error if first else type(error)("") from None
    monitor = config.callbacks.checkpoint.monitor
    summary = TrainingSummary(
        run_dir, history, best_epoch(history, monitor), monitor, time.monotonic() - started
    )
    console.print(_summary_table(summary))
    return summary


def _train(
    config: Config,
    run_dir: Path,
    distribution: Distribution,
    stop: StopRequest,
    console: Console,
    limits: dict[str, int | None],
    weights: Path | None,
    resume: bool,
) -> list[Record]:
    """Build everything, go on where the run was, and train; return the history."""
    first = distribution.rank == 0
    shard = (distribution.rank, distribution.num_processes)
    train, valid = build_loaders(config, distribution.num_replicas, **limits, shard=shard)
    trainer = _build_trainer(config, distribution, len(train.plan(1)))
    state = restore(trainer, train, run_dir, console) if resume else RunState()
    if not (state.history or state.current.step):
        if first:  # the others get it from the first
            fit_normalizer(config, trainer.model, train.pool)
        if weights is not None:
            start_from(weights, trainer.model)
    distribution.broadcast([*trainer.model.weights, *trainer.optimizer.variables])
    section = config.callbacks.checkpoint
    store = CheckpointStore(
        run_dir,
        section,
        trainer.model,
        trainer.optimizer,
        trainer.random_states,
        resolved_yaml(config),
        first,
    )
    guard = Guard(store.save, stop, section.every_minutes, section.every_steps)
    hooks = _build_hooks(config, run_dir) if first else []
    progress = TerminalProgress(console)
    try:
        with data_errors():
            return trainer.fit(
                train,
                valid,
                config.setup.num_epochs,
                state=state,
                on_epoch_end=[lambda _: store.save(state), *hooks],
                guard=guard,
                progress=progress,
            )
    finally:
        progress.close()


def _prepare_process(config: Config, num_cpus: int | None) -> None:
    if config.setup.deterministic:
        runtime.use_deterministic_operations()
    runtime.set_threads(num_cpus)
    runtime.grow_gpu_memory()
    runtime.set_dtype_policy(config.setup.dtype)
    runtime.set_seeds(config.setup.seed)


def _require_empty(run_dir: Path) -> None:
    """Refuse a directory that holds anything but a lock without a process."""
    if run_dir.exists() and any(path.name != LOCK_FILE for path in run_dir.iterdir()):
        raise OutputExists(f"{run_dir}: is not empty; choose another directory or continue with --resume")


def _build_trainer(config: Config, distribution: Distribution, steps_per_epoch: int) -> Trainer:
    """Build model, optimizer and loss on the devices of the run."""
    with distribution.scope():
        model = build_network(config)
        optimizer = build_optimizer(config.setup, config.optimizer, steps_per_epoch * config.setup.num_epochs)
    return Trainer(
        model,
        MLPFLoss(config.loss),
        optimizer,
        distribution,
        clipnorm=config.setup.clipnorm,
        seed=config.setup.seed,
        schema=config.dataset.event_schema,
    )


def _build_hooks(config: Config, run_dir: Path) -> list[EpochHook]:
    """Return what reports after each epoch."""
    names = ("loss", *(f"{term}_loss" for term in TERM_NAMES))
    recorded = [*names, *(f"val_{name}" for name in names)]
    if config.callbacks.checkpoint.monitor not in recorded:
        raise ConfigError(
            f"callbacks.checkpoint.monitor: {config.callbacks.checkpoint.monitor!r} is not recorded; "
            f"choose one of {', '.join(recorded)}"
        )
    hooks: list[EpochHook] = [
        HistoryWriter(run_dir / "history.json"),
    ]
    if config.callbacks.tensorboard:
        hooks.append(TensorBoardWriter(run_dir / "logs"))
    return hooks


def _write_description(config: Config, run_dir: Path, limits: dict[str, int | None]) -> None:
    """Write what is needed to repeat the run."""
    write_resolved(config, run_dir / CONFIG_FILE)
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
        "best epoch": f"{summary.best_epoch} ({summary.monitor} {best[summary.monitor]:.5g})",
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
