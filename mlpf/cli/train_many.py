"""Command that trains an ensemble."""

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


class Seeds(click.ParamType):
    """Seeds such as ``1:20`` or ``1,2,5``."""

    name = "SEEDS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """Parse ranges, both ends included, and single seeds."""
        if isinstance(value, list):
            return value
        from mlpf.ensemble.plan import parse_seeds

        try:
            return parse_seeds(value)
        except ValueError as error:
            self.fail(f"{error}; give e.g. 1:20 or 1,2,5", param, ctx)


@click.group("train-many", invoke_without_command=True)
@config_option("config_path", help="Configuration, see mlpf config list (not needed with --resume).")
@click.option("-o", "--outdir", "directory", type=PATH, help="Directory of the ensemble.")
@click.option("--seeds", type=Seeds(), help="Train with each of these: 1:20 (both included), 1,2,5.")
@click.option("--table", type=PATH, help="YAML list or CSV file: the changed keys of each training.")
@click.option("--nepochs", type=click.IntRange(1), help="Epochs; shortcut for setup.num_epochs.")
@click.option("--ntrain", type=click.IntRange(1), help="Most training events per dataset.")
@click.option("--ntest", type=click.IntRange(1), help="Most validation events.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Trainings at a time on this machine; default one per group of GPUs, or 1.",
)
@click.option(
    "--gpus-per-training",
    "gpus",
    type=click.IntRange(0),
    help="GPUs of each training; default 1 if there are GPUs.",
)
@click.option(
    "--cpus-per-training",
    "cpus",
    type=click.IntRange(1),
    help="Cores of each training; default an equal share.",
)
@click.option("--site", metavar="NAME|FILE", help="Run on a cluster; see mlpf site list.")
@click.option("--nodes", type=click.IntRange(1), help="With --site: nodes; default 1.")
@click.option(
    "--inside", is_flag=True, help="With --site: use the nodes of the job that this command runs in."
)
@click.option(
    "--max-retries", type=click.IntRange(0), default=2, help="Repetitions of a training after a crash."
)
@click.option(
    "--max-losses", type=click.IntRange(0), default=3, help="Repetitions of a training after a lost worker."
)
@click.option(
    "--max-time", "max_seconds", type=Duration(), help="Longest time of a training, all attempts together."
)
@click.option(
    "--time-limit",
    type=Duration(),
    help="Save and stop, with exit code 75, after e.g. 55m. Continue with --resume.",
)
@click.option("--resume", is_flag=True, help="Continue in the directory; seeds and rows may be added.")
@click.option("--retry-failed", is_flag=True, help="With --resume: repeat failed trainings too.")
@data_dir_option
@set_option
@click.pass_context
def train_many(context: click.Context, **options: Any) -> None:
    """Train an ensemble: one configuration with many seeds, or the rows of a table.

    Exit code 0: all trainings are completed. 1: some failed. 75: stopped, can be resumed.
    """
    if context.invoked_subcommand is not None:
        refuse_options_before_a_command(context)
        return
    started = time.monotonic()
    if options["directory"] is None:
        if options["config_path"] is None and not options["resume"]:
            click.echo(context.get_help())
            return
        raise click.UsageError("give -o DIR, the directory of the ensemble")
    _run(started, **options)


def _run(
    started: float,
    config_path: Path | None,
    directory: Path,
    table: Path | None,
    seeds: list[int] | None,
    nepochs: int | None,
    workers: int | None,
    site: str | None,
    nodes: int | None,
    inside: bool,
    ntrain: int | None,
    ntest: int | None,
    resume: bool,
    retry_failed: bool,
    data_dir: Path | None,
    overrides: tuple[str, ...],
    **resources: Any,
) -> None:
    """Check options, load configuration and table, train."""
    placement = placement_of_trainings(workers, site, nodes, inside)
    if retry_failed and not resume:
        raise click.UsageError("--retry-failed is for an ensemble that has begun: give --resume")
    if not resume and seeds is None and table is None:
        raise click.UsageError("give --seeds such as 1:20, or --table FILE, or both")
    config_path = configuration_file(config_path, directory, resume, "ensemble")
    from mlpf.config.loading import load_config

    config = load_config(config_path, overrides, {} if nepochs is None else {"setup.num_epochs": nepochs})
    if data_dir is not None:
        config = config.with_data_dir(str(data_dir))
    from mlpf.ensemble.table import read_rows
    from mlpf.workflows import train_many as workflow

    workflow.run(
        config,
        directory,
        workflow.Resources(placement, **resources, started=started),
        rows=None if table is None else read_rows(table),
        seeds=seeds,
        ntrain=ntrain,
        ntest=ntest,
        resume=resume,
        retry_failed=retry_failed,
    )


@train_many.command()
@click.argument("directory", type=PATH)
def report(directory: Path) -> None:
    """Write and print the tables of the ensemble in DIRECTORY again."""
    from mlpf.workflows import train_many as workflow

    workflow.report(directory)


@train_many.command(hidden=True)
@click.argument("directory", type=PATH)
@click.argument("name")
@click.option("--num-cpus", type=click.IntRange(1), help="Threads; default all cores.")
@click.option("--ntrain", type=click.IntRange(1), help="Most training events per dataset.")
@click.option("--ntest", type=click.IntRange(1), help="Most validation events.")
def member(directory: Path, name: str, num_cpus: int | None, **limits: int | None) -> None:
    """Train NAME of the ensemble in DIRECTORY; started by its workers."""
    limit_library_threads(num_cpus)
    from mlpf.workflows import train_many_member as workflow

    workflow.run(directory, name, num_cpus=num_cpus, **limits)
