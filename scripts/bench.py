"""Throughput of every stage, each measured as the command a user types.

CPU seconds count the whole command with its workers, imports included; on a shared machine compare CPU
seconds, not wall time. Ratios come from runs that alternate. The memory is that of the largest process.
Postprocess and build read the simulated files several times under other names: simulating takes longest, and
the start of a command, some seconds, is not its throughput.
Usage: scripts/bench.py [--events N] [--config FILE] [--only STAGE ...]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
PIPELINE = ROOT / "mlpf" / "pipeline.py"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
SPLIT = ("--split-fractions", "0.8,0.1,0.1", "--split-seed", 4)
REPEATS = 2
COPIES_ROOT, COPIES_PARQUET = 12, 12


@dataclass(frozen=True)
class Timing:
    """CPU and wall seconds of one command, and the memory of its largest process in bytes."""

    cpu: float
    wall: float
    memory: int


def run(*arguments: str | Path | int) -> Timing:
    """Run one ``mlpf`` command and time it.

    Raises:
        SystemExit: the command failed; its output is shown.
    """
    command = [sys.executable, str(PIPELINE), *map(str, arguments)]
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **ONE_THREAD}
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"{' '.join(command)}\n{output.read().decode()}")
    return Timing(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss * 1024)


@dataclass
class Bench:
    """The table, and where the stages leave their files."""

    folder: Path
    events: int
    config: Path
    table: Table

    def row(self, stage: str, events: int, timing: Timing) -> None:
        """Add the rates of one command."""
        self.table.add_row(
            stage,
            f"{events / timing.cpu:.0f}",
            f"{events / timing.wall:.0f}",
            f"{timing.memory / 1e6:.0f}",
        )

    def workers(self, stage: str, events: int, command: Callable[[int], Timing]) -> None:
        """Add the rates with one and with two workers, from runs that alternate, and their ratio."""
        timings = {n: [] for n in (1, 2)}
        for _ in range(REPEATS):
            for n, done in timings.items():
                done.append(command(n))
        best = {n: min(done, key=lambda t: t.wall) for n, done in timings.items()}
        for n, timing in best.items():
            self.row(f"{stage}, {n} worker{'s' if n > 1 else ''}", events, timing)
        self.table.add_row(f"{stage}, 2 against 1", "", f"{best[1].wall / best[2].wall:.2f} x", "")


def multiply(folder: Path, copies: int) -> Path:
    """Give every file of a folder several names in another one."""
    target = folder.with_name(f"{folder.name}_times_{copies}")
    target.mkdir()
    for path in folder.iterdir():
        for copy in range(copies):
            (target / f"copy{copy}_{path.name}").hardlink_to(path)
    return target


def clusters(bench: Bench) -> None:
    """Simulate, postprocess and build ttbar with clusters."""
    events, folder = bench.events, bench.folder
    root, parquet = folder / "root", folder / "parquet"
    bench.row("simulate ttbar", events, run("simulate", "ttbar", "-n", events, "-o", root, "-j", 2))
    run("postprocess", root, "-o", parquet, "-j", 2)
    many_root, many_parquet = multiply(root, COPIES_ROOT), multiply(parquet, COPIES_PARQUET)
    dataset, sets, over = "clic_edm4hep/ttbar", folder / "datasets", "--overwrite"

    def postprocess(workers: int) -> Timing:
        return run("postprocess", many_root, "-o", folder / "again", "-j", workers, over)

    def build(workers: int) -> Timing:
        many = folder / "many_datasets"
        return run("build", dataset, "--data-dir", many, "-i", many_parquet, *SPLIT, "-j", workers, over)

    bench.workers("postprocess clusters", COPIES_ROOT * events, postprocess)
    bench.workers("build clusters", COPIES_PARQUET * events, build)
    run("build", dataset, "--data-dir", sets, "-i", parquet, *SPLIT)


def hits(bench: Bench) -> None:
    """Simulate, postprocess and build ttbar with raw hits, about ten thousand per event."""
    events, folder = max(40, bench.events // 10), bench.folder
    root, parquet = folder / "hits_root", folder / "hits_parquet"
    files = ("--events-per-file", 50)
    timing = run("simulate", "ttbar", "-n", events, "-o", root, "--granularity", "fine", *files, "-j", 2)
    bench.row("simulate ttbar, fine hits", events, timing)
    bench.row(
        "postprocess hits",
        events,
        run("postprocess", root, "-o", parquet, "--elements", "hits", "--overwrite"),
    )
    sets = folder / "datasets"
    fractions = ("--split-fractions", "1,0,0")
    bench.row(
        "build hits",
        events,
        run("build", "clic_edm4hep_hits/ttbar", "--data-dir", sets, "-i", parquet, *fractions),
    )


def delphes(bench: Bench) -> None:
    """Simulate and postprocess Delphes-like events at a pile-up of 200, from ROOT files and from pickles."""
    events = max(20, bench.events // 20)
    for form in ("root", "pickle"):
        source, parquet = bench.folder / f"delphes_{form}", bench.folder / f"delphes_{form}_parquet"
        timing = run(
            "simulate", "delphes_ttbar", "-n", events, "-o", source, "--format", form, "--pileup", 200
        )
        bench.row(f"simulate Delphes {form}", events, timing)
        bench.row(f"postprocess Delphes {form}", events, run("postprocess", source, "-o", parquet))


def training(bench: Bench) -> None:
    """Read padded batches, and train: reading must be much faster."""
    from bench_feeding import measure  # imports TensorFlow: only where it is needed

    only = ["train_test_datasets.physical.datasets=[clic_edm4hep/ttbar]"]
    for what, number in measure(bench.config, bench.folder / "datasets", only):
        bench.table.add_row(what, "", number, "")


STAGES = {"clusters": clusters, "training": training, "hits": hits, "delphes": delphes}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--config", type=Path, default=ROOT / "parameters" / "clic-demo.yaml")
    parser.add_argument("--only", nargs="+", choices=STAGES, default=list(STAGES))
    options = parser.parse_args()
    table = Table("stage", "events/s per core (CPU time)", "events/s (wall)", "memory in MB")
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), options.events, options.config, table)
        for stage in options.only:
            STAGES[stage](bench)
    helped = min(run("--help").wall for _ in range(5))
    table.add_row("mlpf --help", "", f"{helped:.2f} s", "")
    Console().print(table)


if __name__ == "__main__":
    main()
