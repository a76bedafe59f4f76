"""The process and the trainer that a configuration describes; for every command that trains."""

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
from mlpf.training.optimizers.build import build_optimizer


def prepare_process(
    config: Config, num_cpus: int | None, habana_enabled: bool = False, console: Console | None = None
) -> None:
    """Set up devices, threads, number formats and seeds; say what the training runs on.

    Args:
        config: the whole configuration.
        num_cpus: threads; None = all cores.
        habana_enabled: load the plug-in of Gaudi.
        console: where to say it; None = nowhere.

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
        fit: fit the input normaliser to them, unless its constants come from elsewhere.

    Raises:
        ConfigError: the network cannot be built.
        DataError: a term of the loss looks at jets, and the events have none.
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
