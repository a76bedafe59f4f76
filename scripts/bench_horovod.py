"""Events per second of two Horovod processes against one, each on a core of its own.

The reduction costs the difference between a step of two processes and a step of one with the same rows.

    python scripts/bench_horovod.py --data-dir demo/tensorflow_datasets
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

BIN = Path(sys.executable).parent
ROUNDS = 1


def train(arguments: argparse.Namespace, folder: Path, processes: int) -> list[dict[str, float]]:
    """Train, return the records of the epochs after the first."""
    core = "$HOROVOD_LOCAL_RANK" if processes > 1 else "0"
    command = (
        f"taskset -c {core} {sys.executable} mlpf/pipeline.py train -c {arguments.config} -o {folder} "
        f"--data-dir {arguments.data_dir} --ntrain {arguments.events} --nepochs {arguments.epochs} "
        f"--ntest 64 --num-cpus 1 --set train_test_datasets.physical.batch_per_gpu={arguments.batch} "
        f"--set callbacks.physics.every=0 --set callbacks.tensorboard=false"
    )
    launcher = ["bash", "-c", command]
    if processes > 1:
        launcher = [str(BIN / "horovodrun"), "-np", str(processes), "--gloo", "bash", "-c", f"{command} -m"]
    done = subprocess.run(launcher, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    return json.loads((folder / "history.json").read_text(encoding="utf-8"))[1:]


def main() -> None:
    """Alternate one and two processes, print the ratio of the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--config", default="parameters/clic-demo.yaml")
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64, help="events per step and process")
    arguments = parser.parse_args()
    rates: dict[int, list[float]] = {1: [], 2: []}
    steps: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS):
            for processes in (1, 2):
                records = train(arguments, Path(folder) / f"{processes}_{number}", processes)
                rates[processes] += [record["events_per_second"] for record in records]
                steps[processes] += [record["seconds"] / record["num_steps"] for record in records]
    table = Table("processes", "events/s (best)", "ms per step")
    for processes in (1, 2):
        best = max(rates[processes])
        table.add_row(str(processes), f"{best:.0f}", f"{1e3 * min(steps[processes]):.1f}")
    console = Console()
    console.print(table)
    console.print(
        f"ratio {max(rates[2]) / max(rates[1]):.2f}; the reduction and what else two processes share cost "
        f"{1e3 * (min(steps[2]) - min(steps[1])):.1f} ms per step"
    )


if __name__ == "__main__":
    main()
