"""Set up process and trainer from a configuration, for every command that trains."""

import keras
from rich.console import Console

from mlpf.config.schema import Config
from mlpf.data.feeding.batch_loader import BatchLoader
from mlpf.machine import devices, session
from mlpf.runs.data import fit_normalizer, require_jets
from mlpf.runs.trained import build_network
from mlpf.training.loop.distribution import Distribution
from mlpf.training.loop.freezing import freeze
from mlpf.training.loop.trainer import Trainer
from mlpf.training.losses.total import MLPFLoss
from mlpf.training.optimizers.accumulation import innermost
from mlpf.training.optimizers.build import build_optimizer

# Share of the peak below which a learning rate does nothing.
_VANISHED = 1e-3


def prepare_process(
    config: Config, num_cpus: int | None, habana_enabled: bool = False, console: Console | None = None
) -> None:
    """Set up devices, threads, number formats and seeds; print what the training runs on.

    Args:
        config: the whole configuration.
        num_cpus: threads; None = all cores.
        habana_enabled: load the plug-in of Gaudi.
        console: prints the devices; None = print nothing.

    Raises:
        MissingDependency: no plug-in, driver or card of Gaudi.
    """
    session.prepare(
        config.setup.dtype,
        config.setup.allow_tf32,
        num_cpus=num_cpus,
        deterministic=config.setup.deterministic,
        habana_enabled=habana_enabled,
    )
    if console is not None:
        if problem := devices.why_no_accelerator():
            console.print(problem, style="yellow", highlight=False, soft_wrap=True)
        console.print(f"training on {devices.describe()}", highlight=False, soft_wrap=True)
        if problem := devices.why_bfloat16_is_slow(config.setup.dtype):
            console.print(problem, style="yellow", highlight=False, soft_wrap=True)
    session.set_seeds(config.setup.seed)


def build_trainer(
    config: Config, distribution: Distribution, train: BatchLoader, fit: bool = True
) -> Trainer:
    """Build model, optimizer and loss on the devices of the run.

    Args:
        config: the whole configuration.
        distribution: devices.
        train: training batches.
        fit: fit the input normalisation to ``train``; False if rank 0 or a checkpoint provides it.

    Raises:
        ConfigError: the network cannot be built.
        DataError: the loss has a jet term, and the events have no jets.
    """
    require_jets(config, train.pool)
    with distribution.scope():
        model = build_network(config)
        if fit:
            fit_normalizer(config, model, train.pool)
        freeze(model, config.setup.trainable)
        total_steps = len(train.plan(1)) * config.setup.num_epochs
        optimizer = build_optimizer(config.setup, config.optimizer, total_steps)
        loss = MLPFLoss(config.loss, config.setup.seed)
    return Trainer(
        model,
        loss,
        optimizer,
        distribution,
        seed=config.setup.seed,
        schema=config.dataset.event_schema,
    )


def num_updates(config: Config, train: BatchLoader) -> int:
    """Return the updates of the whole training, over which schedules stretch."""
    return max(1, len(train.plan(1)) * config.setup.num_epochs // config.setup.gradient_accumulation_steps)


def warm_up_problem(config: Config, updates: int) -> str | None:
    """Return what is wrong with a warm-up that is longer than the training, None if it is not.

    Args:
        config: the whole configuration.
        updates: of the whole training.
    """
    setup = config.setup
    if setup.lr_warmup_steps < updates:
        return None
    reached = setup.lr * updates / setup.lr_warmup_steps
    return (
        f"setup.lr_warmup_steps: {setup.lr_warmup_steps} updates of warm-up, but the whole training has "
        f"{updates} ({setup.num_epochs} epochs): the learning rate reaches {reached:.3g} of "
        f"{setup.lr:.3g} and the schedule never begins; lower it, or raise setup.num_epochs"
    )


def rate_line(config: Config, trainer: Trainer, updates: int) -> str:
    """Return where on its schedule the learning rate of a run goes on.

    Args:
        config: the whole configuration.
        trainer: with the state of the optimizer.
        updates: of the whole training.
    """
    done = int(keras.ops.convert_to_numpy(innermost(trainer.optimizer).iterations))
    rate = float(trainer.optimizer.learning_rate)
    line = (
        f"learning rate {rate:.3g} (setup.lr_schedule {config.setup.lr_schedule}, update {done} of {updates}"
    )
    if rate < config.setup.lr * _VANISHED and done >= updates:
        return f"{line}): the schedule is at its end; raise setup.num_epochs, or start anew with -w"
    return f"{line}, peak {config.setup.lr:.3g})"
