"""``mlpf site``: list and check sites, and print the jobs that they would submit."""

from collections.abc import Sequence
from pathlib import Path

from mlpf.engine.base import Slot
from mlpf.engine.sites import load_site, require_parsl, site_names
from mlpf.errors import ConfigError


def table() -> list[tuple[str, ...]]:
    """Return a table of the sites of the package; the first row is the header."""
    rows: list[tuple[str, ...]] = [("site", "provider", "cores", "GPUs", "job ends after", "description")]
    for name in site_names():
        site = load_site(name)
        cores = "all" if site.cores_per_node is None else str(site.cores_per_node)
        end = "never" if site.max_minutes is None else f"{site.max_minutes} min"
        rows.append((name, site.provider, cores, str(site.gpus_per_node), end, site.description))
    return rows


def check(files: Sequence[Path]) -> list[str]:
    """Check site files.

    Returns:
        The files that are valid.

    Raises:
        ConfigError: every problem of the others, one per line.
    """
    valid, problems = [], []
    for path in files:
        try:
            load_site(str(path))
            valid.append(str(path))
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return valid


def show(name: str, nodes: int, slot: Slot, inside_allocation: bool) -> str:
    """Return Parsl's configuration for a site and the job that it would submit, as text.

    Args:
        name: name of a site, or its file.
        nodes: number of nodes.
        slot: what each task may use.
        inside_allocation: print the job step that a driver inside a Slurm job would start instead.

    Raises:
        ConfigError: no such site, or its nodes are too small.
        MissingDependency: Parsl is not installed.
    """
    site = load_site(name)
    require_parsl()
    from mlpf.engine.parsl.configuration import job_text

    return job_text(site, nodes, slot=slot, inside_allocation=inside_allocation)
