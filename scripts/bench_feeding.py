"""Feeding of a training: share of padding, events per second of batches, share of time spent waiting.

Usage: scripts/bench_feeding.py --data-dir DIR [--config FILE] [--set KEY=VALUE ...] [--events N]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from mlpf.config.loading import load_config
from mlpf.config.schema import Config
from mlpf.data.feeding.batch_plan import bucket_edges, plan_epoch
from mlpf.runs.data import build_loaders

ROOT = Path(__file__).resolve().parent.parent

PADDED = ("clic-demo", "clic", "clic-transformer")
IN_MEMORY, FROM_DISK = 1024.0, 0.0
EPOCHS = 3

Cells = tuple[str, str]


def padding(lengths: np.ndarray, config: Config) -> float:
    """Return the share of padding in batches of events with these lengths [n]."""
    unit, growth = config.parameters.bucket_size, config.batching.bucket_growth
    batch_size = next(iter(config.train_test_datasets.values())).batch_per_gpu
    edges = bucket_edges(int(lengths.max()), unit, growth)
    return plan_epoch(
        lengths, [(np.arange(len(lengths)), batch_size)], edges, seed=1, epoch=1
    ).padded_fraction


def reading_rate(config: Config, memory_limit_gb: float, events: int | None) -> float:
    """Return training events per second of padded batches, the best of some epochs."""
    config = config.with_overrides({"batching.memory_limit_gb": memory_limit_gb})
    loader, _ = build_loaders(config, 1, ntrain=events)
    best = 0.0
    for epoch in range(1, EPOCHS + 1):
        started = time.perf_counter()
        for batch in loader.epoch(epoch).batches:
            batch["X"].numpy()
        best = max(best, loader.plan(epoch).num_events / (time.perf_counter() - started))
    return best


def train(
    config: Path, data_dir: Path, settings: list[str], memory_limit_gb: float, events: int | None
) -> dict[str, float]:
    """Return the record of the fastest epoch of a training that a user types, the first left out."""
    changes = [*settings, f"batching.memory_limit_gb={memory_limit_gb}"]
    with tempfile.TemporaryDirectory() as name:
        run_dir = Path(name) / "run"
        command = ["train", "-c", config, "-o", run_dir, "--data-dir", data_dir, "--nepochs", 1 + EPOCHS]
        command += [part for change in changes for part in ("--set", change)]
        command += [] if events is None else ["--ntrain", events]
        subprocess.run(
            [sys.executable, str(ROOT / "mlpf" / "pipeline.py"), *map(str, command)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        history = json.loads((run_dir / "history.json").read_text(encoding="utf-8"))
    return max(history[1:], key=lambda record: record["events_per_second"])


def measure(
    config_path: Path, data_dir: Path, settings: list[str] | None = None, events: int | None = None
) -> list[Cells]:
    """Return lines of (what, number).

    Args:
        config_path: configuration to train.
        data_dir: where its datasets are.
        settings: ``key=value`` changes of it.
        events: most training events per dataset.
    """
    config = load_config(config_path, overrides=settings or []).with_data_dir(str(data_dir))
    lengths = build_loaders(config, 1, ntrain=events)[0].pool.lengths
    rows = [
        (f"padding of {name}", f"{padding(lengths, load_config(ROOT / 'parameters' / f'{name}.yaml')):.1%}")
        for name in PADDED
    ]
    for place, limit in (("from memory", IN_MEMORY), ("from disk", FROM_DISK)):
        rate = reading_rate(config, limit, events)
        record = train(config_path, data_dir, settings or [], limit, events)
        trained = record["events_per_second"]
        rows += [
            (f"batches {place}", f"{rate:.0f} events/s"),
            (f"train {config_path.stem} {place}", f"{trained:.0f} events/s"),
            (f"batches against training {place}", f"{rate / trained:.0f} x"),
            (f"waiting for data {place}", f"{record['wait_share']:.2%}"),
        ]
    return rows


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=ROOT / "parameters" / "clic-demo.yaml")
    parser.add_argument("--set", dest="settings", metavar="KEY=VALUE", action="append", default=[])
    parser.add_argument("--events", type=int, default=2000)
    options = parser.parse_args()
    table = Table("feeding", "")
    for cells in measure(options.config, options.data_dir, options.settings, options.events):
        table.add_row(*cells)
    Console().print(table)


if __name__ == "__main__":
    main()
