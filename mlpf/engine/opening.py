"""Where tasks run: in this process, in processes of this machine, or on a cluster."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mlpf.engine.base import Engine, Slot
from mlpf.engine.local import InProcessEngine, LocalEngine
from mlpf.errors import ConfigError
from mlpf.machine.allocation import DeviceGroup, device_groups

# Folder in an output directory for the files of the cluster engine.
ENGINE_FOLDER = ".engine"
# Before its first checkpoint, a training has to start Python and TensorFlow and to compile the network.
_SHORTEST_WORK_MINUTES = 2


@dataclass(frozen=True)
class Placement:
    """Where tasks run, as the user chose.

    Attributes:
        workers: processes on this machine, without a site. For tasks that use GPUs, 0 means one per group of
            GPUs, or one process without GPUs.
        site: name or file of a site; None = this machine.
        nodes: number of nodes of the site.
        inside: use the nodes of the job that this process runs in, instead of new pilot jobs.
    """

    workers: int = 1
    site: str | None = None
    nodes: int = 1
    inside: bool = False


HERE = Placement()


def check_placement(placement: Placement, slot: Slot | None = None) -> None:
    """Check whether the site can be used, without starting anything.

    Args:
        placement: where tasks run.
        slot: what each task will use; None = one core.

    Raises:
        ConfigError: no such site, or one whose nodes are too small for a task.
        MissingDependency: Parsl is not installed.
    """
    if placement.site is None:
        return
    from mlpf.engine.sites import load_site, require_parsl, slots_per_node

    slots_per_node(load_site(placement.site), slot or Slot())
    require_parsl()


@contextmanager
def engine_for(placement: Placement, run_dir: Path, num_tasks: int) -> Iterator[Engine]:
    """Open an engine for a number of tasks, with at most as many local workers. Without tasks, start nothing.

    Args:
        placement: where tasks run.
        run_dir: as in ``open_engine``; removed if the block ends without error.
        num_tasks: number of tasks, one core each.

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
        placement: where tasks run.
        run_dir: folder for the files of the cluster engine, visible on all nodes.
        slot: what each task may use; None = one core.
        retries: how often a lost task is repeated.

    Raises:
        ConfigError: no such site, or its nodes are too small.
        MissingDependency: Parsl is not installed.
        EngineFailed: it cannot start.
    """
    slot = slot or Slot()
    if placement.site is not None:
        return open_cluster(placement, run_dir, slot, retries)
    if placement.workers <= 1:
        return InProcessEngine()
    return LocalEngine([DeviceGroup(num_cpus=slot.num_cpus)] * placement.workers, retries)


def open_cluster(placement: Placement, run_dir: Path, slot: Slot, retries: int) -> Engine:
    """Return the engine of a site. Raises the errors of ``open_engine``."""
    from mlpf.engine.sites import load_site, require_parsl

    site = load_site(placement.site or "")
    require_parsl()
    from mlpf.engine.parsl.engine import ParslEngine

    return ParslEngine(
        site, placement.nodes, run_dir=run_dir, slot=slot, retries=retries, inside_allocation=placement.inside
    )


def training_slot(placement: Placement, num_gpus: int | None, num_cpus: int | None, unit: str) -> Slot:
    """Return what each of many trainings may use.

    Args:
        placement: where tasks run.
        num_gpus: GPUs of each; None = one if there are GPUs.
        num_cpus: cores of each; None = an equal share.
        unit: what a training is called in options, such as ``--gpus-per-trial``.

    Raises:
        ConfigError: more than there is, no such site, or one with too short pilot jobs.
    """
    if placement.site is None:
        group = device_groups(placement.workers or None, num_gpus, num_cpus, unit)[0]
        return Slot(group.num_cpus, group.num_gpus)
    from mlpf.engine.sites import load_site, slots_per_node

    site = load_site(placement.site)
    gpus = min(1, site.gpus_per_node) if num_gpus is None else num_gpus
    share = site.num_cores // max(1, site.gpus_per_node // max(gpus, 1))
    slot = Slot(num_cpus or max(1, share), gpus)
    slots_per_node(site, slot)
    if site.max_minutes is not None and site.max_minutes - site.stop_margin < _SHORTEST_WORK_MINUTES:
        raise ConfigError(
            f"site {placement.site}: max_minutes {site.max_minutes} with stop_margin {site.stop_margin} "
            f"leaves less than {_SHORTEST_WORK_MINUTES} minutes, and no {unit} would have a checkpoint; give "
            "longer jobs"
        )
    return slot


def open_training_engine(
    placement: Placement, run_dir: Path, slot: Slot, num_cpus: int | None, retries: int
) -> Engine:
    """Return the engine for many trainings. Raises the errors of ``open_engine``.

    Args:
        placement: where tasks run.
        run_dir: folder for the files of the cluster engine, visible on all nodes.
        slot: return value of ``training_slot``.
        num_cpus: as in ``training_slot``.
        retries: how often a lost task is repeated.
    """
    if placement.site is not None:
        return open_cluster(placement, run_dir, slot, retries)
    return LocalEngine(device_groups(placement.workers or None, slot.num_gpus, num_cpus), retries)
