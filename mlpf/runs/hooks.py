"""The hooks of a training: first those that add metrics to the epoch record, then those that write it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from mlpf.config.loading import resolved_text
from mlpf.config.recorded_metrics import metric_problem
from mlpf.config.schema import Config
from mlpf.data.feeding.batch_loader import EventPool
from mlpf.errors import ConfigError
from mlpf.files.run_directory import RunDirectory
from mlpf.machine import session
from mlpf.runs import physics_validation
from mlpf.runs.early_stopping import StopCriterion, early_stopping_monitor
from mlpf.training.checkpoints.run_state import EpochRecord
from mlpf.training.loop.hooks import EpochHook, StepHook
from mlpf.training.loop.trainer import Trainer
from mlpf.training.monitors.history_writer import HistoryWriter
from mlpf.training.monitors.tensorboard import TensorBoardWriter
from mlpf.training.optimizers.averaging import averaged_weights


@dataclass
class TrainingHooks:
    """Hooks of a training.

    Attributes:
        epoch: hooks called in this order after each epoch.
        step: hooks called every few seconds within an epoch.
    """

    epoch: list[EpochHook] = field(default_factory=list)
    step: list[StepHook] = field(default_factory=list)


def check_callbacks(config: Config) -> None:
    """Check the section ``callbacks`` before data is read or anything written.

    Raises:
        ConfigError: the metric of checkpoints or early stopping is not recorded, or Comet has no API key.
        MissingDependency: Comet is configured but not installed.
    """
    if config.callbacks.comet is not None:
        from mlpf.training.monitors.comet import check_comet

        check_comet(config.callbacks.comet)
    watched = {
        "callbacks.checkpoint.monitor": config.callbacks.checkpoint.monitor,
        "callbacks.early_stopping.monitor": early_stopping_monitor(config),
    }
    for key, metric in watched.items():
        if problem := metric_problem(config, metric):
            raise ConfigError(f"{key}: {problem}")


@contextmanager
def training_hooks(
    config: Config,
    run_dir: Path,
    trainer: Trainer,
    valid: EventPool,
    console: Console,
    save: EpochHook,
    stop_criterion: StopCriterion,
    writes: bool = True,
) -> Iterator[TrainingHooks]:
    """Yield the hooks of a training and close them at its end.

    Args:
        config: the whole configuration, checked by ``check_callbacks``.
        run_dir: run directory; must exist.
        trainer: trainer, for its model and optimizer.
        valid: validation events.
        console: prints what baseline and limits reach.
        save: hook that writes the checkpoint of an epoch; all ranks must call it.
        stop_criterion: decides which epoch is the last.
        writes: this is rank 0, which reports and writes; other ranks only call ``save``.

    Raises:
        DataError: the validation split cannot be read.
        ConfigError: Comet refuses the experiment.
    """
    if not writes:
        yield TrainingHooks([save])
        return
    hooks = TrainingHooks([record_gpu_memory])
    callbacks = config.callbacks
    if callbacks.physics.every:
        physics = physics_validation.build_physics_validation(
            config, run_dir, trainer.model, valid, stop_criterion.is_over
        )
        console.print(physics.target_line(), highlight=False, soft_wrap=True)

        def judge(history: list[EpochRecord]) -> None:
            with averaged_weights(trainer.model, trainer.optimizer):
                physics(history)

        hooks.epoch.append(judge)
    hooks.epoch += [save, HistoryWriter(RunDirectory(run_dir).history)]
    with ExitStack() as at_end:
        if callbacks.tensorboard:
            writer = TensorBoardWriter(
                RunDirectory(run_dir).tensorboard, f"```yaml\n{resolved_text(config)}```"
            )
            at_end.callback(writer.close)
            hooks.epoch.append(writer)
            hooks.step.append(writer.on_step)
        if callbacks.comet is not None:
            from mlpf.training.monitors.comet import CometLogger

            comet = CometLogger(callbacks.comet, run_dir, config.model_dump(by_alias=True))
            at_end.callback(comet.close)
            hooks.epoch.append(comet)
        yield hooks


def record_gpu_memory(history: list[EpochRecord]) -> None:
    """Add the peak memory of one GPU so far to the record, in MB; nothing without a GPU."""
    peak = session.gpu_memory_peak()
    if peak is not None:
        history[-1]["gpu_memory_peak_mb"] = peak / 1e6
