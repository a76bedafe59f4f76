"""Commands that train."""

import time
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from mlpf.cli.options import PATH, Duration, FiniteRange, config_option, data_dir_option, set_option
from mlpf.machine.session import limit_library_threads


@click.command()
@config_option("config_path", help="Configuration, see mlpf config list (not with --resume).")
@click.option(
    "-o", "--outdir", "run_dir", type=PATH, help="Run directory; default experiments/<name>_<time>."
)
@click.option("-p", "--prefix", default="", help="Prefix of the default run directory name.")
@click.option("--resume", type=PATH, help="Continue the training in this run directory.")
@click.option("-w", "--weights", type=PATH, help="Start from the weights of this run directory or file.")
@click.option("--partial", is_flag=True, help="With -w: take the weights that fit, and print which.")
@click.option("--nepochs", type=click.IntRange(1), help="Epochs; shortcut for setup.num_epochs.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Seed; shortcut for setup.seed.")
@click.option("--ntrain", type=click.IntRange(1), help="Most training events per dataset.")
@click.option("--ntest", type=click.IntRange(1), help="Most validation events.")
@click.option("--num-cpus", type=click.IntRange(1), help="Threads; default all cores.")
@click.option(
    "--time-limit",
    type=Duration(),
    help="Save and stop, with exit code 75, after e.g. 55m. Continue with --resume.",
)
@click.option(
    "--stop-after",
    type=click.IntRange(1),
    metavar="EPOCH",
    help="End after this epoch; schedules still cover setup.num_epochs. Continue with --resume.",
)
@click.option(
    "-m",
    "--horovod-enabled",
    "horovod",
    is_flag=True,
    help="This is one of the processes of horovodrun or srun.",
)
@click.option("-g", "--habana-enabled", is_flag=True, help="Train on Habana Gaudi cards.")
@data_dir_option
@set_option
def train(
    config_path: Path | None,
    run_dir: Path | None,
    prefix: str,
    resume: Path | None,
    nepochs: int | None,
    seed: int | None,
    data_dir: Path | None,
    overrides: tuple[str, ...],
    **options: Any,
) -> None:
    """Train a model."""
    started = time.monotonic()
    from mlpf.config.loading import load_with_places
    from mlpf.files.run_directory import RESOLVED_CONFIG

    if (config_path is None) == (resume is None):
        raise click.UsageError("give either -c CONFIG for a new training or --resume RUN_DIR")
    if resume is not None:
        if run_dir is not None or options["weights"] is not None:
            raise click.UsageError("--resume continues in its own directory: leave out -o and -w")
        from mlpf.runs.trained import require_run

        require_run(resume)
        config_path, run_dir = resume / RESOLVED_CONFIG, resume
    if config_path is None:
        raise click.UsageError("give -c CONFIG")
    if options["partial"] and options["weights"] is None:
        raise click.UsageError("--partial is for the weights of -w: give both")
    if prefix and run_dir is not None:
        raise click.UsageError("-p is for the default run directory: leave it out with -o and --resume")
    shortcuts = {"setup.num_epochs": nepochs, "setup.seed": seed}
    extra = {key: value for key, value in shortcuts.items() if value is not None}
    config, place_of = load_with_places(config_path, overrides, extra)
    if data_dir is not None:
        config = config.with_data_dir(str(data_dir))
    if run_dir is None:
        stamp = datetime.now().strftime("%Y%m%d_%H%M%S_%f")
        run_dir = Path("experiments") / f"{prefix}{config_path.stem}_{stamp}"
    limit_library_threads(options["num_cpus"])
    from mlpf.workflows import train as workflow

    is_resumed = resume is not None
    workflow.run(config, run_dir, resume=is_resumed, started=started, place_of=place_of, **options)


@click.command("find-lr")
@config_option("config_path", required=True, help="Configuration, see mlpf config list.")
@click.option("-o", "--outdir", type=PATH, default=Path(), help="Directory for the files.")
@click.option("--min-lr", type=FiniteRange(0, min_open=True), default=1e-7, help="First learning rate.")
@click.option("--max-lr", type=FiniteRange(0, min_open=True), default=1.0, help="Last learning rate.")
@click.option("--steps", type=click.IntRange(10), default=200, help="Updates from the first to the last.")
@click.option(
    "--stop-factor",
    type=FiniteRange(1, min_open=True),
    default=4.0,
    help="Stop where the smoothed loss is this many times its smallest value.",
)
@click.option("--ntrain", type=click.IntRange(1), help="Most training events per dataset.")
@click.option("--num-cpus", type=click.IntRange(1), help="Threads; default all cores.")
@data_dir_option
@set_option
def find_lr(
    config_path: Path, data_dir: Path | None, overrides: tuple[str, ...], outdir: Path, **options: Any
) -> None:
    """Train with a rising learning rate; draw the loss against it and suggest a rate.

    Uses the configured optimizer and ignores the configured schedule. Writes lr_finder.png, .pdf and .json.
    """
    from mlpf.config.loading import load_config

    if not options["min_lr"] < options["max_lr"]:
        raise click.UsageError(
            f"--min-lr {options['min_lr']:g} is not below --max-lr {options['max_lr']:g}; give a lower one"
        )
    config = load_config(config_path, overrides)
    if data_dir is not None:
        config = config.with_data_dir(str(data_dir))
    from mlpf.workflows import find_lr as workflow

    workflow.run(config, outdir, **options)


@click.command("import-weights")
@click.argument("weights", type=PATH)
@config_option("config_path", required=True, help="Configuration of the network, see mlpf config list.")
@click.option("-o", "--outdir", "run_dir", type=PATH, required=True, help="Run directory to make.")
@set_option
def import_weights(weights: Path, config_path: Path, run_dir: Path, overrides: tuple[str, ...]) -> None:
    """Load WEIGHTS of the published graph network (HDF5) into a new run directory.

    The configuration must have the layers and widths of the weights. Continue with evaluate or export, or
    train from these weights with -w.
    """
    from mlpf.config.loading import load_config

    config = load_config(config_path, overrides)
    from mlpf.workflows import import_weights as workflow

    workflow.run(config, weights, run_dir)
