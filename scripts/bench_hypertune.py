"""Speed of a search: two workers against one, idle workers, load of the chief, ASHA against random.

``python scripts/bench_hypertune.py --data-dir DIR [--only workers|idle|chief|asha]``; workers and asha train
on a dataset prepared as in the demo, the others need none. Numbers are ratios within one run.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import click
import psutil
from rich.console import Console
from rich.table import Table

from mlpf.config.loading import RESOLVED_FILE, load_config, write_resolved
from mlpf.config.schema import Config
from mlpf.config.search_space import search_section
from mlpf.tuning.objective import objective_value
from mlpf.tuning.options import TrialOptions
from mlpf.tuning.run_progress import read_history
from mlpf.tuning.state import SearchState, TrialRecord, ranked, read_search

REPO = Path(__file__).resolve().parent.parent
CONFIG = REPO / "parameters/clic-demo-hypertune.yaml"
MLPF = [sys.executable, "-m", "mlpf.pipeline"]


def search(config: Config, directory: Path, *options: str) -> tuple[SearchState, float]:
    """Run a search to its end; return its state and wall time in s. One that is finished is not repeated."""
    if (directory / "search" / RESOLVED_FILE).is_file() and read_search(directory / "search").finished:
        return read_search(directory / "search"), 0.0
    directory.mkdir(parents=True)
    write_resolved(config, directory / "config.yaml")
    command = [
        *MLPF,
        "hypertune",
        "-c",
        str(directory / "config.yaml"),
        "-o",
        str(directory / "search"),
        *options,
    ]
    started = time.monotonic()
    with (directory / "output.txt").open("wb") as output:
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        raise SystemExit(
            f"exit code {code}: {(directory / 'output.txt').read_text(encoding='utf-8')[-2000:]}"
        )
    return read_search(directory / "search"), time.monotonic() - started


def bench_workers(config: Config, folder: Path, options: list[str]) -> Table:
    """Time a fixed list of trials with one and with two workers of one core each."""
    fixed = config.with_overrides(
        {
            "setup.num_epochs": 4,
            "hypertune": config.model_dump(by_alias=True)["hypertune"]
            | {"algorithm": "random", "num_trials": 6, "confirm": {"top": 0}},
        }
    )
    table = Table("workers", "wall time", "ratio", title="six trials of four epochs, one core each")
    first = None
    for num_workers in (1, 2):
        state, seconds = search(
            fixed,
            folder / f"workers_{num_workers}",
            "--workers",
            str(num_workers),
            "--cpus-per-trial",
            "1",
            *options,
        )
        first = first or seconds
        done = sum(t.status == "completed" for t in state.trials)
        table.add_row(f"{num_workers} ({done} trials)", f"{seconds:.1f} s", f"{first / seconds:.2f}")
    return table


def bench_idle(config: Config, folder: Path, seconds: float = 30.0) -> Table:
    """Measure the CPU share of workers that wait for the last trial of another, and of the chief."""
    held = _HeldChief(config, folder / "idle")
    workers = [held.start_worker(f"idle-{i}") for i in range(4)]
    time.sleep(10.0)  # they start, ask, and wait ever longer
    processes = {"chief": psutil.Process(held.chief.pid)} | {
        f"idle worker {i}": psutil.Process(w.pid) for i, w in enumerate(workers)
    }
    before = {name: sum(p.cpu_times()[:2]) for name, p in processes.items()}
    time.sleep(seconds)
    table = Table("process", "share of a core", title=f"while one trial runs elsewhere, {seconds:.0f} s")
    for name, process in processes.items():
        table.add_row(name, f"{(sum(process.cpu_times()[:2]) - before[name]) / seconds:.2%}")
    held.end()
    codes = [worker.wait(60) for worker in workers]
    if any(codes):
        raise SystemExit(f"workers ended with {codes}, see {held.directory / 'chief.log'}")
    table.caption = f"exit codes afterwards: workers {codes}, chief {held.chief.wait(60)}"
    return table


def bench_chief(config: Config, folder: Path, num_workers: int = 50, seconds: float = 30.0) -> Table:
    """Let so many idle workers ask one chief; count what went wrong."""
    from mlpf.tuning.client import ChiefClient, RemoteOracle

    held = _HeldChief(config, folder / "chief")
    ends: list[str] = []

    def idle(name: str) -> None:
        try:
            client = ChiefClient(held.directory, name, "bench", name)
            client.call("hello")
            ends.append(RemoteOracle(client).create_trial(name).status)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is what we count)
            ends.append(repr(error))

    threads = [
        threading.Thread(target=idle, args=(f"simulated-{i}",), daemon=True) for i in range(num_workers)
    ]
    for thread in threads:
        thread.start()
    chief = psutil.Process(held.chief.pid)
    time.sleep(10.0)
    before = sum(chief.cpu_times()[:2])
    time.sleep(seconds)
    share = (sum(chief.cpu_times()[:2]) - before) / seconds
    early = len(ends)
    held.end()
    for thread in threads:
        thread.join(60)
    code = held.chief.wait(60)
    table = Table(
        "simulated idle workers", "left early or with an error", "told that it is over", "chief", "its exit"
    )
    bad = early + sum(end != "STOPPED" for end in ends[early:])
    table.add_row(str(num_workers), str(bad), str(ends.count("STOPPED")), f"{share:.2%} of a core", str(code))
    return table


class _HeldChief:
    """A chief whose only trial is held until ``end``."""

    def __init__(self, config: Config, directory: Path):
        from mlpf.tuning.client import ChiefClient

        section = config.model_dump(by_alias=True)["hypertune"]
        one = section | {
            "algorithm": "random",
            "num_trials": 1,
            "confirm": {"top": 0},
            "lease_seconds": 600.0,
        }
        directory.mkdir(parents=True)
        self.directory = directory
        write_resolved(config.with_overrides({"hypertune": one}), directory / RESOLVED_FILE)
        TrialOptions().write(directory)
        self._log = (directory / "chief.log").open("wb")
        self.chief = self._start("chief", str(directory), "--address", "127.0.0.1")
        self._client = ChiefClient(directory, "holder", "bench", "holder")
        self._client.call("hello")
        self._trial = self._client.call("create")["record"]["trial_id"]

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*MLPF, "hypertune", *arguments], stdout=self._log, stderr=subprocess.STDOUT)

    def start_worker(self, name: str) -> subprocess.Popen[bytes]:
        """Start a real worker, which will be idle."""
        return self._start("worker", str(self.directory), "--id", name, "--launcher", name)

    def end(self) -> None:
        """End the trial, and with it the search."""
        self._client.call(
            "end", trial=self._trial, status="FAILED", failure="end of the benchmark", kind="limit"
        )
        self._client.call("create")


def bench_asha(
    config: Config, folder: Path, options: list[str], seeds: tuple[int, ...], replayed: bool
) -> Table:
    """Compare the best of sixteen full trials with what ASHA finds among the same configurations."""
    config = config.with_overrides({"callbacks.physics.every": 0, "callbacks.tensorboard": False})
    section = config.model_dump(by_alias=True)["hypertune"] | {"confirm": {"top": 0}}
    table = Table(
        "seed", "factor", "random: best", "epochs", "ASHA: best", "epochs", "share", "the same trial"
    )
    for seed in seeds:
        full = section | {"algorithm": "random", "num_trials": 16, "seed": seed}
        random_folder = folder / f"random_{seed}"
        random_state, _ = search(config.with_overrides({"hypertune": full}), random_folder, *options)
        best, total = ranked(random_state.trials)[0], _epochs(random_state.trials)
        for factor in (2, 3):
            # The same sixteen configurations: the same seed draws them in the same order.
            asha = config.with_overrides(
                {"hypertune": full | {"algorithm": "asha", "factor": factor, "min_epochs": 1}}
            )
            name = folder / f"asha_{seed}_factor_{factor}"
            found = replay(asha, random_state) if replayed else search(asha, name, *options)[0].trials
            top, epochs = ranked(found)[0], _epochs(found)
            row = (f"{best.objective:.5g}", str(total), f"{top.objective:.5g}", str(epochs))
            same = "yes" if top.values == best.values else "no"
            table.add_row(str(seed), str(factor), *row, f"{epochs / total:.0%}", same)
    return table


def replay(config: Config, full: SearchState) -> list[TrialRecord]:
    """Let ASHA choose among the trainings of a random search: a rung is the beginning of one of them."""
    from mlpf.tuning.algorithms import build_oracle

    histories = {
        json.dumps(trial.values, sort_keys=True): read_history(full.directory, trial.run)
        for trial in full.trials
    }
    with tempfile.TemporaryDirectory() as folder:
        oracle = build_oracle(Path(folder), config)
        while (trial := oracle.create_trial("replay")).status != "STOPPED":
            record = oracle.records[trial.trial_id]
            history = histories[json.dumps(record.values, sort_keys=True)][: record.epochs]
            value, epoch = objective_value(search_section(config), history)
            metrics = {"objective": value}
            oracle.finish_trial("replay", trial.trial_id, "COMPLETED", metrics=metrics, best_epoch=epoch)
    return list(oracle.records.values())


def _epochs(trials: Iterable[TrialRecord]) -> int:
    return sum(t.epochs - t.initial_epoch for t in trials if t.purpose == "search")


@click.command()
@click.option("-c", "--config", "path", type=click.Path(path_type=Path), default=CONFIG, show_default=True)
@click.option("--data-dir", type=click.Path(path_type=Path), help="For workers and asha.")
@click.option("--only", type=click.Choice(["workers", "idle", "chief", "asha"]), multiple=True)
@click.option("--ntrain", default=500, show_default=True, help="Training events per dataset.")
@click.option(
    "--seed", "seeds", type=int, multiple=True, default=(1, 2, 3), show_default=True, help="Of asha."
)
@click.option(
    "--replay", "replayed", is_flag=True, help="asha: do not train what the random trials have trained."
)
@click.option("--workers", "num_workers", default=2, show_default=True, help="Workers of asha.")
@click.option("-o", "--outdir", type=click.Path(path_type=Path), help="Keep the searches here.")
def main(
    path: Path,
    data_dir: Path | None,
    only: tuple[str, ...],
    ntrain: int,
    seeds: tuple[int, ...],
    replayed: bool,
    num_workers: int,
    outdir: Path | None,
) -> None:
    """Measure searches."""
    wanted = only or ("workers", "idle", "chief", "asha")
    if data_dir is None and {"workers", "asha"} & set(wanted):
        raise click.UsageError("workers and asha train: give --data-dir, e.g. demo/tensorflow_datasets")
    config = load_config(path)
    if data_dir is not None:
        config = config.with_data_dir(str(data_dir.resolve()))
    options = ["--ntrain", str(ntrain)]
    console = Console()
    with tempfile.TemporaryDirectory() as temporary:
        folder = outdir or Path(temporary)
        if "workers" in wanted:
            console.print(bench_workers(config, folder, options))
        if "idle" in wanted:
            console.print(bench_idle(config, folder))
        if "chief" in wanted:
            console.print(bench_chief(config, folder))
        if "asha" in wanted:
            asha_options = [*options, "--workers", str(num_workers), "--cpus-per-trial", "1"]
            console.print(bench_asha(config, folder, asha_options, seeds, replayed))


if __name__ == "__main__":
    main()
