"""Train a model and write a run directory."""

import math
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mlpf.config.loading import resolved_text
from mlpf.config.schema import Config
from mlpf.data.dataset.split import data_errors
from mlpf.data.feeding.batch_loader import BatchLoader
from mlpf.errors import OutputExists
from mlpf.files.locking import locked, require_unlocked
from mlpf.files.run_directory import RunDirectory
from mlpf.runs.changes import Changes, find_changes, recorded_limits
from mlpf.runs.data import build_loaders
from mlpf.runs.description import kept_description, write_description
from mlpf.runs.divergence import saved_batch
from mlpf.runs.early_stopping import StopCriterion
from mlpf.runs.hooks import check_callbacks, training_hooks
from mlpf.runs.resuming import latest_checkpoint, restore, start_from
from mlpf.runs.setup import build_trainer, num_updates, prepare_process, rate_line, warm_up_problem
from mlpf.runs.status import recorded_status
from mlpf.training.checkpoints.run_state import EpochRecord, RunState
from mlpf.training.checkpoints.store import CheckpointStore, best_epoch, find_checkpoint
from mlpf.training.loop.distribution import Distribution, build_distribution, lost_processes
from mlpf.training.loop.hooks import TrainingDiverged
from mlpf.training.loop.horovod import join_processes
from mlpf.training.loop.interruption import SavePolicy, StopRequest, TrainingStopped
from mlpf.training.loop.trainer import Trainer
from mlpf.training.monitors.history_writer import HistoryWriter
from mlpf.training.monitors.progress import TerminalProgress


@dataclass(frozen=True)
class TrainingSummary:
    """Result of a training.

    Attributes:
        run_dir: run directory.
        history: one record per epoch.
        best_epoch: epoch, counted from 1, with the smallest value of ``monitor``.
        monitor: metric that ranks checkpoints.
        seconds: wall time of this call, s.
        end_reason: why there are fewer than ``setup.num_epochs`` epochs; empty if there are not.
    """

    run_dir: Path
    history: list[EpochRecord]
    best_epoch: int
    monitor: str
    seconds: float
    end_reason: str = ""


def run(
    config: Config,
    run_dir: Path,
    *,
    ntrain: int | None = None,
    ntest: int | None = None,
    weights: Path | None = None,
    partial: bool = False,
    resume: bool = False,
    num_cpus: int | None = None,
    habana_enabled: bool = False,
    horovod: bool = False,
    time_limit: float | None = None,
    started: float | None = None,
    stop_after: int | None = None,
    place_of: Callable[[str], str] = str,
) -> TrainingSummary:
    """Train as ``config`` describes; nothing is written before everything is checked.

    Args:
        config: the whole configuration.
        run_dir: directory of the run; must be empty or absent unless ``resume``.
        ntrain: maximum of training events per dataset.
        ntest: maximum of validation events.
        weights: start from the weights of this run directory (its best checkpoint), checkpoint or file.
        partial: only load weights that fit, and print which.
        resume: continue after the latest checkpoint of ``run_dir``.
        num_cpus: threads; None = all cores.
        habana_enabled: train on Habana Gaudi.
        horovod: this is one of the processes that ``horovodrun`` or ``srun`` started; the first one writes.
        time_limit: seconds after which to save and stop.
        started: ``time.monotonic()`` of the beginning of that time; None = now.
        stop_after: end in order after this epoch, from 1; schedules still stretch over ``setup.num_epochs``.
        place_of: says where the value of a key of ``config`` is given, for messages.

    Raises:
        OutputExists: ``run_dir`` is not empty, or another process trains there.
        CheckpointError: a checkpoint is missing, damaged or of another model.
        DataError: a dataset cannot be read or has no events.
        ConfigError: a callback cannot work, or ``stop_after`` is beyond the last epoch.
        MissingDependency: Horovod, Comet or the plug-in of Gaudi is missing.
        TrainingDiverged: the loss is NaN or infinite.
        TrainingStopped: the time limit was reached or a signal came. The state is saved.
        ProcessLost: another rank ended.
    """
    stop = StopRequest(time_limit, started := started or time.monotonic())
    check_callbacks(config)
    stop_criterion = StopCriterion(config, stop_after)
    processes = join_processes() if horovod else None
    first = processes is None or processes.rank == 0
    _require_free(run_dir, resume, first)
    console = Console(quiet=not first)
    prepare_process(config, num_cpus, habana_enabled, console)
    if processes is not None:
        console.print(f"processes: {processes.places()}", highlight=False, soft_wrap=True)
    distribution = build_distribution(config.setup.jit_compile, processes)
    limits = _limits(run_dir, resume, ntrain=ntrain, ntest=ntest)
    training = _Training(config, run_dir, distribution, console, limits, stop_criterion, place_of)
    with lost_processes():
        return _summary(training, training.run(stop, resume, weights, partial), time.monotonic() - started)


def _limits(run_dir: Path, resume: bool, **given: int | None) -> dict[str, int | None]:
    """Return the event limits. A resumed run keeps its limits unless others are given."""
    recorded = recorded_limits(run_dir) if resume else {}
    return {name: limit or recorded.get(name) for name, limit in given.items()}


def _summary(training: "_Training", history: list[EpochRecord], seconds: float) -> TrainingSummary:
    """Print and return the result of a training."""
    monitor = training.config.callbacks.checkpoint.monitor
    best, reason = best_epoch(history, monitor), training.stop_criterion.reason(history)
    summary = TrainingSummary(training.run_dir, history, best, monitor, seconds, reason)
    training.console.print(_summary_table(summary))
    return summary


@dataclass(frozen=True)
class _Training:
    """Settings of a training, before data and model are loaded.

    Attributes:
        config: the whole configuration.
        run_dir: run directory.
        distribution: devices.
        console: of this process.
        limits: most events, ``ntrain`` and ``ntest``.
        stop_criterion: when it is over.
        place_of: says where the value of a key is given.
    """

    config: Config
    run_dir: Path
    distribution: Distribution
    console: Console
    limits: dict[str, int | None]
    stop_criterion: StopCriterion
    place_of: Callable[[str], str]

    def run(self, stop: StopRequest, resume: bool, weights: Path | None, partial: bool) -> list[EpochRecord]:
        """Train until the end or a stop; return the history."""
        try:
            with ExitStack() as stack:
                stack.enter_context(stop.signals())
                return self._train(stack, stop, resume, weights, partial)
        except (TrainingStopped, TrainingDiverged) as error:
            # Wait until rank 0 has written everything: when one rank ends, the launcher ends all.
            self.distribution.largest(0)
            if self.distribution.rank:
                error.args = ("",)  # only rank 0 prints the message
            raise

    def _train(
        self, stack: ExitStack, stop: StopRequest, resume: bool, weights: Path | None, partial: bool
    ) -> list[EpochRecord]:
        """Build data and model, load the checkpoint of a resumed run, train."""
        config, run_dir, distribution, console = self.config, self.run_dir, self.distribution, self.console
        first, section = distribution.rank == 0, config.callbacks.checkpoint
        stack.enter_context(data_errors())
        ranks = (distribution.rank, distribution.num_processes)
        train, valid = build_loaders(config, distribution.num_replicas, **self.limits, ranks=ranks)
        checkpoint = latest_checkpoint(run_dir, console) if resume else None
        # Only rank 0 fits the normalisation. It is broadcast below.
        trainer = build_trainer(config, distribution, train, fit=first and checkpoint is None)
        state, changes = self._state(trainer, train, checkpoint)
        if weights is not None:
            start_from(weights, trainer.model, config, partial, console)
        finished = self._claim(stack, checkpoint)
        if checkpoint is not None and (done := self.stop_criterion.nothing_left(state.history, run_dir)):
            console.print(done + changes.not_kept(), highlight=False, soft_wrap=True)
            if first:  # it may have been killed before it wrote the record of its last epoch
                HistoryWriter(RunDirectory(run_dir).history)(state.history)
            finished(self.stop_criterion.reason(state.history))
            return state.history
        if first:
            before = _progress(state)
            stack.enter_context(kept_description(run_dir, lambda: _progress(state) != before))
            write_description(config, run_dir, self.limits, changes.record())
        distribution.broadcast([*trainer.model.weights, *trainer.optimizer.variables])
        model, optimizer, text = trainer.model, trainer.optimizer, resolved_text(config)
        store = CheckpointStore(run_dir, section, model, optimizer, trainer.random_states.read, text, first)
        if first:
            if state.history:  # the run may have been killed after the checkpoint, before this file
                HistoryWriter(RunDirectory(run_dir).history)(state.history)
            stack.enter_context(saved_batch(config, run_dir, trainer, train))
        hooks = stack.enter_context(
            training_hooks(
                config,
                run_dir,
                trainer,
                valid.pool,
                console,
                lambda _: store.save(state),
                self.stop_criterion,
                first,
            )
        )
        history = trainer.fit(
            train,
            valid,
            self.stop_criterion.until,
            state=state,
            on_epoch_end=hooks.epoch,
            on_step=hooks.step,
            save_policy=SavePolicy(store.save, stop, section.every_minutes, section.every_steps),
            progress=stack.enter_context(closing(TerminalProgress(console))),
            is_over=self.stop_criterion.is_over,
        )
        finished(self.stop_criterion.reason(history))
        return history

    def _state(
        self, trainer: Trainer, train: BatchLoader, checkpoint: Path | None
    ) -> tuple[RunState, Changes]:
        """Return where the training begins, and what has changed since it was there; writes nothing."""
        config, updates = self.config, num_updates(self.config, train)
        if problem := warm_up_problem(config, updates):
            self.console.print(problem, style="yellow", highlight=False, soft_wrap=True)
        if checkpoint is None:
            return RunState(), Changes(self.run_dir)
        changes = find_changes(self.run_dir, checkpoint, config, self.limits, self.place_of)
        state = restore(trainer, train, checkpoint, changes, self.console)
        if not self.stop_criterion.is_over(state.history):
            self.console.print(rate_line(config, trainer, updates), highlight=False, soft_wrap=True)
        return state, changes

    def _claim(self, stack: ExitStack, checkpoint: Path | None) -> Callable[[str], None]:
        """Make the run directory and keep others out of it, when data and model are there.

        Args:
            stack: holds the lock.
            checkpoint: where the training goes on.

        Returns:
            Function that takes the reason of an ending before the last epoch.

        Raises:
            OutputExists: another process trains there, or has trained since the checkpoint was read.
        """
        first = self.distribution.rank == 0
        if first:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(RunDirectory(self.run_dir).lock, f"{self.run_dir}: training"))
            begun = RunDirectory(self.run_dir).pointer("latest").is_file()
            if begun and find_checkpoint(self.run_dir, "latest") != checkpoint:
                raise OutputExists(f"{self.run_dir}: another process trained there meanwhile; resume again")
        return stack.enter_context(recorded_status(self.run_dir, writes=first))


def _progress(state: RunState) -> tuple[int, int]:
    """Return how far a training is."""
    return len(state.history), state.current.step


def _require_free(run_dir: Path, resume: bool, first: bool) -> None:
    """Refuse a directory where a process trains, and for a new run one that holds anything but a lock."""
    if not first:
        return
    if resume:
        require_unlocked(RunDirectory(run_dir).lock, f"{run_dir}: training")
    elif run_dir.exists() and any(path != RunDirectory(run_dir).lock for path in run_dir.iterdir()):
        raise OutputExists(f"{run_dir}: is not empty; choose another directory or continue with --resume")


def _summary_table(summary: TrainingSummary) -> Table:
    """Return the table printed at the end of a training."""
    history = summary.history
    last, best = history[-1], history[summary.best_epoch - 1]
    seconds = sum(record["seconds"] for record in history)
    rows = {
        "run directory": str(summary.run_dir),
        "epochs": str(len(history)),
        # Physics metrics are undefined in epochs without jets.
        "best epoch": f"{summary.best_epoch} ({summary.monitor} {best.get(summary.monitor, math.nan):.5g})",
        "loss, val_loss": f"{last['loss']:.5g}, {last['val_loss']:.5g}",
        "training events/s": f"{sum(r['num_events'] for r in history) / seconds:.0f}, "
        f"last epoch {last['events_per_second']:.0f}",
        **({"ended": summary.end_reason} if summary.end_reason else {}),
        "wall time": f"{summary.seconds:.1f} s",
        "waiting for data": f"{sum(r['wait_share'] * r['seconds'] for r in history) / seconds:.2%}",
        "padding": f"{last['padded_fraction']:.1%}",
        # Steps with gradients too large for float16. Old runs do not record them.
        "steps skipped": str(sum(record.get("skipped_steps", 0) for record in history)),
        "graphs traced": str(last["num_traces"]),
        "NaN or infinite inputs": str(last["bad_values"]),
    }
    table = Table("training", "", show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    return table
