"""Search for hyperparameters: check the search, create the directory, run trials on an engine, report."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from mlpf.config.schema import Config
from mlpf.data.dataset.split import require_built
from mlpf.engine.base import Engine, Slot
from mlpf.engine.child import program_before
from mlpf.engine.opening import ENGINE_FOLDER, Placement, open_training_engine, training_slot
from mlpf.errors import MissingDependency, MLPFError, how_to_install
from mlpf.files.locking import locked
from mlpf.files.run_directory import LOCK_FILE
from mlpf.runs.status import recorded_status
from mlpf.search.directory import lay_out, require_empty, require_same
from mlpf.search.driver import Driver, SearchFailed
from mlpf.search.options import TrialOptions
from mlpf.search.state import LOGS_FOLDER, ORACLE_FILE, SearchState, read_search
from mlpf.training.loop.interruption import StopRequest, TrainingStopped

if TYPE_CHECKING:
    from mlpf.search.oracle import SearchOracle


@dataclass(frozen=True)
class Resources:
    """What a search may use, and for how long.

    Attributes:
        placement: where trials run. 0 workers = one per group of GPUs, or one without GPUs.
        gpus_per_trial: GPUs of each trial; None = as before, in a new search one if there are GPUs.
        cpus_per_trial: cores of each trial; None = an equal share.
        time_limit: seconds after ``started`` at which to save and stop; None = no limit.
        started: ``time.monotonic()`` at the start.
    """

    placement: Placement = field(default_factory=lambda: Placement(workers=0))
    gpus_per_trial: int | None = None
    cpus_per_trial: int | None = None
    time_limit: float | None = None
    started: float = field(default_factory=time.monotonic)

    def slot(self, before: TrialOptions | None = None) -> Slot:
        """Return what each trial may use.

        Args:
            before: options of the search that is resumed.

        Raises:
            ConfigError: more than there is, no such site, or one with too short pilot jobs.
        """
        gpus = self.gpus_per_trial
        if gpus is None and before is not None and before.devices > 1:
            gpus = before.devices
        return training_slot(self.placement, gpus, self.cpus_per_trial, "trial")

    def open(self, directory: Path, slot: Slot) -> Engine:
        """Start the engine, without retries: the search repeats lost trials itself.

        Args:
            directory: directory of the search.
            slot: what each trial may use.

        Raises:
            MissingDependency: a site, and the engine of clusters is not installed.
            EngineFailed: it cannot start.
        """
        run_dir = directory / ENGINE_FOLDER
        return open_training_engine(self.placement, run_dir, slot, self.cpus_per_trial, retries=0)


def run(
    config: Config,
    directory: Path,
    resources: Resources,
    *,
    resume: bool = False,
    ntrain: int | None = None,
    ntest: int | None = None,
    config_path: Path | None = None,
) -> None:
    """Search as ``config.hypertune`` describes.

    Args:
        config: the whole configuration; must be unchanged for ``resume``.
        directory: directory of the search, visible on all nodes; must be empty or absent unless ``resume``.
        resources: where trials run.
        resume: go on with the search in ``directory``.
        ntrain: most training events per dataset, for all trials.
        ntest: most validation events, for all trials.
        config_path: file that ``config`` was read from, for messages.

    Raises:
        ConfigError: there is no search, it cannot work or has changed, or there are too few GPUs or cores.
        DataError: a dataset is missing.
        OutputExists: ``directory`` is not empty, or another process is at work there.
        MissingDependency: keras-tuner or Parsl is not installed.
        EngineFailed: the engine cannot start, or has ended.
        NodeRefused: a worker cannot run trials.
        SearchFailed: no trial was completed, or the search gave up.
        TrainingStopped: the time limit was reached or a signal came. The state is saved.
    """
    console = Console()
    _check(config, config_path)
    stop = StopRequest(resources.time_limit, resources.started)
    before = None
    if resume:
        before = require_same(config, directory, {"ntrain": ntrain, "ntest": ntest}, resources.gpus_per_trial)
    else:
        require_empty(directory)
    slot = resources.slot(before)
    options = before or TrialOptions(ntrain, ntest, max(slot.num_gpus, 1))
    directory.mkdir(parents=True, exist_ok=True)
    with stop.signals(), locked(directory / LOCK_FILE, f"{directory}: search"):
        oracle = _oracle(config, directory)
        if oracle.finished:
            _tell_finished(directory, console)
            return
        with resources.open(directory, slot) as engine:
            lay_out(config, directory, options)
            (directory / LOGS_FOLDER).mkdir(exist_ok=True)
            driver = _driver(config, directory, oracle, engine, options, stop, console)
            _search(driver, oracle, engine, directory, console)


def _tell_finished(directory: Path, console: Console) -> None:
    _say(console)(f"{directory}: the search is finished; mlpf hypertune report writes its results again")
    _require_success(read_search(directory))


def _oracle(config: Config, directory: Path) -> "SearchOracle":
    """Return the state of a new or resumed search."""
    from mlpf.search.algorithms import build_oracle

    oracle = build_oracle(directory, config)
    if (directory / ORACLE_FILE).is_file():
        oracle.reload()
        oracle.resume()
    return oracle


def _driver(
    config: Config,
    directory: Path,
    oracle: "SearchOracle",
    engine: Engine,
    options: TrialOptions,
    stop: StopRequest,
    console: Console,
) -> Driver:
    from mlpf.search.live import LiveTable

    return Driver(
        oracle,
        engine,
        directory,
        config,
        program=program_before("hypertune"),
        arguments=options.arguments(),
        stop=stop,
        view=LiveTable(directory, console),
        say=_say(console),
    )


def _search(
    driver: Driver, oracle: "SearchOracle", engine: Engine, directory: Path, console: Console
) -> None:
    """Run the search and write its report, also after an error or a stop.

    Raises:
        TrainingStopped: the time limit was reached or a signal came.
    """
    try:
        with recorded_status(directory):
            with engine:  # ended before results are written
                reason = driver.run()
                if reason is not None:
                    done = sum(trial.status == "completed" for trial in oracle.records.values())
                    raise TrainingStopped(
                        f"{reason}, after {done} completed trials; everything is saved, continue with "
                        "--resume"
                    )
            _require_success(read_search(directory))
    except MLPFError as error:
        try:
            _report(directory, plots=not isinstance(error, TrainingStopped))
        except Exception as problem:  # noqa: BLE001 - must not replace the error of the search
            _say(console)(f"no report: {problem}")
        raise
    _report(directory, plots=True)


def _check(config: Config, path: Path | None) -> None:
    """Refuse what cannot work, before anything starts."""
    from mlpf.config.search.check import check_search
    from mlpf.config.search.space import search_section

    search_section(config)
    missing = [name for name in ("keras_tuner", "sklearn") if find_spec(name) is None]
    if missing:
        raise MissingDependency(
            f"{' and '.join(missing)}: not installed, needed for a search; {how_to_install('hypertune')}"
        )
    check_search(config, path)
    names = {config.validation_dataset: None}
    for group in config.train_test_datasets.values():
        names |= dict.fromkeys(group.datasets)
    for name in names:
        require_built(name, config.datasets[name])


def _require_success(state: SearchState) -> None:
    if state.problem:
        raise SearchFailed(
            f"{state.directory}: the search gave up: {state.problem}; fix the cause, continue with --resume"
        )
    if not any(trial.status == "completed" for trial in state.trials):
        reasons = sorted({t.failure for t in state.trials if t.failure})
        raise SearchFailed(
            f"{state.directory}: no trial was completed{': ' if reasons else ''}{'; '.join(reasons[:3])}"
        )


def _report(directory: Path, plots: bool) -> None:
    from mlpf.workflows.hypertune_report import run as report

    report(directory, plots=plots)


def _say(console: Console) -> Callable[[str], None]:
    def say(line: str) -> None:
        console.print(line, soft_wrap=True, highlight=False, markup=False)

    return say
