"""Speed of a search: two workers against one, idle workers, time to the first trial, ASHA against random.

``python scripts/bench_hypertune.py --data-dir DIR [--only workers|idle|start|asha]``; workers and asha train
on a dataset prepared as in the demo, the others need none. Numbers are ratios within one run.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import click
import psutil
from rich.console import Console
from rich.table import Table

from mlpf.config.loading import load_config, write_resolved
from mlpf.config.schema import Config
from mlpf.config.search.space import search_section
from mlpf.engine.end_with_parent import end_with_parent
from mlpf.errors import EXIT_FAILED, EXIT_STOPPED
from mlpf.files.run_directory import RESOLVED_CONFIG
from mlpf.search.objective import objective_value
from mlpf.search.results.run_progress import read_history
from mlpf.search.state import SearchState, TrialRecord, ranked, read_search

REPO = Path(__file__).resolve().parent.parent
CONFIG = REPO / "parameters/clic-demo-hypertune.yaml"
MLPF = [sys.executable, "-m", "mlpf.pipeline"]


def search(config: Config, directory: Path, *options: str) -> tuple[SearchState, float]:
    """Run a search to its end; return its state and wall time in s. One that is finished is not repeated."""
    if (directory / "search" / RESOLVED_CONFIG).is_file() and read_search(directory / "search").finished:
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


def bench_idle(config: Config, folder: Path, seconds: float = 30.0) -> list[Table]:
    """Measure the CPU share of a worker that has nothing to do, and of what else a search keeps running."""
    folder.mkdir(parents=True, exist_ok=True)
    site = folder / "site.yaml"
    site.write_text(
        "description: two cores of this machine\nprovider: local\ncores_per_node: 2\n", encoding="utf-8"
    )
    places = {
        "processes of this machine": ("--workers", "2"),
        "Parsl on this machine": ("--site", str(site)),
    }
    tables = []
    for number, (place, options) in enumerate(places.items()):
        search = _Waiting(config, folder / f"idle_{number}", *options, "--cpus-per-trial", "1")
        try:
            search.wait_for_a_trial()
            time.sleep(10.0)  # the other trial has ended, its worker waits
            before = {process: _cpu_seconds(process) for process in search.processes()}
            time.sleep(seconds)
            table = Table("process", "share of a core", title=f"{place}, one of two workers idle")
            for process, spent in before.items():
                table.add_row(_name(process), f"{(_cpu_seconds(process) - spent) / seconds:.2%}")
            tables.append(table)
        finally:
            search.end()
    return tables


def bench_start(config: Config, folder: Path, repetitions: int = 3) -> Table:
    """Time from the command to the first process of a trial."""
    table = Table("start", "s", title="until the first trial begins")
    for number in range(repetitions):
        search = _Waiting(config, folder / f"start_{number}", "--workers", "2", "--cpus-per-trial", "1")
        try:
            search.wait_for_a_trial()
            table.add_row(str(number + 1), f"{time.monotonic() - search.started:.1f}")
        finally:
            search.end()
    return table


class _Waiting:
    """A search of two trials: one fails at once, the other waits until ``end``. It needs no dataset.

    Args:
        config: of a search.
        directory: empty or absent.
        options: of the command.
    """

    def __init__(self, config: Config, directory: Path, *options: str):
        section = config.model_dump(by_alias=True)["hypertune"]
        one = section | {"algorithm": "random", "num_trials": 2, "confirm": {"top": 0}}
        directory.mkdir(parents=True)
        self._trial = directory / "trial.pid"
        write_resolved(config.with_overrides({"hypertune": one}), directory / "config.yaml")
        words = [sys.executable, __file__, "--waiting-trial", str(self._trial), "hypertune"]
        words += ["-c", str(directory / "config.yaml"), "-o", str(directory / "search"), *options]
        self.started = time.monotonic()
        with (directory / "output.txt").open("wb") as output:
            # Parsl's interchange changes its title, and would overwrite its variables with it.
            self._mark = {"MLPF_BENCH_SEARCH": str(directory)}
            self.driver = subprocess.Popen(
                words,
                env=os.environ | self._mark | {"SPT_NOENV": "1"},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._output = directory / "output.txt"

    def wait_for_a_trial(self) -> None:
        """Return as soon as the process of the trial has begun."""
        while not self._trial.exists():
            if self.driver.poll() is not None:
                raise SystemExit(f"no trial has begun: {self._output.read_text(encoding='utf-8')[-2000:]}")
            time.sleep(0.01)

    def processes(self) -> list[psutil.Process]:
        """Return the driver and all that it has started, but for the trial."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if self._mark.items() <= process.environ().items() and "trial" not in process.cmdline():
                    found.append(process)
        return found

    def end(self) -> None:
        """Stop the search."""
        if self.driver.poll() is None:
            self.driver.send_signal(signal.SIGTERM)
        self.driver.wait(120)


def _cpu_seconds(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:2]))


def _name(process: psutil.Process) -> str:
    """Return what a process is, and its number."""
    line = " ".join(process.cmdline())
    named = {
        "spawn_main": "worker",
        "resource_tracker": "resource tracker",
        "HTEX interchange": "interchange",
        "process_worker_pool": "manager",
        "mlpf.engine.parsl.pilot": "pilot",
        "--waiting-trial": "driver",
    }
    what = next((name for words, name in named.items() if words in line), line[:40])
    return f"{what} ({process.pid})"


def _run_with_waiting_trials(pid_file: Path) -> None:
    """Be ``mlpf hypertune``, whose second trial waits for a signal instead of training."""
    from mlpf.cli import main as command_line
    from mlpf.data.dataset import split as prepared

    if sys.argv[1:3] == ["hypertune", "trial"]:
        if sys.argv[4] == "0000":
            sys.exit(EXIT_FAILED)
        pid_file.write_text(str(os.getpid()), encoding="utf-8")
        end_with_parent()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_STOPPED))
        while True:
            signal.pause()
    prepared.require_built = lambda *_: None
    command_line()


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
    from mlpf.search.algorithms import build_oracle

    histories = {
        json.dumps(trial.values, sort_keys=True): read_history(full.directory, trial.run)
        for trial in full.trials
    }
    with tempfile.TemporaryDirectory() as folder:
        oracle = build_oracle(Path(folder), config)
        while (record := oracle.next_trial()) is not None:
            history = histories[json.dumps(record.values, sort_keys=True)][: record.epochs]
            value, epoch = objective_value(search_section(config), history)
            oracle.complete(record.trial_id, value, epoch, {}, seconds=0.0)
    return list(oracle.records.values())


def _epochs(trials: Iterable[TrialRecord]) -> int:
    return sum(t.epochs - t.initial_epoch for t in trials if t.purpose == "search")


@click.command()
@click.option("-c", "--config", "path", type=click.Path(path_type=Path), default=CONFIG, show_default=True)
@click.option("--data-dir", type=click.Path(path_type=Path), help="For workers and asha.")
@click.option("--only", type=click.Choice(["workers", "idle", "start", "asha"]), multiple=True)
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
    wanted = only or ("workers", "idle", "start", "asha")
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
            console.print(*bench_idle(config, folder))
        if "start" in wanted:
            console.print(bench_start(config, folder))
        if "asha" in wanted:
            asha_options = [*options, "--workers", str(num_workers), "--cpus-per-trial", "1"]
            console.print(bench_asha(config, folder, asha_options, seeds, replayed))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--waiting-trial"]:
        waiting_file = Path(sys.argv[2])
        del sys.argv[1:3]
        _run_with_waiting_trials(waiting_file)
    main()
