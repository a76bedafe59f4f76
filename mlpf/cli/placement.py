"""Options for the place of the tasks of a command: this machine or a cluster."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click


def placement_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``-j``, ``--site``, ``--nodes`` and ``--inside``, which become one argument ``placement``.

    An unusable site is an error before the command begins.
    """

    @click.option(
        "-j", "--workers", type=click.IntRange(1), help="Worker processes on this machine, default 1."
    )
    @click.option("--site", metavar="NAME|FILE", help="Cluster to run on instead: mlpf site list shows them.")
    @click.option("--nodes", type=click.IntRange(1), help="Nodes of the site, default 1.")
    @click.option("--inside", is_flag=True, help="Use the nodes of the job that this command runs in.")
    @wraps(command)
    def with_placement(
        *arguments: Any,
        workers: int | None,
        site: str | None,
        nodes: int | None,
        inside: bool,
        **options: Any,
    ) -> Any:
        _refuse_what_does_nothing(workers, site, nodes, inside, options)
        from mlpf.engine.opening import Placement, check_placement

        placement = Placement(workers or 1, site, nodes or 1, inside)
        check_placement(placement)
        return command(*arguments, placement=placement, **options)

    return with_placement


def placement_of_trainings(workers: int | None, site: str | None, nodes: int | None, inside: bool) -> Any:
    """Return the place of trainings; default one training per group of GPUs of this machine.

    Raises:
        click.UsageError: options of this machine and of a cluster together.
    """
    if site is None and (nodes is not None or inside):
        raise click.UsageError(
            "--nodes and --inside belong to --site; give it, or --workers for this machine"
        )
    if site is not None and workers is not None:
        raise click.UsageError("--workers are those of this machine; with --site give --nodes")
    from mlpf.engine.opening import Placement

    return Placement(workers or 0, site, nodes or 1, inside)


def _refuse_what_does_nothing(
    workers: int | None, site: str | None, nodes: int | None, inside: bool, options: dict[str, Any]
) -> None:
    if site is None:
        for name, given in (("--nodes", nodes is not None), ("--inside", inside)):
            if given:
                raise click.UsageError(f"{name} is about a cluster; name it with --site, or use -j N here")
        return
    if workers is not None:
        raise click.UsageError(
            "-j starts processes on this machine, --site on the nodes of a cluster, as many as --nodes says; "
            "give one of them"
        )
    if options.get("shard"):
        raise click.UsageError(
            "--shard does one part of the work as one job of an array, --site gives all parts to a cluster; "
            "give one of them"
        )
    if options.get("merge"):
        raise click.UsageError("--merge only puts together what shards wrote; give it without --site")
