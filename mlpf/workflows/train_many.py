"""Train an ensemble: check all trainings, create the directory, run them on an engine, report."""

import os
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from mlpf.config.loading import load_config, write_resolved
from mlpf.config.schema import Config
from mlpf.data.dataset.split import require_built
from mlpf.engine.base import Engine, Slot
from mlpf.engine.child import announce_driver, ask_all_to_stop, program_before
from mlpf.engine.opening import ENGINE_FOLDER, Placement, open_training_engine, training_slot
from mlpf.ensemble.driver import Driver, read_states, resting
from mlpf.ensemble.plan import Member, Plan, changes, configurations, read_plan
from mlpf.ensemble.results import member_result, spreads, write_results
from mlpf.ensemble.state import LOGS_FOLDER, RUNS_FOLDER, STATES_FOLDER, MemberFiles, MemberState, read_state
from mlpf.ensemble.table import Row
from mlpf.ensemble.tables import LiveTable, failures, result_table, spread_table
from mlpf.ensemble.task import MemberTask
from mlpf.errors import ConfigError, MLPFError
from mlpf.files.locking import is_locked, locked
from mlpf.files.run_directory import LOCK_FILE, RESOLVED_CONFIG
from mlpf.runs.status import recorded_status
from mlpf.search.directory import require_empty
from mlpf.training.loop.interruption import StopRequest, TrainingStopped

COMMAND = "train-many"

_MOST_NAMED = 3


class EnsembleIncomplete(MLPFError):
    """All trainings have ended, but some of them failed."""

    exit_code = 1
    label = "failed"


@dataclass(frozen=True)
class Resources:
    """Where the trainings run, how long, and how often they are repeated.

    Attributes:
        placement: where the trainings run.
        gpus: GPUs of a training; None = as before, in a new ensemble one if there are GPUs.
        cpus: cores of a training; None = an equal share.
        max_retries: how often a training is repeated after a crash.
        max_losses: how often a training is repeated after the loss of its worker.
        max_seconds: maximum wall time of a training, all attempts together, s; None = no limit.
        time_limit: seconds after ``started`` at which to save and stop; None = no limit.
        started: ``time.monotonic()`` at the start.
    """

    placement: Placement = field(default_factory=lambda: Placement(workers=0))
    gpus: int | None = None
    cpus: int | None = None
    max_retries: int = 2
    max_losses: int = 3
    max_seconds: float | None = None
    time_limit: float | None = None
    started: float = field(default_factory=time.monotonic)

    def slot(self, devices: int) -> Slot:
        """Return what each training may use.

        Args:
            devices: GPUs of a training when the ensemble was started; 1 = one GPU or none.

        Raises:
            ConfigError: more than there is, or no such site.
        """
        gpus = devices if self.gpus is None and devices > 1 else self.gpus
        return training_slot(self.placement, gpus, self.cpus, "training")

    def open(self, slot: Slot, directory: Path) -> Engine:
        """Start the engine. Raises the errors of ``open_engine``."""
        return open_training_engine(
            self.placement, directory / ENGINE_FOLDER, slot, self.cpus, self.max_losses
        )


def run(
    config: Config,
    directory: Path,
    resources: Resources,
    *,
    rows: list[Row] | None = None,
    seeds: list[int] | None = None,
    ntrain: int | None = None,
    ntest: int | None = None,
    resume: bool = False,
    retry_failed: bool = False,
) -> None:
    """Train every row with every seed, and report.

    Args:
        config: the configuration that the rows change; must be unchanged for ``resume``.
        directory: directory of the ensemble; must be empty or absent unless ``resume``.
        resources: engine and limits.
        rows: rows of the table; None = as before, in a new ensemble only the configuration itself.
        seeds: None = as before, in a new ensemble those of the configurations.
        ntrain: maximum of training events per dataset; None = as before, in a new ensemble all.
        ntest: maximum of validation events; None as for ``ntrain``.
        resume: continue the ensemble in ``directory``; rows and seeds may be added.
        retry_failed: with ``resume``: repeat trainings that failed.

    Raises:
        ConfigError: a configuration is invalid, settings have changed, or there are too few GPUs or cores.
        DataError: a dataset is missing.
        OutputExists: ``directory`` is not empty, or another process is at work there.
        EnsembleIncomplete: some trainings failed. All others are completed.
        TrainingStopped: the time limit was reached or a signal came. The state is saved.
    """
    before = read_plan(directory) if resume else Plan([Row()])
    slot = resources.slot(before.devices)
    given = {"rows": rows, "seeds": seeds, "ntrain": ntrain, "ntest": ntest}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    plan = replace(before, devices=max(slot.num_gpus, 1), **chosen)
    ensemble = _checked(directory, config, plan)
    _require_data(ensemble.configs)
    if resume:
        _require_same(directory, (load_config(directory / RESOLVED_CONFIG), before), (config, plan))
    else:
        require_empty(directory)
    stop = StopRequest(resources.time_limit, resources.started)
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory / LOCK_FILE, f"{directory}: {COMMAND}"):
        ensemble.lay_out(config)
        states = ensemble.states(retry_failed)
        try:
            with stop.signals(), recorded_status(directory):
                _train(ensemble, states, resources, slot, stop)
                _require_completed(states, directory)
        finally:
            ensemble.report(states)


@dataclass(frozen=True)
class _Ensemble:
    """The checked trainings of an ensemble.

    Attributes:
        directory: directory of the ensemble.
        plan: rows, seeds and limits.
        members: the trainings.
        configs: name -> configuration.
        console: output.
    """

    directory: Path
    plan: Plan
    members: list[Member]
    configs: dict[str, Config]
    console: Console

    def lay_out(self, config: Config) -> None:
        """Create folders, configuration and plan."""
        for folder in (RUNS_FOLDER, STATES_FOLDER, LOGS_FOLDER):
            (self.directory / folder).mkdir(exist_ok=True)
        write_resolved(config, self.directory / RESOLVED_CONFIG)
        self.plan.write(self.directory)

    def states(self, retry_failed: bool) -> dict[str, MemberState]:
        """Return name -> state of the training, while no training runs.

        Args:
            retry_failed: set failed trainings to waiting.
        """
        states = read_states(self.directory, list(self.configs))
        for name, state in states.items():
            if retry_failed and state.state == "failed":
                state.begin_again()
                state.write(MemberFiles(self.directory, name))
        return states

    def report(self, states: Mapping[str, MemberState]) -> None:
        """Write the tables and print them."""
        results = [
            member_result(
                member,
                self.configs[member.name],
                MemberFiles(self.directory, member.name),
                states[member.name],
            )
            for member in self.members
        ]
        write_results(self.directory, results)
        self.console.print(result_table(results))
        found = spreads(results)
        if found:
            self.console.print(spread_table(found))


def _checked(directory: Path, config: Config, plan: Plan) -> _Ensemble:
    """Return the ensemble. Raises ConfigError with all problems."""
    members = plan.members()
    return _Ensemble(directory, plan, members, configurations(members, config), Console())


def _train(
    ensemble: _Ensemble,
    states: dict[str, MemberState],
    resources: Resources,
    slot: Slot,
    stop: StopRequest,
) -> None:
    """Run the trainings that wait.

    Raises:
        TrainingStopped: the time limit was reached or a signal came.
    """
    if all(state.state != "waiting" for state in states.values()):
        return
    root = ensemble.directory.resolve()
    driver_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    words = [*(program_before(COMMAND)), COMMAND, "member", str(root)]
    options = ["--num-cpus", str(slot.num_cpus), *ensemble.plan.arguments()]

    def task_of(name: str) -> MemberTask:
        command = [*words, name, *options]
        return MemberTask(root, name, command, driver_id, resources.max_retries, resources.max_seconds)

    driver = Driver(root, states, task_of)
    live = LiveTable(root, ensemble.configs, states, lambda: driver.given, ensemble.console)
    announce_driver(root, driver_id)
    try:
        with resources.open(slot, root) as engine:
            reason = driver.run(engine, lambda: stop.reason, live.update)
            if reason is not None:
                done = sum(state.state == "completed" for state in states.values())
                raise TrainingStopped(
                    f"{reason}, after {done} of {len(states)} trainings; everything is saved, continue with "
                    f"mlpf {COMMAND} --resume -o {ensemble.directory}"
                )
    finally:
        ask_all_to_stop(root)
        live.close()


def report(directory: Path) -> None:
    """Write the tables of an ensemble again and print them, also while it trains.

    Raises:
        CheckpointError: not the directory of an ensemble.
    """
    plan = read_plan(directory)
    ensemble = _checked(directory, load_config(directory / RESOLVED_CONFIG), plan)
    states = {name: read_state(MemberFiles(directory, name)) for name in ensemble.configs}
    if not is_locked(directory / LOCK_FILE):  # no driver runs
        states = {name: resting(state) for name, state in states.items()}
    ensemble.report(states)


def _require_data(configs: Mapping[str, Config]) -> None:
    """Refuse datasets that are not built, before any training starts."""
    sources = {}
    for config in configs.values():
        names = [name for group in config.train_test_datasets.values() for name in group.datasets]
        for name in (config.validation_dataset, *names):
            source = config.datasets[name]
            sources[name, source.data_dir, source.version] = (name, source)
    for name, source in sources.values():
        require_built(name, source)


def _require_same(directory: Path, old: tuple[Config, Plan], new: tuple[Config, Plan]) -> None:
    """Refuse to resume an ensemble with other settings. Rows and seeds may be added."""
    lines = changes(old, new)
    if lines:
        raise ConfigError(
            "\n".join(
                [
                    f"{directory}: an ensemble cannot be resumed with other settings, only with more seeds "
                    "or rows; these differ (before -> now). Change them back, leave out -c, --seeds and "
                    "--table, or choose another directory",
                    *lines,
                ]
            )
        )


def _require_completed(states: Mapping[str, MemberState], directory: Path) -> None:
    failed = {name: state for name, state in states.items() if state.state == "failed"}
    if not failed:
        return
    lines = [f"{name}: {state.kind}: {state.reason}" for name, state in failed.items()][:_MOST_NAMED]
    raise EnsembleIncomplete(
        "\n".join(
            [
                *lines,
                f"{failures(list(failed.values()))} of {len(states)} trainings failed; see "
                f"{directory / LOGS_FOLDER}; try them again with mlpf {COMMAND} --resume --retry-failed "
                f"-o {directory}",
            ]
        )
    )
