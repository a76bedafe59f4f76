"""Commands of the search for hyperparameters."""

import os
import time
from pathlib import Path
from typing import Any

import click

from mlpf.cli.options import (
    PATH,
    Duration,
    config_option,
    configuration_file,
    data_dir_option,
    refuse_options_before_a_command,
    set_option,
)
from mlpf.cli.placement import placement_of_trainings
from mlpf.cli.submit import submit
from mlpf.machine.session import limit_library_threads


@click.group(invoke_without_command=True)
@config_option("config_path", help="Configuration with a section hypertune, see mlpf config list.")
@click.option("-o", "--outdir", "directory", type=PATH, help="Directory of the search.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Trials at a time on this machine; default one per group of GPUs, or 1.",
)
@click.option(
    "--gpus-per-trial",
    type=click.IntRange(0),
    help="GPUs of each trial, the same in the whole search; default 1 if there are GPUs.",
)
@click.option("--cpus-per-trial", type=click.IntRange(1), help="Cores of each trial; default an equal share.")
@click.option("--site", metavar="NAME|FILE", help="Run trials on a cluster; see mlpf site list.")
@click.option("--nodes", type=click.IntRange(1), help="Nodes of the site.")
@click.option("--inside", is_flag=True, help="Use the nodes of the job that this command runs in.")
@click.option(
    "--time-limit",
    type=Duration(),
    help="Save and stop, with exit code 75, after e.g. 55m. Continue with --resume.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Continue the search in the directory; without -c, with its own configuration.",
)
@click.option(
    "--total-time",
    type=Duration(),
    help="Start no new trial after this time, all starts together; sets hypertune.max_total_hours.",
)
@click.option("--ntrain", type=click.IntRange(1), help="Most training events per dataset, for all trials.")
@click.option("--ntest", type=click.IntRange(1), help="Most validation events, for all trials.")
@data_dir_option
@set_option
@click.pass_context
def hypertune(context: click.Context, **options: Any) -> None:
    """Search for hyperparameters, with several trials at a time and on several nodes.

    Exit code 0: the search is over. 75: stopped, can be resumed. 1: failed.
    """
    if context.invoked_subcommand is not None:
        refuse_options_before_a_command(context)
        return
    started = time.monotonic()
    if options["directory"] is None:
        if not (options["config_path"] or options["resume"]):
            click.echo(context.get_help())
            return
        raise click.UsageError("give -o DIR, the directory of the search")
    _search(started, **options)


def _search(
    started: float,
    config_path: Path | None,
    directory: Path,
    resume: bool,
    data_dir: Path | None,
    overrides: tuple[str, ...],
    ntrain: int | None,
    ntest: int | None,
    total_time: float | None,
    workers: int | None,
    site: str | None,
    nodes: int | None,
    inside: bool,
    **of_trials: Any,
) -> None:
    """Start a search, or continue one."""
    placement = placement_of_trainings(workers, site, nodes, inside)
    config_path = configuration_file(config_path, directory, resume, "search")
    from mlpf.config.loading import load_config

    if total_time is not None:
        overrides = (*overrides, f"hypertune.max_total_hours={total_time / 3600!r}")
    config = load_config(config_path, overrides)
    if data_dir is not None:
        config = config.with_data_dir(str(data_dir))
    # This process does not compute, so Keras on NumPy is enough and starts faster. Trials choose their own
    # back end.
    os.environ["KERAS_BACKEND"] = "numpy"
    from mlpf.workflows import hypertune as workflow

    workflow.run(
        config,
        directory,
        workflow.Resources(placement, **of_trials, started=started),
        resume=resume,
        ntrain=ntrain,
        ntest=ntest,
        config_path=config_path,
    )


hypertune.add_command(submit)


@hypertune.command()
@click.argument("directory", type=PATH)
def report(directory: Path) -> None:
    """Write tables, best configuration, plots and report of the search in DIRECTORY again."""
    from mlpf.workflows import hypertune_report as workflow

    workflow.run(directory)


@hypertune.command(hidden=True)
@click.argument("directory", type=PATH)
@click.argument("run")
@click.option("--epochs", type=click.IntRange(1), required=True, help="Train up to the end of this epoch.")
@click.option("--num-cpus", type=click.IntRange(1), help="Threads; default all cores.")
@click.option("--ntrain", type=click.IntRange(1), help="Most training events per dataset.")
@click.option("--ntest", type=click.IntRange(1), help="Most validation events.")
def trial(directory: Path, run: str, epochs: int, num_cpus: int | None, **limits: int | None) -> None:
    """Train RUN of the search in DIRECTORY; started by workers."""
    limit_library_threads(num_cpus)
    from mlpf.workflows import hypertune_trial as workflow

    workflow.run(directory, run, epochs=epochs, num_cpus=num_cpus, **limits)
