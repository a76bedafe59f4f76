"""Commands of the search for hyperparameters."""

import os
import time
from pathlib import Path
from typing import Any

import click

from mlpf.cli.options import PATH, Duration, data_dir_option, set_option
from mlpf.cli.submit import submit
from mlpf.runtime import limit_library_threads

_LOOPBACK = "127.0.0.1"
_port = click.IntRange(0, 65535)


@click.group(invoke_without_command=True)
@click.option("-c", "--config", "config_path", type=PATH, help="YAML file with a section hypertune.")
@click.option("-o", "--outdir", "directory", type=PATH, help="Directory of the search.")
@click.option(
    "--workers", type=click.IntRange(1), help="Trials at a time here; default one per group of GPUs, or 1."
)
@click.option(
    "--gpus-per-trial",
    type=click.IntRange(0),
    help="GPUs of each, all through a search; default 1 where there are GPUs.",
)
@click.option("--cpus-per-trial", type=click.IntRange(1), help="Cores of each; default an equal share.")
@click.option(
    "--address",
    default=_LOOPBACK,
    help="Where the chief listens, not encrypted; loopback = this machine only.",
)
@click.option("--port", type=_port, default=0, help="Its port; 0 = one that is free.")
@click.option("--name", help="First part of the ids of the workers; default that of the machine.")
@click.option(
    "--time-limit",
    type=Duration(),
    help="Save and stop, with exit code 75, after e.g. 55m; go on with --resume.",
)
@click.option("--resume", is_flag=True, help="Continue the search in the directory; without -c, as it was.")
@click.option(
    "--join",
    "join_at",
    metavar="HOST:PORT|auto",
    help="Add workers to a search that another node has started.",
)
@click.option("--ntrain", type=click.IntRange(1), help="Most training events per dataset, for all trials.")
@click.option("--ntest", type=click.IntRange(1), help="Most validation events, for all trials.")
@data_dir_option
@set_option
@click.pass_context
def hypertune(context: click.Context, **options: Any) -> None:
    """Search for hyperparameters, with several trials at a time and on several nodes.

    Ends with exit code 0 when the search is over, 75 when it was stopped and can go on, 1 when it failed.
    """
    if context.invoked_subcommand is not None:
        given = [
            parameter.opts[0]
            for parameter in context.command.params
            if context.get_parameter_source(parameter.name or "") is click.core.ParameterSource.COMMANDLINE
        ]
        if given:
            raise click.UsageError(f"{given[0]} is no option of {context.invoked_subcommand}; leave it out")
        return
    started = time.monotonic()
    if options["directory"] is None:
        if not any(options[name] for name in ("config_path", "resume", "join_at")):
            click.echo(context.get_help())
            return
        raise click.UsageError("give -o DIR, the directory of the search")
    _search(started, **options)


def _search(
    started: float,
    config_path: Path | None,
    directory: Path,
    address: str,
    port: int,
    resume: bool,
    join_at: str | None,
    data_dir: Path | None,
    overrides: tuple[str, ...],
    ntrain: int | None,
    ntest: int | None,
    **of_node: Any,
) -> None:
    """Start a search, continue one, or join one."""
    if join_at is not None:
        chosen = config_path or resume or data_dir or overrides or ntrain or ntest or port
        if chosen or address != _LOOPBACK:
            raise click.UsageError("--join adds workers to a search as it is: only -o and options of workers")
        from mlpf.workflows import hypertune as workflow

        chief_at = None if join_at == "auto" else _host_and_port(join_at)
        workflow.join(directory, workflow.Node(**of_node, started=started), chief_at)
        return
    from mlpf.config.loading import RESOLVED_FILE, load_config

    if config_path is None:
        if not resume:
            raise click.UsageError("give -c CONFIG for a new search, --resume, or --join")
        config_path = directory / RESOLVED_FILE
        if not config_path.is_file():
            raise click.UsageError(f"{directory}: nothing to resume, no {RESOLVED_FILE} in it")
    config = load_config(config_path, overrides)
    if data_dir is not None:
        config = config.with_data_dir(str(data_dir))
    from mlpf.tuning.launcher import ChiefPlace
    from mlpf.workflows import hypertune as workflow

    workflow.run(
        config,
        directory,
        workflow.Node(**of_node, started=started),
        place=ChiefPlace(address, port),
        resume=resume,
        ntrain=ntrain,
        ntest=ntest,
    )


def _host_and_port(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port[:6]) <= 65535:
        raise click.UsageError(f"--join {text}: expected HOST:PORT, e.g. node1:40123, or auto")
    return text


hypertune.add_command(submit)


@hypertune.command()
@click.argument("directory", type=PATH)
def report(directory: Path) -> None:
    """Write tables, best configuration, plots and report of the search in DIRECTORY again."""
    from mlpf.workflows import hypertune_report as workflow

    workflow.run(directory)


def _keep_tensorflow_out() -> None:
    """Put Keras of this process on NumPy: chief and workers compute nothing and start faster so."""
    os.environ["KERAS_BACKEND"] = "numpy"


@hypertune.command(hidden=True)
@click.argument("directory", type=PATH)
@click.option("--address", default=_LOOPBACK, help="Where to listen.")
@click.option("--port", type=_port, default=0, help="Port; 0 = one that is free.")
def chief(directory: Path, address: str, port: int) -> None:
    """Hand out the trials of the search in DIRECTORY; started by mlpf hypertune."""
    _keep_tensorflow_out()
    from mlpf.tuning import chief as process

    process.run(directory, address, port)


@hypertune.command(hidden=True)
@click.argument("directory", type=PATH)
@click.option("--id", "worker_id", required=True, help="Name, the same after a restart.")
@click.option("--launcher", required=True, help="Who started it.")
@click.option(
    "--chief", "chief_at", metavar="HOST:PORT", help="Where the chief is; default as its file says."
)
@click.option("--num-cpus", type=click.IntRange(1), default=1, help="Threads of a trial.")
@click.option("--gpus", type=click.IntRange(0), default=0, help="GPUs of a trial, those that it sees.")
def worker(
    directory: Path, worker_id: str, launcher: str, chief_at: str | None, num_cpus: int, gpus: int
) -> None:
    """Run trials of the search in DIRECTORY; started by mlpf hypertune."""
    _keep_tensorflow_out()
    from mlpf.tuning import worker as process

    process.run(directory, worker_id, launcher, chief=chief_at, num_cpus=num_cpus, gpus=gpus)


@hypertune.command(hidden=True)
@click.argument("directory", type=PATH)
@click.argument("run")
@click.option("--epochs", type=click.IntRange(1), required=True, help="Train up to the end of this epoch.")
@click.option("--num-cpus", type=click.IntRange(1), help="Threads; default all cores.")
@click.option("--ntrain", type=click.IntRange(1), help="Most training events per dataset.")
@click.option("--ntest", type=click.IntRange(1), help="Most validation events.")
def trial(directory: Path, run: str, epochs: int, num_cpus: int | None, **limits: int | None) -> None:
    """Train RUN of the search in DIRECTORY; started by its workers."""
    limit_library_threads(num_cpus)
    from mlpf.workflows import trial as workflow

    workflow.run(directory, run, epochs=epochs, num_cpus=num_cpus, **limits)
