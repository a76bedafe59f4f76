"""The training loop: steps, epochs and validation."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mlpf.data.feeding.batch_loader import DEFAULT_FIELDS, BatchLoader, field_widths
from mlpf.data.feeding.batch_plan import BatchPlan
from mlpf.physics.schemas import SCHEMAS, EventSchema
from mlpf.training.checkpoints.random_states import RandomStates
from mlpf.training.checkpoints.run_state import EpochProgress, EpochRecord, RunState, StepSums
from mlpf.training.loop.distribution import Distribution
from mlpf.training.loop.hooks import EpochHook, Progress, StepHook, TrainingDiverged
from mlpf.training.loop.interruption import Decision, SavePolicy
from mlpf.training.losses.total import MLPFLoss
from mlpf.training.optimizers.averaging import averaged_weights
from mlpf.training.optimizers.build import loss_scale, num_steps

# Interval at which the host reads losses. Rare reads let the GPU run ahead.
_READ_INTERVAL_S = 0.25
# With several ranks: steps between reads of the loss and agreements on saving and stopping. All ranks do it
# at the same step, and each time wait for the slowest rank.
AGREE_STEPS = 8
# Interval of calls of step hooks.
_REPORT_INTERVAL_S = 5.0

# Smallest useful loss scale: gradients that overflow float16 here overflow at every scale.
_SMALLEST_LOSS_SCALE = 2.0**-10


class Trainer:
    """Trains one model.

    Args:
        model: X [B, N, F] -> dict of outputs; built in the scope of ``distribution``.
        loss: terms of the loss; built in the same scope.
        optimizer: built in the same scope.
        distribution: devices.
        seed: dropout masks of an epoch and random numbers of the loss follow from (seed, epoch).
        schema: schema of the events.
        clock: returns the time in s.

    Attributes:
        num_traces: graphs traced so far, for training and validation.
        random_states: random states of model and loss.
    """

    def __init__(
        self,
        model: keras.Model,
        loss: MLPFLoss,
        optimizer: keras.optimizers.Optimizer,
        distribution: Distribution,
        *,
        seed: int = 0,
        schema: EventSchema = SCHEMAS["clic"],
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.model = model
        self.optimizer = optimizer
        self.num_traces = 0
        self._loss = loss
        self._distribution = distribution
        self._clock = clock
        self.random_states = RandomStates(model, loss.random_states, distribution, seed)
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
        state: RunState | None = None,
        on_epoch_end: Sequence[EpochHook] = (),
        on_step: Sequence[StepHook] = (),
        save_policy: SavePolicy | None = None,
        progress: Progress | None = None,
        is_over: Callable[[list[EpochRecord]], bool] | None = None,
    ) -> list[EpochRecord]:
        """Train until ``num_epochs`` epochs are recorded.

        Args:
            train: shuffled training batches.
            valid: validation batches.
            num_epochs: total epochs, including finished ones.
            state: state to resume from, updated during the training; None = start at the beginning.
            on_epoch_end: hooks, called in order with the history. The last record is the finished epoch; a
                hook may add metrics to it for the following hooks.
            on_step: hooks, called every few seconds and at the end of each epoch with the number of training
                steps so far, and ``epoch``, ``learning_rate`` and ``loss`` (mean since the last call).
            save_policy: decides after steps whether to save or to stop.
            progress: shows the progress of an epoch.
            is_over: returns before each epoch, from the history, whether to end earlier. Rank 0 decides,
                since only it has the metrics of hooks.

        Returns:
            One record per epoch.

        Raises:
            TrainingDiverged: the loss of a step is NaN or infinite, or no loss scale keeps gradients finite.
            TrainingStopped: the save policy decided to stop. The state is saved.
        """
        state = state or RunState()
        state.fingerprint = train.fingerprint()
        while len(state.history) < num_epochs and not self._ended(is_over, state.history):
            self._obey(save_policy, state, 0)
            record: EpochRecord = {"epoch": state.epoch}
            record |= self._train_epoch(train, state, num_epochs, on_step, save_policy, progress)
            started = self._clock()
            validation = self._validate(valid, save_policy, state)
            record |= {f"val_{name}": value for name, value in validation.items()}
            record["val_seconds"] = self._clock() - started
            record["bad_values"] = train.pool.num_bad_values + valid.pool.num_bad_values
            record["num_traces"] = self.num_traces
            state.history.append(record)
            state.current = EpochProgress()
            for hook in on_epoch_end:
                hook(state.history)
            if save_policy:
                save_policy.reset_timer()
            if progress:
                progress.finish(record)
        return state.history

    def evaluate(self, loader: BatchLoader) -> EpochRecord:
        """Return loss and its terms over all events of ``loader``, each event counted once.

        If the optimizer averages weights, the averages are used.
        """
        return self._validate(loader, None, RunState())

    def train_step(self, batch: Any) -> Any:
        """Take one step on a distributed batch; return [2, T] sums of values and weights, on the device."""
        return self._train_step(batch)

    def _ended(self, is_over: Callable[[list[EpochRecord]], bool] | None, history: list[EpochRecord]) -> bool:
        """Return the decision of rank 0. All ranks must call it."""
        if is_over is None:
            return False
        says = self._distribution.rank == 0 and is_over(history)
        return bool(self._distribution.largest(int(says)))

    def _train_epoch(
        self,
        train: BatchLoader,
        state: RunState,
        num_epochs: int,
        on_step: Sequence[StepHook],
        save_policy: SavePolicy | None,
        progress: Progress | None,
    ) -> EpochRecord:
        """Do or finish one pass over the training events and return its record."""
        current, epoch = state.current, state.epoch
        if current.step == 0:
            self.random_states.reseed(epoch)
            current.learning_rate = float(self.optimizer.learning_rate)
            current.first_update = num_steps(self.optimizer)
        batches = train.epoch(epoch, current.step)
        plan = batches.plan
        sums = StepSums(len(self._loss.term_names), self._distribution.total, current.sums, current.step)
        counts = [int(np.sum(planned.indices >= 0)) for planned in plan.batches]
        done = sum(counts[: current.step])
        if progress:
            progress.start(epoch, num_epochs, plan.num_events, plan.num_elements, done)
        last_read = last_report = self._clock()
        started = last_read - current.seconds
        arrays = iter(self._distribution.distribute(batches.batches))
        for number in range(current.step, len(plan)):
            asked = self._clock()
            batch = next(arrays)
            now = self._clock()
            current.waited += now - asked
            sums.add(self._train_step(batch))
            done += counts[number]
            current.step = number + 1
            if self._time_to_read(current.step, now - last_read):
                last_read = now
                self._check(sums, epoch)
                if progress:
                    progress.update(done, self._loss.components(*_float32(sums.read()))["loss"])
                if now - last_report > _REPORT_INTERVAL_S:
                    last_report = now
                    self._report((epoch - 1) * len(plan) + current.step, epoch, sums, on_step)
            saving = self._clock()
            current.seconds = saving - started
            self._obey(save_policy, state, 1, sums)
            started += self._clock() - saving
        next(arrays, None)  # let the iterator end within the time of the epoch
        self._check(sums, epoch)
        self._report(epoch * len(plan), epoch, sums, on_step)
        current.seconds = self._clock() - started
        current.sums = sums.read().tolist()
        return self._epoch_record(current, plan)

    def _epoch_record(self, current: EpochProgress, plan: BatchPlan) -> EpochRecord:
        """Return the record of an epoch after its last step."""
        seconds = current.seconds
        return {
            **self._loss.components(*_float32(np.array(current.sums))),
            "learning_rate": current.learning_rate,
            **self._scale_record(len(plan) - (num_steps(self.optimizer) - current.first_update)),
            "seconds": seconds,
            "num_steps": len(plan),
            "num_events": plan.num_events,
            "num_elements": plan.num_elements,
            "events_per_second": plan.num_events / seconds,
            "elements_per_second": plan.num_elements / seconds,
            "wait_share": current.waited / seconds,
            "checkpoint_seconds": current.checkpoint_seconds,
            "padded_fraction": plan.padded_fraction,
        }

    def _validate(self, loader: BatchLoader, save_policy: SavePolicy | None, state: RunState) -> EpochRecord:
        """Return loss and terms over all events. If the training must stop, save and stop at once."""
        sums = StepSums(len(self._loss.term_names), self._distribution.total)
        decision = Decision.GO_ON
        with averaged_weights(self.model, self.optimizer):
            for number, batch in enumerate(self._distribution.distribute(loader.epoch(0).batches)):
                sums.add(self._valid_step(batch))
                if save_policy and self._time_to_agree(number + 1):
                    decision = Decision(self._distribution.largest(save_policy.decide()))
                if decision is Decision.STOP:
                    break
        # Outside the block: the weights that are trained are in their place again.
        if save_policy and decision is Decision.STOP:
            self._follow(decision, save_policy, state)
        return self._loss.components(*_float32(sums.read()))

    def _report(self, step: int, epoch: int, sums: StepSums, on_step: Sequence[StepHook]) -> None:
        """Call the step hooks with the mean loss since the last call, if there was a step."""
        if on_step and (recent := sums.recent()) is not None:
            loss = self._loss.components(*_float32(recent))["loss"]
            record = {"epoch": epoch, "learning_rate": float(self.optimizer.learning_rate), "loss": loss}
            for hook in on_step:
                hook(step, record)

    def _obey(
        self,
        save_policy: SavePolicy | None,
        state: RunState,
        num_steps: int,
        sums: StepSums | None = None,
    ) -> None:
        """Save or stop if the save policy decides so, on all ranks at the same step.

        Args:
            save_policy: the policy; None = never.
            state: state of the training.
            num_steps: steps since the last call.
            sums: sums of the loss terms in this epoch.
        """
        if save_policy is None:
            return
        decision = save_policy.decide(num_steps)
        if num_steps and not self._time_to_agree(state.current.step):
            return
        self._follow(Decision(self._distribution.largest(decision)), save_policy, state, sums)

    def _follow(
        self, decision: Decision, save_policy: SavePolicy, state: RunState, sums: StepSums | None = None
    ) -> None:
        """Carry out a decision."""
        if decision is Decision.GO_ON:
            return
        started = self._clock()
        if sums is not None:
            self._check(sums, state.epoch)
            state.current.sums = sums.read().tolist()
        if state.current.step:  # otherwise the checkpoint of the epoch before is up to date
            save_policy.save(state)
        state.current.checkpoint_seconds += self._clock() - started
        if decision is Decision.STOP:
            raise save_policy.stopped_error(state)

    def _time_to_read(self, step: int, seconds: float) -> bool:
        """Return whether to read the losses now. All ranks read at the same step."""
        if self._distribution.num_processes > 1:
            return self._time_to_agree(step)
        return seconds > _READ_INTERVAL_S

    def _time_to_agree(self, step: int) -> bool:
        """Return whether the ranks communicate after this step of the epoch."""
        return self._distribution.num_processes == 1 or step % AGREE_STEPS == 0

    def _check(self, sums: StepSums, epoch: int) -> None:
        """Raise an error if a loss is not finite, or if all steps are skipped."""
        sums.read()
        step, numbers = sums.suspect
        terms = self._loss.components(*_float32(numbers))
        if sums.first_bad is not None:
            bad = [n for n, is_bad in zip(self._loss.term_names, sums.bad_terms, strict=True) if is_bad]
            raise TrainingDiverged(
                f"epoch {epoch}, step {step + 1}: the loss or its gradients are not finite "
                f"({', '.join(bad)}); "
                "lower setup.lr, set setup.clipnorm, or lengthen setup.lr_warmup_steps",
                epoch,
                step + 1,
                terms,
            )
        scale = self._loss_scale()
        if scale is not None and scale < _SMALLEST_LOSS_SCALE:
            raise TrainingDiverged(
                f"epoch {epoch}: the gradients are not finite in float16 even with the loss scaled by "
                f"{scale:.1g}; use setup.dtype: mixed_bfloat16, or lower setup.lr",
                epoch,
                step + 1,
                terms,
            )

    def _scale_record(self, skipped: int) -> EpochRecord:
        """Return the steps skipped (gradients too large for float16) and the loss scale, if any."""
        scale = self._loss_scale()
        return {"skipped_steps": skipped} | ({} if scale is None else {"loss_scale": scale})

    def _loss_scale(self) -> float | None:
        """Return the loss scale of the next step; None without one."""
        scale = loss_scale(self.optimizer)
        return None if scale is None else float(keras.ops.convert_to_numpy(scale))

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
            sums = self._loss.sums(batch["X"], batch["ygen"], outputs, training=True)
            # Each replica divides by the weight of the whole batch, so that gradients can be summed.
            loss = self._loss.total(sums.values, self._distribution.all_reduce(sums.weights))
            loss = self.optimizer.scale_loss(loss)
        # The gradient is None if no term uses an output (coefficient 0). TensorFlow's option for zeros,
        # UnconnectedGradients.ZERO, does not support variables of Keras.
        gradients = [
            tf.zeros_like(variable.value) if gradient is None else tf.convert_to_tensor(gradient)
            for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True)
        ]
        gradients = self._distribution.all_reduce(gradients)
        self._distribution.apply(self.optimizer, gradients)
        values = sums.values
        if loss_scale(self.optimizer) is None:
            # The heads replace NaN by 0, so the loss of a broken network may be finite. Check gradients too.
            finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients])
            values = tf.where(finite, values, np.float32("nan"))
        return tf.stack([values, sums.weights])

    def _valid_replica(self, batch: dict[str, Any]) -> Any:
        """Return [2, T] sums of values and weights of this replica."""
        outputs = self.model(batch["X"], training=False)
        sums = self._loss.sums(batch["X"], batch["ygen"], outputs)
        return tf.stack([sums.values, sums.weights])


def _float32(sums: npt.NDArray[np.float64]) -> Iterator[npt.NDArray[np.float32]]:
    """Return values and weights as float32."""
    return iter(sums.astype(np.float32))
