"""Commands of a search for hyperparameters."""

from pathlib import Path

import click

from mlpf.cli.options import PATH
from mlpf.runtime import limit_library_threads


@click.group()
def hypertune() -> None:
    """Search for hyperparameters."""


@hypertune.command(hidden=True)
@click.argument("search_dir", metavar="DIR", type=PATH)
@click.argument("run")
@click.option("--epochs", type=click.IntRange(1), required=True, help="Train up to this epoch.")
@click.option("--num-cpus", type=click.IntRange(1), help="Threads; default all cores.")
def trial(search_dir: Path, run: str, epochs: int, num_cpus: int | None) -> None:
    """Train one trial of the search in DIR; workers start this.

    Exit code 0: completed; 3: failed for good; 75: stopped, may go on; others: crashed.
    """
    limit_library_threads(num_cpus)
    from mlpf.workflows import trial as workflow

    workflow.run(search_dir, run, epochs, num_cpus=num_cpus)
