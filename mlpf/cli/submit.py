"""Command that submits a search to Slurm."""

from pathlib import Path
from typing import Any

import click

from mlpf.cli.options import PATH, Duration, config_option, data_dir_option, set_option


@click.command()
@click.option("--site", required=True, metavar="NAME|FILE", help="Cluster; see mlpf site list.")
@click.option("--nodes", type=click.IntRange(1), required=True, help="Nodes of the job.")
@click.option("--time", "seconds", type=Duration(), help="Length of a job; default the longest of the site.")
@click.option("--account", help="Account that pays.")
@click.option("--partition", help="Partition; default that of the site.")
@click.option("--constraint", help="Features that nodes must have; default those of the site.")
@click.option(
    "--max-requeues", type=click.IntRange(0), default=100, help="How often the job may return to the queue."
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
    """Submit a search as one job of Slurm, which runs driver and workers on several nodes.

    Before its end the job saves and returns to the queue, until the search is over.
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
