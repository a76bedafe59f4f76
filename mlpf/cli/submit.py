"""Command that gives a search to Slurm."""

from pathlib import Path
from typing import Any

import click

from mlpf.cli.options import PATH, Duration, data_dir_option, set_option


@click.command()
@click.option(
    "--site", required=True, metavar="NAME|FILE.yaml", help="Cluster; an unknown name lists those there are."
)
@click.option("--nodes", type=click.IntRange(1), required=True, help="Nodes of the job.")
@click.option("--time", "seconds", type=Duration(), help="Length of a job; default the longest of the site.")
@click.option("--account", help="Account that pays.")
@click.option("--partition", help="Partition; default that of the site.")
@click.option("--constraint", help="Features that nodes must have; default those of the site.")
@click.option("--setup", multiple=True, metavar="LINE", help="Line of shell before the search; repeatable.")
@click.option("-c", "--config", type=PATH, required=True, help="YAML file with a section hypertune.")
@click.option("-o", "--outdir", "directory", type=PATH, required=True, help="Directory of the search.")
@click.option("--workers", type=click.IntRange(1), help="Trials at a time on each node.")
@click.option("--gpus-per-trial", type=click.IntRange(0), help="GPUs of each.")
@click.option("--cpus-per-trial", type=click.IntRange(1), help="Cores of each.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the chief; default one that is free.")
@click.option("--ntrain", type=click.IntRange(1), help="Most training events per dataset, for all trials.")
@click.option("--ntest", type=click.IntRange(1), help="Most validation events, for all trials.")
@data_dir_option
@set_option
@click.option("--print", "only_print", is_flag=True, help="Show the script of the job; submit nothing.")
def submit(
    site: str,
    only_print: bool,
    cpus_per_trial: int | None,
    port: int | None,
    ntrain: int | None,
    ntest: int | None,
    data_dir: Path | None,
    **request: Any,
) -> None:
    """Submit a search to Slurm, on several nodes; it goes back into the queue until it is over."""
    from mlpf.tuning import submission

    passed_on = {
        "--cpus-per-trial": cpus_per_trial,
        "--port": port,
        "--ntrain": ntrain,
        "--ntest": ntest,
        "--data-dir": data_dir,
    }
    options = [word for name, value in passed_on.items() if value is not None for word in (name, str(value))]
    wanted = submission.Request(**request, options=options)
    cluster = submission.load_site(site)
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
