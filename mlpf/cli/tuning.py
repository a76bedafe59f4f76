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
from mlpf.machine.session import limit_library_threads


@click.command()
@click.option("--site", required=True, metavar="NAME|FILE", help="Cluster; see mlpf site list.")
@click.option("--nodes", type=click.IntRange(1), required=True, help="Nodes of the job.")
@click.option("--time", "seconds", type=Duration(), help="Length of a job; default the longest of the site.")
@click.option("--account", help="Account that pays.")
@click.option("--partition", help="Partition; default that of the site.")
@click.option("--constraint", help="Features that nodes must have; default those of the site.")
@click.option(
    "--max-requeues", type=click.IntRange(0), default=100, help="Times the job goes back into the queue."
)
@click.option("--setup", multiple=True, metavar="LINE", help="Line of shell before the search; repeatable.")
@config_option(required=True, help="Configuration with a section hypertune, see mlpf config list.")
@click.option("-o", "--outdir", "directory", type=PATH, required=True, help="Directory of the search.")
@click.option("--gpus-per-trial", type=click.IntRange(0), help="GPUs of each trial.")
@click.option("--cpus-per-trial", type=click.IntRange(1), help="Cores of each trial.")
@click.option("--ntrain", type=click.IntRange(1), help="Most training events per dataset, for all trials.")
@click.option("--ntest", type=click.IntRange(1), help="Most validation events, for all trials.")
@data_dir_option
@set_option
@click.option("--print", "only_print", is_flag=True, help="Show the script of the job; submit nothing.")
def submit(
    site: str,
    only_print: bool,
    gpus_per_trial: int | None,
    cpus_per_trial: int | None,
    ntrain: int | None,
    ntest: int | None,
    data_dir: Path | None,
    **request: Any,
) -> None:
    """Submit a search as one job of Slurm: driver and workers run in it, on several nodes.

    The job saves and goes back into the queue before its end, until the search is over.
    """
    from mlpf.engine.sites import load_site
    from mlpf.search import submission

    passed_on = {
        "--gpus-per-trial": gpus_per_trial,
        "--cpus-per-trial": cpus_per_trial,
        "--ntrain": ntrain,
        "--ntest": ntest,
        "--data-dir": None if data_dir is None else data_dir.absolute(),
    }
    options = [word for name, value in passed_on.items() if value is not None for word in (name, str(value))]
    wanted = submission.Request(**request, site=site, options=options)
    cluster = load_site(site)
    script = submission.job_script(cluster, wanted)
    submission.check(wanted)
    scratch = submission.outside_scratch(cluster, wanted.directory)
    if scratch is not None:
        click.echo(
            f"warning: {wanted.directory} is not in {scratch}, which {site} has for large files", err=True
        )
    if only_print:
        click.echo(script, nl=False)
        return
    number = submission.submit(script, wanted.directory)
    output = f"{wanted.directory.absolute()}-{number}.out"
    click.echo(f"job {number}; its output goes to {output}")


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
