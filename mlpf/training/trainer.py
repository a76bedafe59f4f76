"""The training loop: steps, epochs, validation; on one device without XLA one graph serves every bucket."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from mlpf.data.input_pipeline import DEFAULT_FIELDS, BatchLoader, Epoch, field_widths
from mlpf.errors import MLPFError
from mlpf.physics.schemas import SCHEMAS, EventSchema
from mlpf.training.distribution import Distribution
from mlpf.training.losses import TERM_NAMES, MLPFLoss
from mlpf.training.optimizers import clip_gradients, loss_scale

logger = logging.getLogger(__name__)

Record = dict[str, float]
EpochHook = Callable[[list[Record]], None]
StepHook = Callable[[int, Record], None]

# The host reads losses this often: rarely enough to let a GPU run ahead, often enough to watch.
_READ_INTERVAL_S = 0.25
# Step hooks hear of the loss this often, and at the end of each epoch.
_REPORT_INTERVAL_S = 5.0

# Gradients that overflow float16 at this scale do so at any: below it numbers of order 1 vanish.
_SMALLEST_LOSS_SCALE = 2.0**-10


class TrainingDiverged(MLPFError):
    """The loss became NaN or infinite, or its gradients at every loss scale.

    Args:
        message: for the user.
        epoch: epoch, from 1.
        step: step within the epoch, from 1.
        terms: loss of that step and its terms.
    """

    def __init__(self, message: str, epoch: int, step: int, terms: Record):
        super().__init__(message)
        self.epoch, self.step, self.terms = epoch, step, terms


class Progress(Protocol):
    """Shows how an epoch advances."""

    def start(self, epoch: int, num_epochs: int, num_events: int, num_elements: int) -> None:
        """Begin an epoch of ``num_events`` with ``num_elements`` in all."""

    def update(self, num_events: int, loss: float) -> None:
        """``num_events`` of the epoch are done, with this mean loss."""

    def finish(self, record: Record) -> None:
        """End an epoch with its record."""


class Trainer:
    """Trains one model.

    Args:
        model: X [B, N, F] -> dict of outputs; built in the scope of ``distribution``.
        loss: terms of the loss.
        optimizer: built in the same scope.
        distribution: devices.
        clipnorm: largest global norm of the gradients, None = any.
        seed: dropout masks of an epoch follow from (seed, epoch).
        schema: what the events are made of.

    Attributes:
        num_traces: graphs made so far, for training and validation.
    """

    def __init__(
        self,
        model: keras.Model,
        loss: MLPFLoss,
        optimizer: keras.optimizers.Optimizer,
        distribution: Distribution,
        *,
        clipnorm: float | None = None,
        seed: int = 0,
        schema: EventSchema = SCHEMAS["clic"],
    ):
        self.model = model
        self.optimizer = optimizer
        self.num_traces = 0
        self._loss = loss
        self._distribution = distribution
        self._clipnorm = clipnorm
        self._seed = seed
        with distribution.scope():
            optimizer.build(model.trainable_variables)
        widths = field_widths(schema)
        spec = {name: tf.TensorSpec((None, None, widths[name]), tf.float32) for name in DEFAULT_FIELDS}
        self._train_step = distribution.compile(self._distributed(self._train_replica), spec)
        self._valid_step = distribution.compile(self._distributed(self._valid_replica), spec)

    def fit(
        self,
        train: BatchLoader,
        valid: BatchLoader,
        num_epochs: int,
        *,
        history: Sequence[Record] = (),
        on_epoch_end: Sequence[EpochHook] = (),
        on_step: Sequence[StepHook] = (),
        progress: Progress | None = None,
    ) -> list[Record]:
        """Train until ``num_epochs`` epochs are recorded.

        Args:
            train: shuffled training batches.
            valid: validation batches.
            num_epochs: epochs in total, those of ``history`` included.
            history: records of the epochs already done.
            on_epoch_end: called in order with the history; its last record is the epoch just done,
                and a hook may add metrics to it for the next ones.
            on_step: called every few seconds and at the end of each epoch with the number of training steps
                of the run so far, and ``epoch``, ``learning_rate`` and ``loss`` (mean since the last call).
            progress: shows how an epoch advances.

        Returns:
            One record per epoch.

        Raises:
            TrainingDiverged: the loss of a step is NaN or infinite, or no loss scale keeps gradients finite.
        """
        records = list(history)
        for epoch in range(len(records) + 1, num_epochs + 1):
            batches = train.epoch(epoch)
            if progress:
                progress.start(epoch, num_epochs, batches.plan.num_events, batches.plan.num_elements)
            record: Record = {"epoch": epoch}
            record |= self._train_epoch(batches, epoch, on_step, progress)
            started = time.perf_counter()
            record |= {f"val_{name}": value for name, value in self.evaluate(valid).items()}
            record["val_seconds"] = time.perf_counter() - started
            record["bad_values"] = train.pool.num_bad_values + valid.pool.num_bad_values
            record["num_traces"] = self.num_traces
            records.append(record)
            for hook in on_epoch_end:
                hook(records)
            if progress:
                progress.finish(record)
        return records

    def evaluate(self, loader: BatchLoader) -> Record:
        """Return loss and its terms over all events of ``loader``, each event counted once."""
        sums = _Sums()
        for batch in self._distribution.distribute(loader.epoch(0).batches):
            sums.add(self._valid_step(batch))
        return self._loss.components(*sums.read())

    def _train_epoch(
        self, epoch_batches: Epoch, epoch: int, on_step: Sequence[StepHook], progress: Progress | None
    ) -> Record:
        """Make one pass over the training events and return its record."""
        plan = epoch_batches.plan
        self._reseed(epoch)
        rate = float(self.optimizer.learning_rate)
        applied = self._num_updates()
        sums = _Sums()
        done, waited = 0, 0.0
        started = last_read = last_report = time.perf_counter()
        batches = iter(self._distribution.distribute(epoch_batches.batches))
        for number, planned in enumerate(plan.batches, start=1):
            asked = time.perf_counter()
            batch = next(batches)
            now = time.perf_counter()
            waited += now - asked
            sums.add(self._train_step(batch))
            done += int(np.sum(planned.indices >= 0))
            if now - last_read > _READ_INTERVAL_S:
                last_read = now
                self._check(sums, epoch)
                if progress:
                    progress.update(done, self._loss.components(*sums.read())["loss"])
                if now - last_report > _REPORT_INTERVAL_S:
                    last_report = now
                    self._report((epoch - 1) * len(plan) + number, epoch, sums, on_step)
        next(batches, None)  # the end of the iterator belongs to the time of the epoch
        self._check(sums, epoch)
        self._report(epoch * len(plan), epoch, sums, on_step)
        seconds = time.perf_counter() - started
        return {
            **self._loss.components(*sums.read()),
            "learning_rate": rate,
            **self._scale_record(len(plan.batches) - (self._num_updates() - applied)),
            "seconds": seconds,
            "num_events": plan.num_events,
            "num_elements": plan.num_elements,
            "events_per_second": plan.num_events / seconds,
            "elements_per_second": plan.num_elements / seconds,
            "wait_share": waited / seconds,
            "padded_fraction": plan.padded_fraction,
        }

    def _report(self, step: int, epoch: int, sums: "_Sums", on_step: Sequence[StepHook]) -> None:
        """Tell step hooks the mean loss since they were last told, if there was a step."""
        if on_step and (values := sums.recent()) is not None:
            rate = float(self.optimizer.learning_rate)
            record = {"epoch": epoch, "learning_rate": rate, "loss": self._loss.components(*values)["loss"]}
            for hook in on_step:
                hook(step, record)

    def _check(self, sums: "_Sums", epoch: int) -> None:
        """Stop at the first step whose loss is not a number, or when every step is skipped."""
        sums.read()
        step, numbers = sums.suspect
        if sums.first_bad is not None:
            bad = sums.bad_terms(TERM_NAMES)
            raise TrainingDiverged(
                f"epoch {epoch}, step {step + 1}: the loss or its gradients are not finite "
                f"({', '.join(bad)}); "
                "lower setup.lr, set setup.clipnorm, or lengthen setup.lr_warmup_steps",
                epoch,
                step + 1,
                self._loss.components(*numbers),
            )
        scale = self._loss_scale()
        if scale is not None and scale < _SMALLEST_LOSS_SCALE:
            raise TrainingDiverged(
                f"epoch {epoch}: the gradients are not finite in float16 even with the loss scaled by "
                f"{scale:.1g}; use setup.dtype: mixed_bfloat16, or lower setup.lr",
                epoch,
                step + 1,
                self._loss.components(*numbers),
            )

    def _num_updates(self) -> int:
        """Return the number of steps that changed the weights, in the whole run."""
        return int(keras.ops.convert_to_numpy(self.optimizer.iterations))

    def _scale_record(self, skipped: int) -> Record:
        """Return the steps skipped (gradients too large for float16) and the loss scale, if any."""
        scale = self._loss_scale()
        return {"skipped_steps": skipped} | ({} if scale is None else {"loss_scale": scale})

    def _loss_scale(self) -> float | None:
        """Return the loss scale of the next step, None without one."""
        scale = loss_scale(self.optimizer)
        return None if scale is None else float(keras.ops.convert_to_numpy(scale))

    def _reseed(self, epoch: int) -> None:
        """Set the random states of the model (dropout), so that a resumed run draws the same masks."""
        weights = {id(weight) for weight in self.model.weights}
        states = [v for v in self.model.variables if id(v) not in weights]
        rng = np.random.default_rng([self._seed, epoch])
        for state in states:
            state.assign(rng.integers(0, 2**31, state.shape).astype(state.dtype))

    def _distributed(self, step: Callable[[dict[str, Any]], Any]) -> Callable[[Any], Any]:
        """Return a function of a distributed batch; its body runs once per trace."""

        def run(batch: Any) -> Any:
            self.num_traces += 1
            return self._distribution.run(step, batch)

        return run

    def _train_replica(self, batch: dict[str, Any]) -> Any:
        """Take one gradient step; return [2, T] sums of values and weights of this replica."""
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            outputs = self.model(batch["X"], training=True)
            sums = self._loss.sums(batch["X"], batch["ygen"], outputs)
            # Each replica divides by the weight of the whole batch: gradients then add up.
            loss = self._loss.total(sums.values, self._distribution.all_reduce(sums.weights))
            loss = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        gradients = self._distribution.all_reduce(gradients)
        gradients = clip_gradients(gradients, self._clipnorm, loss_scale(self.optimizer))
        self._distribution.apply(self.optimizer, gradients)
        values = sums.values
        if loss_scale(self.optimizer) is None:
            # The heads turn NaN into 0, so a broken network may have a finite loss: its gradients tell.
            finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients])
            values = tf.where(finite, values, np.float32("nan"))
        return tf.stack([values, sums.weights])

    def _valid_replica(self, batch: dict[str, Any]) -> Any:
        """Return [2, T] sums of values and weights of this replica."""
        outputs = self.model(batch["X"], training=False)
        sums = self._loss.sums(batch["X"], batch["ygen"], outputs)
        return tf.stack([sums.values, sums.weights])


class _Sums:
    """Sums of steps, read from the device late and added in float64."""

    def __init__(self) -> None:
        self._waiting: list[Any] = []
        self._total = np.zeros((2, len(TERM_NAMES)))
        self._num_steps = 0
        self._reported = (0, np.zeros_like(self._total))
        self.first_bad: int | None = None
        self._bad = np.zeros(len(TERM_NAMES), bool)
        self._suspect = self._total

    def add(self, sums: Any) -> None:
        """Add the [2, T] result of one step without reading it."""
        self._waiting.append(sums)

    def read(self) -> tuple[Any, Any]:
        """Return values [T] and weights [T] of all steps so far."""
        for sums in self._waiting:
            numbers = sums.numpy().astype(np.float64)
            if self.first_bad is None:
                self._suspect = numbers
            if self.first_bad is None and not math.isfinite(float(numbers.sum())):
                self.first_bad = self._num_steps
                self._bad = ~np.isfinite(numbers[0])
            self._total += numbers
            self._num_steps += 1
        self._waiting.clear()
        return self._total[0].astype(np.float32), self._total[1].astype(np.float32)

    def recent(self) -> tuple[Any, Any] | None:
        """Return values [T] and weights [T] of the steps since the last call, None if there was no step."""
        self.read()
        num_steps, total = self._reported
        if num_steps == self._num_steps:
            return None
        self._reported = (self._num_steps, self._total.copy())
        values, weights = (self._total - total).astype(np.float32)
        return values, weights

    @property
    def suspect(self) -> tuple[int, Any]:
        """Number, from 0, and [2, T] sums of the first bad step, of the last one where none is bad."""
        number = self._num_steps - 1 if self.first_bad is None else self.first_bad
        return number, self._suspect.astype(np.float32)

    def bad_terms(self, names: Sequence[str]) -> list[str]:
        """Return the names of the terms that were not finite in the first bad step."""
        return [name for name, bad in zip(names, self._bad, strict=True) if bad]
