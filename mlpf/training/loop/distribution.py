"""Devices of a training: one interface for one device, several GPUs of one machine, and several machines.

A step runs on each replica with its share of the batch. Normalisations and gradients are summed over
replicas, so the result does not depend on their number.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mlpf.errors import ConfigError, MLPFError

Batch = dict[str, Any]


class ProcessLost(MLPFError):
    """Another rank of the training ended, by an error or a signal."""

    exit_code = 1


@contextmanager
def lost_processes() -> Iterator[None]:
    """Replace the long error of Horovod about a lost process by one line.

    Raises:
        ProcessLost: another rank ended.
    """
    try:
        yield
    except tf.errors.UnknownError as error:
        if "Horovod has been shut down" not in str(error):
            raise
        raise ProcessLost(
            "another process of this training ended, so this one cannot continue; look for its message; "
            "continue from the last checkpoint with --resume"
        ) from None


class Distribution(Protocol):
    """How a step is spread over devices; batches are split evenly along their first axis."""

    num_replicas: int
    num_processes: int
    rank: int

    def scope(self) -> AbstractContextManager[Any]:
        """Return the context in which model and optimizer are built."""

    def compile(self, function: Callable[[Any], Any], spec: dict[str, tf.TensorSpec]) -> Callable[[Any], Any]:
        """Compile ``function`` of a distributed batch to a graph; ``spec`` describes a batch."""

    def distribute(self, batches: Iterable[Batch]) -> Iterator[Any]:
        """Yield each batch in the form that ``run`` needs."""

    def run(self, step: Callable[[Batch], Any], batch: Any) -> Any:
        """Run ``step`` on every replica of this rank and return the sum of the results.

        Call inside a tf.function. ``total`` sums over ranks later, for many steps at a time.
        """

    def all_reduce(self, tensors: Any) -> Any:
        """Sum tensors over replicas. Call inside ``step``."""

    def apply(self, optimizer: keras.optimizers.Optimizer, gradients: list[Any]) -> None:
        """Update the variables with summed gradients. Call inside ``step``."""

    def broadcast(self, variables: Sequence[Any]) -> None:
        """Set the variables on all ranks to the values of rank 0."""

    def total(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the sum of the arrays of all ranks. All ranks must call it."""

    def largest(self, number: int) -> int:
        """Return the largest number of all ranks. All ranks must call it."""

    def gather(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the arrays of all ranks, stacked along a new first axis. All ranks must call it."""


class OneProcess:
    """Communication between ranks when there is only one."""

    num_processes = 1
    rank = 0

    def broadcast(self, variables: Sequence[Any]) -> None:
        """Do nothing."""

    def total(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the array."""
        return array

    def largest(self, number: int) -> int:
        """Return the number."""
        return number

    def gather(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the array with one more axis."""
        return array[np.newaxis]


class SingleDevice(OneProcess):
    """One CPU or GPU.

    Args:
        jit_compile: compile steps with XLA.
    """

    num_replicas = 1

    def __init__(self, jit_compile: bool = False):
        self._jit_compile = jit_compile

    def scope(self) -> AbstractContextManager[Any]:
        """Return the default device context of TensorFlow."""
        return tf.distribute.get_strategy().scope()

    def compile(self, function: Callable[[Any], Any], spec: dict[str, tf.TensorSpec]) -> Callable[[Any], Any]:
        """Compile to one graph with open batch and element axes. With XLA, compile one graph per shape.

        A graph per shape would take seconds each and not run faster.
        """
        if self._jit_compile:
            return tf.function(function, autograph=False, jit_compile=True)
        return tf.function(function, input_signature=[spec], autograph=False)

    def distribute(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches as they are."""
        yield from batches

    def run(self, step: Callable[[Batch], Any], batch: Batch) -> Any:
        """Run the step."""
        return step(batch)

    def all_reduce(self, tensors: Any) -> Any:
        """Return the tensors: there is one replica."""
        return tensors

    def apply(self, optimizer: keras.optimizers.Optimizer, gradients: list[Any]) -> None:
        """Update the variables."""
        optimizer.apply(gradients)


class Mirrored(OneProcess):
    """Several GPUs of one machine, the variables mirrored on each (tf.distribute.MirroredStrategy).

    Args:
        devices: names such as ``"GPU:0"``; None takes every GPU.
    """

    def __init__(self, devices: list[str] | None = None):
        self._strategy = tf.distribute.MirroredStrategy(devices)
        self.num_replicas = int(self._strategy.num_replicas_in_sync)

    def scope(self) -> AbstractContextManager[Any]:
        """Return the scope in which variables are mirrored."""
        return self._strategy.scope()

    def compile(self, function: Callable[[Any], Any], spec: dict[str, tf.TensorSpec]) -> Callable[[Any], Any]:  # noqa: ARG002 - one interface for all devices
        """Compile to a graph whose axes become open after the second shape (signatures exclude replicas)."""
        return tf.function(function, autograph=False, reduce_retracing=True)

    def distribute(self, batches: Iterable[Batch]) -> Iterator[Any]:
        """Yield each batch, divided into one part per replica."""
        for batch in batches:
            yield self._strategy.experimental_distribute_values_from_function(
                lambda context, batch=batch: {
                    name: _share(array, context.replica_id_in_sync_group, self.num_replicas)
                    for name, array in batch.items()
                }
            )

    def run(self, step: Callable[[Batch], Any], batch: Any) -> Any:
        """Run the step on every replica and sum its results."""
        result = self._strategy.run(step, args=(batch,))
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, result, axis=None)

    def all_reduce(self, tensors: Any) -> Any:
        """Sum tensors over replicas."""
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tensors)

    def apply(self, optimizer: keras.optimizers.Optimizer, gradients: list[Any]) -> None:
        """Update the variables on every replica."""
        # Keras sums over replicas again: give each replica an equal share of the sum.
        optimizer.apply([gradient / self.num_replicas for gradient in gradients])


def build_distribution(jit_compile: bool = False, processes: Distribution | None = None) -> Distribution:
    """Return ``processes`` if there are several, ``Mirrored`` for several GPUs, else ``SingleDevice``.

    Args:
        jit_compile: compile steps with XLA.
        processes: return value of ``horovod.join_processes``.

    Raises:
        ConfigError: XLA on several devices. XLA cannot compile sums over replicas.
    """
    if processes is not None:
        if jit_compile and processes.num_processes > 1:
            raise _xla_refused(f"{processes.num_processes} processes", "start one")
        return processes if processes.num_processes > 1 else SingleDevice(jit_compile)
    num_gpus = len(tf.config.list_logical_devices("GPU"))
    if num_gpus < 2:
        return SingleDevice(jit_compile)
    if jit_compile:
        raise _xla_refused(f"{num_gpus} GPUs", "show one GPU (CUDA_VISIBLE_DEVICES=0)")
    return Mirrored()


def _xla_refused(devices: str, remedy: str) -> ConfigError:
    return ConfigError(
        f"setup.jit_compile: true trains on one device, but there are {devices}; set it to false, or {remedy}"
    )


def _share(array: Any, replica: int, num_replicas: int) -> Any:
    """Return the part of a batch that belongs to one replica."""
    size = array.shape[0] // num_replicas
    return array[replica * size : (replica + 1) * size]
