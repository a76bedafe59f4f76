"""Where tasks run: in this process, in processes of this machine, or on a cluster."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mlpf.engine.base import Engine, Slot
from mlpf.engine.device_groups import DeviceGroup
from mlpf.engine.local import HereEngine, LocalEngine

# Folder in an output for the files of the engine of a cluster.
ENGINE_FOLDER = ".engine"


@dataclass(frozen=True)
class Placement:
    """What a user chose.

    Attributes:
        workers: processes of this machine, if no site is given.
        site: name or file of a site; None = this machine.
        nodes: nodes of the site.
        inside: the nodes are those of the job that this process runs in, instead of new pilot jobs.
    """

    workers: int = 1
    site: str | None = None
    nodes: int = 1
    inside: bool = False


HERE = Placement()


def check_placement(placement: Placement, slot: Slot | None = None) -> None:
    """Find out before any work whether the site can be used; nothing starts.

    Args:
        placement: where.
        slot: what each task will use; None = one core.

    Raises:
        ConfigError: no such site, or one whose nodes are too small for a task.
        MissingDependency: the engine of clusters is not installed.
    """
    if placement.site is None:
        return
    from mlpf.engine.sites import load_site, require_parsl, slots_per_node

    slots_per_node(load_site(placement.site), slot or Slot())
    require_parsl()


@contextmanager
def engine_for(placement: Placement, run_dir: Path, num_tasks: int) -> Iterator[Engine]:
    """Open an engine for some tasks: no more workers here than tasks, and for none nothing starts.

    Args:
        placement: where.
        run_dir: as in ``open_engine``; removed when the tasks ended well, else its logs stay.
        num_tasks: how many tasks there will be, one core each.

    Raises:
        As ``open_engine``.
    """
    if num_tasks == 0:
        placement = HERE
    with open_engine(replace(placement, workers=min(placement.workers, num_tasks)), run_dir) as engine:
        yield engine
    if placement.site is not None:
        shutil.rmtree(run_dir, ignore_errors=True)


def open_engine(placement: Placement, run_dir: Path, *, slot: Slot | None = None, retries: int = 1) -> Engine:
    """Return the engine for tasks that need no GPU.

    Args:
        placement: where.
        run_dir: folder for the files of the engine of a cluster; all nodes see it.
        slot: what each task may use; None = one core.
        retries: times that a lost task is tried again.

    Raises:
        ConfigError: no such site, or one that does not give what is asked for.
        MissingDependency: the engine of clusters is not installed.
        EngineFailed: it cannot start.
    """
    slot = slot or Slot()
    if placement.site is not None:
        return open_cluster(placement, run_dir, slot, retries)
    if placement.workers <= 1:
        return HereEngine()
    return LocalEngine([DeviceGroup(num_cpus=slot.num_cpus)] * placement.workers, retries)


def open_cluster(placement: Placement, run_dir: Path, slot: Slot, retries: int) -> Engine:
    """Return the engine of a site; raises as ``open_engine``."""
    from mlpf.engine.sites import load_site, require_parsl

    site = load_site(placement.site or "")
    require_parsl()
    from mlpf.engine.parsl_engine import ParslEngine

    return ParslEngine(
        site, placement.nodes, run_dir=run_dir, slot=slot, retries=retries, inside_allocation=placement.inside
    )
