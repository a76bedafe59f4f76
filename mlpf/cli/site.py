"""Commands about sites: clusters that tasks can run on."""

from pathlib import Path

import click

from mlpf.cli.options import PATH


@click.group()
def site() -> None:
    """List, show and check sites: clusters that --site names."""


@site.command("list")
def list_() -> None:
    """List the sites that come with the package."""
    from mlpf.workflows.site import table

    rows = table()
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


@site.command()
@click.argument("name", metavar="NAME|FILE.yaml")
@click.option("--nodes", type=click.IntRange(1), default=1, help="Nodes.")
@click.option("--cpus-per-task", type=click.IntRange(1), default=1, help="Cores of a task.")
@click.option("--gpus-per-task", type=click.IntRange(0), default=0, help="GPUs of a task.")
@click.option("--inside-allocation", is_flag=True, help="For a driver that runs inside a job of Slurm.")
def show(name: str, nodes: int, cpus_per_task: int, gpus_per_task: int, inside_allocation: bool) -> None:
    """Print Parsl's configuration and the job that would be submitted; submits nothing."""
    from mlpf.engine.base import Slot
    from mlpf.workflows import site as workflow

    click.echo(workflow.show(name, nodes, Slot(cpus_per_task, gpus_per_task), inside_allocation), nl=False)


@site.command()
@click.argument("files", nargs=-1, required=True, type=PATH, metavar="FILE.yaml...")
def check(files: tuple[Path, ...]) -> None:
    """Validate site FILES."""
    from mlpf.workflows.site import check as check_files

    for path in check_files(files):
        click.echo(f"{path}: ok")
