"""The engine of clusters: start, empty tasks, load of idle processes.

``python scripts/bench_engine.py``: two slots of this machine, and two virtual nodes of a real Slurm if it is
installed and the user is root. ``--site NAME|FILE.yaml --nodes N`` measures a cluster instead.
"""

import contextlib
import math
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import click
import psutil
from rich.console import Console
from rich.table import Table

from mlpf.engine.base import Slot
from mlpf.engine.parsl.engine import ParslEngine
from mlpf.engine.sites import Site, load_site

REPO = Path(__file__).resolve().parent.parent
MARK = "MLPF_BENCH_MARK"
NUM_TASKS = 500
IDLE_SECONDS = 20.0
# What a process is called, by a part of its command line; the first that fits counts.
KINDS = {
    "HTEX interchange": "interchange",
    "process_worker_pool": "manager",
    "mlpf.engine.parsl.pilot": "pilot",
    "resource_tracker": "manager",
    "spawn_main": "worker",
}


def processes(mark: str) -> dict[psutil.Process, str]:
    """Return process of the engine -> what it is."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) != mark:
                continue
            command = " ".join(process.cmdline())
            kind = next((name for part, name in KINDS.items() if part in command), None)
            if kind is not None:
                found[process] = kind
    return found


def busy_seconds(all_processes: dict[psutil.Process, str]) -> dict[psutil.Process, float]:
    """Return the CPU time that each process has used, in s."""
    return {process: sum(process.cpu_times()[:2]) for process in all_processes}


def measure(site: Site, nodes: int, folder: Path) -> list[tuple[str, str]]:
    """Return (what, number) of one engine."""
    mark = os.environ[MARK] = uuid.uuid4().hex
    # The interchange changes its title, and would overwrite its variables with it.
    os.environ["SPT_NOENV"] = "1"
    rows = []
    started = time.monotonic()
    with ParslEngine(site, nodes, run_dir=folder, slot=Slot(), retries=1) as engine:
        engine.submit(math.sqrt, 1.0).result()
        rows.append(("from start to the first result", f"{time.monotonic() - started:.1f} s"))
        # All slots are up once so many tasks run at a time.
        for future in [engine.submit(time.sleep, 3.0) for _ in range(engine.num_slots)]:
            future.result()
        begun = time.monotonic()
        for future in [engine.submit(math.sqrt, 1.0) for _ in range(NUM_TASKS)]:
            future.result()
        rows.append(
            (f"{NUM_TASKS} empty tasks, {engine.num_slots} slots", f"{time.monotonic() - begun:.2f} s")
        )
        time.sleep(2.0)
        there = processes(mark)
        before = busy_seconds(there)
        own = sum(psutil.Process().cpu_times()[:2])
        time.sleep(IDLE_SECONDS)
        after = busy_seconds(there)
        own = sum(psutil.Process().cpu_times()[:2]) - own
        for kind in ("worker", "manager", "pilot", "interchange"):
            shares = [(after[p] - before[p]) / IDLE_SECONDS for p, name in there.items() if name == kind]
            if shares:
                rows.append((f"idle {kind}, of a core (largest of {len(shares)})", f"{max(shares):.2%}"))
        rows.append(("idle driver, of a core", f"{own / IDLE_SECONDS:.2%}"))
        begun = time.monotonic()
    rows.append(("end", f"{time.monotonic() - begun:.1f} s"))
    return rows


@contextlib.contextmanager
def virtual_slurm() -> Iterator[str | None]:
    """Start a Slurm of two virtual nodes on this machine; yields why there is none, or None."""
    sys.path.insert(0, str(REPO))
    from tests.support.slurm_cluster import SlurmCluster, why_not

    reason = why_not()
    if reason is not None:
        yield reason
        return
    with SlurmCluster() as cluster:
        os.environ["SLURM_CONF"] = cluster.environment["SLURM_CONF"]
        yield None


@click.command()
@click.option("--site", metavar="NAME|FILE.yaml", help="A cluster instead of this machine.")
@click.option("--nodes", type=click.IntRange(1), default=2, show_default=True, help="Its nodes.")
@click.option("--run-dir", type=click.Path(path_type=Path), help="Folder that all its nodes see.")
def main(site: str | None, nodes: int, run_dir: Path | None) -> None:
    """Measure the engine of clusters."""
    console = Console()

    def show(title: str, rows: list[tuple[str, str]]) -> None:
        table = Table("what", "number", title=title)
        for row in rows:
            table.add_row(*row)
        console.print(table)

    with tempfile.TemporaryDirectory(prefix="mlpf-bench-engine-") as folder:
        if site is not None:
            show(f"{nodes} node(s) of {site}", measure(load_site(site), nodes, run_dir or Path(folder)))
            return
        here = Site(description="this machine", provider="local", cores_per_node=2)
        show("two slots of this machine", measure(here, 1, Path(folder)))
        two = Site(description="virtual", provider="slurm", cores_per_node=1, max_minutes=30)
        with virtual_slurm() as reason:
            if reason is not None:
                console.print(f"not measured on Slurm: {reason}")
                return
            show("two virtual nodes of Slurm", measure(two, 2, Path(folder)))


if __name__ == "__main__":
    main()
