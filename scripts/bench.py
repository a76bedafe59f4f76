"""Throughput of every stage, each measured as the command a user types, on one worker.

CPU seconds count the whole command with its workers, imports included; on a shared machine compare
CPU seconds, not wall time. Usage: scripts/bench.py [--events N] [--config FILE]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
PIPELINE = ROOT / "mlpf" / "pipeline.py"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Timing:
    """CPU and wall seconds of one command."""

    cpu: float
    wall: float


def run(*arguments: str | Path | int) -> Timing:
    """Run one ``mlpf`` command and time it.

    Raises:
        SystemExit: the command failed; its output is shown.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    command = [sys.executable, str(PIPELINE), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **ONE_THREAD})
    wall = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Timing(cpu, wall)


def data_stages(folder: Path, events: int) -> dict[str, Timing]:
    """Simulate, postprocess and build ttbar."""
    sets = folder / "datasets"
    fractions = ("--split-fractions", "0.8,0.1,0.1", "--split-seed", 4)
    files = ("--events-per-file", max(1, events // 30))
    return {
        "simulate ttbar": run("simulate", "ttbar", "-n", events, "-o", folder / "root", *files),
        "postprocess": run("postprocess", folder / "root", "-o", folder / "parquet"),
        "build": run("build", "clic_edm4hep/ttbar", "--data-dir", sets, "-i", folder / "parquet", *fractions),
    }


def train_rates(folder: Path, config: Path) -> list[float]:
    """Return the training events per second of the epochs after the first, which includes tracing."""
    arguments = ("--set", "train_test_datasets.physical.datasets=[clic_edm4hep/ttbar]")
    run(
        "train",
        "-c",
        config,
        "-o",
        folder / "run",
        "--data-dir",
        folder / "datasets",
        "--nepochs",
        4,
        *arguments,
    )
    history = json.loads((folder / "run" / "history.json").read_text())
    return [record["events_per_second"] for record in history[1:]]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=600)
    parser.add_argument("--config", type=Path, default=ROOT / "parameters" / "clic-demo.yaml")
    options = parser.parse_args()
    table = Table("stage", "events/s per core (CPU time)", "events/s (wall)")
    with tempfile.TemporaryDirectory() as name:
        for stage, timing in data_stages(Path(name), options.events).items():
            rates = (f"{options.events / seconds:.0f}" for seconds in (timing.cpu, timing.wall))
            table.add_row(stage, *rates)
        rates = train_rates(Path(name), options.config)
        table.add_row(f"train {options.config.stem}", "", f"{min(rates):.0f} - {max(rates):.0f}")
    helped = min(run("--help").wall for _ in range(5))
    table.add_row("mlpf --help", "", f"{helped:.2f} s")
    Console().print(table)


if __name__ == "__main__":
    main()
