"""Find a learning rate: train with a rising rate and draw the loss against it."""

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mlpf.config.schema import Config
from mlpf.data.dataset.split import data_errors
from mlpf.files.atomic import atomic_write
from mlpf.plotting.history import range_figure
from mlpf.plotting.style import save, style
from mlpf.runs.data import build_loaders
from mlpf.runs.setup import build_trainer, prepare_process
from mlpf.training.loop.distribution import build_distribution
from mlpf.training.loop.trainer import Trainer
from mlpf.training.losses.total import MLPFLoss
from mlpf.training.optimizers.lr_range import RangeTest

STEM = "lr_finder"
# Overrides of the configuration: no schedule, and no averages, which are not needed.
_OVERRIDES = {"setup.lr_schedule": "none", "setup.lr_warmup_steps": 0, "setup.ema": None}
# In float16, batches are skipped until the loss scale fits. After so many halvings it is useless.
_MOST_SKIPPED = 40


def run(
    config: Config,
    outdir: Path,
    *,
    min_lr: float = 1e-7,
    max_lr: float = 1.0,
    steps: int = 200,
    stop_factor: float = 4.0,
    ntrain: int | None = None,
    num_cpus: int | None = None,
) -> dict[str, Any]:
    """Write ``lr_finder.json``, ``.png`` and ``.pdf``.

    Args:
        config: the whole configuration; its schedule and warm-up are ignored.
        outdir: directory for the files.
        min_lr: learning rate of the first update.
        max_lr: learning rate of update number ``steps``.
        steps: updates, at least 2.
        stop_factor: stop where the smoothed loss is this many times its smallest value.
        ntrain: maximum of training events per dataset.
        num_cpus: threads; None = all cores.

    Returns:
        The contents of ``lr_finder.json``.

    Raises:
        DataError: a dataset cannot be read or has no events.
    """
    name = config.setup.optimizer
    config = config.with_overrides(_OVERRIDES)
    prepare_process(config, num_cpus)
    distribution = build_distribution(config.setup.jit_compile)
    train, _ = build_loaders(config, distribution.num_replicas, ntrain=ntrain)
    trainer = build_trainer(config, distribution, train)
    # min_lr (max_lr / min_lr)^(t / (steps - 1)) at update t
    trainer.optimizer.learning_rate = keras.optimizers.schedules.ExponentialDecay(
        min_lr, steps - 1, max_lr / min_lr
    )

    def batches() -> Iterator[Any]:
        for epoch in itertools.count(1):
            yield from distribution.distribute(train.epoch(epoch).batches)

    test = RangeTest(stop_factor)
    console = Console()
    endless, loss = batches(), MLPFLoss(config.loss)
    with data_errors():
        for _ in track(range(steps), STEM, console=console, disable=not console.is_terminal):
            rate = float(trainer.optimizer.learning_rate)
            if not test.add(rate, _update(trainer, loss, endless, config.setup.gradient_accumulation_steps)):
                break
    test.stopped = test.stopped or f"the last rate, {max_lr:g}, was reached"
    result = {"optimizer": name, "min_lr": min_lr, "max_lr": max_lr, "steps": steps, **test.as_dict()}
    _write(result, outdir, f"{config.parameters.model}, {name}")
    console.print(_table(result, outdir))
    return result


def _update(trainer: Trainer, loss: MLPFLoss, batches: Iterator[Any], batches_per_update: int) -> float:
    """Train until the weights change; return the mean loss of the batches, NaN if they do not change."""
    before = _num_updates(trainer)
    losses = []
    for _ in range(batches_per_update + _MOST_SKIPPED):
        values, weights = trainer.train_step(next(batches)).numpy()
        losses.append(loss.components(values, weights)["loss"])
        if _num_updates(trainer) > before:
            return math.fsum(losses) / len(losses)
    return math.nan


def _num_updates(trainer: Trainer) -> int:
    """Return the number of weight updates."""
    return int(keras.ops.convert_to_numpy(trainer.optimizer.iterations))


def _write(result: dict[str, Any], outdir: Path, title: str) -> None:
    """Write the files."""
    outdir.mkdir(parents=True, exist_ok=True)
    with atomic_write(outdir / f"{STEM}.json") as part:
        part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    with style():
        save(range_figure(result, title), outdir, STEM)


def _table(result: dict[str, Any], outdir: Path) -> Table:
    """Return the table of results."""
    found = {name: "-" if rate is None else f"{rate:.2g}" for name, rate in result["suggestions"].items()}
    rows = {
        "optimizer": result["optimizer"],
        "updates": f"{len(result['rates'])} of {result['steps']}",
        "stopped because": result["stopped"],
        "smallest smoothed loss": f"{min(result['smoothed'], default=math.nan):.4g} at {found['minimum']}",
        "suggestion: steepest fall": found["steepest"],
        "suggestion: minimum / 10": found["minimum_over_10"],
        "figure": str(outdir / f"{STEM}.png"),
    }
    table = Table("learning rate", "", show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    return table
