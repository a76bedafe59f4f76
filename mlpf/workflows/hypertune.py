"""Search for hyperparameters: check, lay out the directory, run chief and workers, report."""

import ipaddress
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from mlpf.config.loading import RESOLVED_FILE
from mlpf.config.schema import Config
from mlpf.data.prepared import require_built
from mlpf.engine.device_groups import DeviceGroup, device_groups
from mlpf.errors import CheckpointError, ConfigError, MissingDependency, MLPFError
from mlpf.locking import locked
from mlpf.training.guard import StopRequest, TrainingStopped
from mlpf.tuning.directory import LOCK_FILE, claim_name, lay_out, require_empty, require_same
from mlpf.tuning.launcher import ChiefPlace, Launcher, SearchFailed, read_chief
from mlpf.tuning.options import TrialOptions, read_options
from mlpf.tuning.processes import Patience
from mlpf.tuning.state import CHIEF_FILE, SearchState, read_search
from mlpf.workflows.run_status import STATUS_FILE, recorded_status

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Node:
    """What this machine gives to a search, and for how long.

    Attributes:
        workers: worker processes; None = one per group of GPUs, one without GPUs.
        gpus_per_trial: GPUs of each; None = as before, in a new search one where there are GPUs.
        cpus_per_trial: cores of each; None = an equal share.
        name: first part of the ids of the workers; None = that of the machine.
        time_limit: seconds after which to stop; None = no limit.
        started: ``time.monotonic()`` of the beginning of that time.
        program: how to start this program; None = as this process was.
        patience: how long and how often.
    """

    workers: int | None = None
    gpus_per_trial: int | None = None
    cpus_per_trial: int | None = None
    name: str | None = None
    time_limit: float | None = None
    started: float = field(default_factory=time.monotonic)
    program: Sequence[str] | None = None
    patience: Patience = field(default_factory=Patience)

    def groups(self, before: TrialOptions | None = None) -> list[DeviceGroup]:
        """Return what each worker may use.

        Args:
            before: options of the search that is resumed or joined.

        Raises:
            ConfigError: more than there is, or a name that cannot be one.
        """
        if self.name is not None and (not _NAME.fullmatch(self.name) or "chief" in self.name.lower()):
            raise ConfigError(
                f"--name {self.name}: expected letters, digits, '.', '_' and '-', without the word chief"
            )
        gpus = self.gpus_per_trial
        if gpus is None and before is not None and before.devices > 1:
            gpus = before.devices
        return device_groups(self.workers, gpus, self.cpus_per_trial)


def run(
    config: Config,
    directory: Path,
    node: Node,
    *,
    place: ChiefPlace,
    resume: bool = False,
    ntrain: int | None = None,
    ntest: int | None = None,
) -> None:
    """Search as ``config.hypertune`` describes, with the chief and some workers on this machine.

    Args:
        config: the whole configuration; of a search to be resumed, equal to that of before.
        directory: of the search; must be empty or absent unless ``resume``.
        node: workers of this machine.
        place: where the chief listens.
        resume: go on with the search in ``directory``.
        ntrain: most training events per dataset, for all trials.
        ntest: most validation events, for all trials.

    Raises:
        ConfigError: no search, one that cannot work or differs from before, or too many GPUs or cores.
        DataError: a dataset is not there.
        OutputExists: ``directory`` is not empty, or another process is at work there.
        MissingDependency: keras-tuner is not installed.
        SearchFailed: no trial was completed, or processes die again and again.
        TrainingStopped: the time limit is over or a signal came; all is saved.
    """
    console = Console()
    say = _say(console)
    _check(config)
    stop = StopRequest(node.time_limit, node.started)
    if resume:
        options = require_same(config, directory, {"ntrain": ntrain, "ntest": ntest}, node.gpus_per_trial)
        groups = node.groups(options)
    else:
        require_empty(directory)
        groups = node.groups()
        options = TrialOptions(ntrain, ntest, max(groups[0].num_gpus, 1))
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(locked(directory / LOCK_FILE, f"{directory}: search"))
        name = claim_name(node.name, directory, stack)
        if resume and _is_over(read_search(directory)):
            say(f"{directory}: the search is finished; mlpf hypertune report writes its results again")
            _require_success(read_search(directory))
            return
        lay_out(config, directory, options)
        (directory / CHIEF_FILE).unlink(missing_ok=True)  # of a chief that is gone: those who join must wait
        say(_warning(place.address))
        launcher = _launcher(directory, name, groups, node, console, place=place)
        _search(launcher, directory, stop, console)


def _search(launcher: Launcher, directory: Path, stop: StopRequest, console: Console) -> None:
    """Search, and report whatever came of it."""
    try:
        with stop.signals(), recorded_status(directory):
            _run(launcher, directory, stop, console)
            _require_success(read_search(directory))
    except MLPFError as error:
        try:
            _report(directory, plots=not isinstance(error, TrainingStopped))
        except Exception as problem:  # noqa: BLE001 - exit code and message are those of the search
            _say(console)(f"no report: {problem}")
        raise
    _report(directory, plots=True)


def join(directory: Path, node: Node, chief_at: str | None = None) -> None:
    """Add the workers of this machine to a search that another one has started.

    Args:
        directory: of the search, on a file system that both see.
        node: workers of this machine.
        chief_at: ``HOST:PORT`` of the chief; None = as its file in ``directory`` says.

    Raises:
        ConfigError: more GPUs or cores than there are, or a chief that cannot be reached from here.
        CheckpointError: nobody started a search in ``directory``.
        SearchFailed: the search failed, or the workers die again and again.
        TrainingStopped: the time limit is over, a signal came, or the search was stopped.
    """
    console = Console()
    stop = StopRequest(node.time_limit, node.started)
    since = time.time()
    with ExitStack() as stack:
        stack.enter_context(stop.signals())
        _wait_for_chief(directory, stop, node.patience.listen, console)
        if _ended(directory):
            _say(console)(f"{directory}: the search is finished")
            return
        _require_reachable(directory, chief_at)
        groups = _groups_of_joined(directory, node)
        name = claim_name(node.name, directory, stack)
        launcher = _launcher(
            directory,
            name,
            groups,
            node,
            console,
            chief_at=chief_at,
            ended_elsewhere=_Elsewhere(directory, since),
        )
        _run(launcher, directory, stop, console)
    state, reason = _status(directory, since)
    if state == "stopped":
        raise TrainingStopped(f"the search was stopped: {reason}")
    if state == "failed":
        raise SearchFailed(f"the search failed: {reason}")


def _groups_of_joined(directory: Path, node: Node) -> list[DeviceGroup]:
    """Return what each worker may use; trials have as many devices as those on the other nodes."""
    options = read_options(directory)
    groups = node.groups(options)
    if max(groups[0].num_gpus, 1) != options.devices:
        raise ConfigError(
            f"--gpus-per-trial {groups[0].num_gpus}: the trials of {directory} have {options.devices} GPUs "
            "each, and a batch grows with them; leave it out"
        )
    return groups


def _check(config: Config) -> None:
    """Refuse what cannot work, before anything starts."""
    from mlpf.config.search_space import check_search, search_section

    search_section(config)
    missing = [name for name in ("keras_tuner", "sklearn") if find_spec(name) is None]
    if missing:
        raise MissingDependency(
            f"{' and '.join(missing)}: not installed, needed for a search; pip install 'mlpf[hypertune]'"
        )
    check_search(config)
    names = {config.validation_dataset: None}
    for group in config.train_test_datasets.values():
        names |= dict.fromkeys(group.datasets)
    for name in names:
        require_built(name, config.datasets[name])


def _launcher(
    directory: Path,
    name: str,
    groups: Sequence[DeviceGroup],
    node: Node,
    console: Console,
    *,
    place: ChiefPlace | None = None,
    chief_at: str | None = None,
    ended_elsewhere: Callable[[], bool] = lambda: False,
) -> Launcher:
    return Launcher(
        directory,
        [f"{name}-{i}" for i in range(len(groups))],
        groups,
        uid=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
        say=_say(console),
        place=place,
        chief_at=chief_at,
        ended_elsewhere=ended_elsewhere,
        program=node.program,
        patience=node.patience,
    )


def _run(launcher: Launcher, directory: Path, stop: StopRequest, console: Console) -> None:
    """Run the processes until the search is over.

    Raises:
        TrainingStopped: somebody or the time limit asked for it.
    """
    from mlpf.tuning.live import LiveTable

    reason = launcher.run(stop, LiveTable(directory, console))
    if reason is not None:
        done = sum(trial.status == "completed" for trial in read_search(directory).trials)
        raise TrainingStopped(
            f"{reason}, after {done} completed trials; everything is saved, continue with --resume"
        )


def _is_over(state: SearchState) -> bool:
    """Return whether nothing is left to do; whether one that gave up may go on, its chief decides."""
    return state.finished and not state.problem


def _require_success(state: SearchState) -> None:
    if state.problem:
        raise SearchFailed(f"{state.directory}: the search gave up: {state.problem}")
    if not state.finished:
        raise SearchFailed(
            f"{state.directory}: all processes ended, but trials are left; see logs, go on with --resume"
        )
    if not any(trial.status == "completed" for trial in state.trials):
        reasons = sorted({t.failure for t in state.trials if t.failure})
        raise SearchFailed(
            f"{state.directory}: no trial was completed{': ' if reasons else ''}{'; '.join(reasons[:3])}"
        )


def _ended(directory: Path) -> bool:
    return _is_over(read_search(directory))


def _report(directory: Path, plots: bool) -> None:
    from mlpf.workflows.hypertune_report import run as report

    report(directory, plots=plots)


def _say(console: Console) -> Callable[[str], None]:
    def say(line: str) -> None:
        console.print(line, soft_wrap=True, highlight=False, markup=False)

    return say


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _warning(address: str) -> str:
    if _is_loopback(address):
        return (
            f"the chief listens on {address}, not encrypted: users of this machine who can read chief.json "
            "can drive the search"
        )
    return (
        f"warning: the chief listens on {address}, not encrypted: whoever sees the network, or can read "
        "chief.json, can drive the search and so run trials as you; use it in a network that you trust"
    )


def _wait_for_chief(directory: Path, stop: StopRequest, seconds: float, console: Console) -> None:
    """Wait for whoever starts the search: the jobs of an allocation begin in any order."""
    deadline, told = time.monotonic() + seconds, False
    while not ((directory / RESOLVED_FILE).is_file() and (read_chief(directory) or _ended(directory))):
        if stop.reason is not None:
            raise TrainingStopped(f"{stop.reason}, before a search began in {directory}")
        if time.monotonic() > deadline:
            raise CheckpointError(
                f"{directory}: no search after {seconds:g} s; start it first, in the same directory, with "
                "mlpf hypertune -c CONFIG -o DIR"
            )
        if not told:
            _say(console)(f"{directory}: waiting for the chief")
            told = True
        time.sleep(_LOOK_SECONDS)


def _require_reachable(directory: Path, chief_at: str | None) -> None:
    """Refuse a chief that listens on its own machine only, which is another one."""
    address = str(read_chief(directory).get("address", ""))
    try:
        host = json.loads((directory / LOCK_FILE).read_text())["host"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    wanted = chief_at.rpartition(":")[0].strip("[]") if chief_at else address
    if host != socket.gethostname() and _is_loopback(wanted):
        raise ConfigError(
            f"the chief listens on {wanted} of {host} only, and this is {socket.gethostname()}; start the "
            f"search with --address and a name or number of {host} in the network"
        )


class _Elsewhere:
    """Whether a search of another machine has ended since we joined it; looks from time to time."""

    def __init__(self, directory: Path, since: float):
        self._directory, self._since = directory, since
        self._next = 0.0

    def __call__(self) -> bool:
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + _LOOK_SECONDS
        return _status(self._directory, self._since)[0] in ("stopped", "failed", "finished")


def _status(directory: Path, since: float) -> tuple[str, str]:
    """Return state and reason of a search, empty if it was written before ``since`` (Unix time)."""
    try:
        data = json.loads((directory / STATUS_FILE).read_text())
        return (str(data["state"]), str(data["reason"])) if data["time"] > since else ("", "")
    except (OSError, ValueError, KeyError, TypeError):
        return "", ""
