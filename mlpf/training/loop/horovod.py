"""Horovod: one process per device, on any number of machines (Sergeev and Del Balso, arXiv:1802.05799).

Each rank processes its rows of each batch. Normalisations and gradients are summed over ranks within a step,
so all ranks have the same weights. Losses are summed when they are read, on all ranks at the same step.
"""

import os
import platform
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mlpf.errors import MissingDependency, one_line
from mlpf.machine.devices import pin_gpu
from mlpf.training.loop.distribution import SingleDevice
from mlpf.training.loop.slurm_ranks import rank_variables


def load_horovod() -> Any:
    """Import Horovod and connect to the other ranks, started by ``horovodrun`` or ``srun``.

    Raises:
        ConfigError: the tasks of ``srun`` cannot connect as they were started.
        MissingDependency: Horovod is not installed, or was built without TensorFlow.
    """
    try:
        import horovod.tensorflow as hvd
    except (ImportError, tf.errors.NotFoundError) as error:
        raise MissingDependency(
            f"-m/--horovod-enabled: Horovod for TensorFlow is missing ({one_line(error)}); run make horovod"
        ) from None
    os.environ.update(rank_variables(os.environ))
    hvd.init()
    return hvd


class Horovod(SingleDevice):
    """One rank of a training of several processes. Each rank uses one device.

    Batches contain only the rows of this rank, and steps return sums of this rank; see ``total``. All ranks
    get the same summed gradients, so their variables stay equal.

    Raises:
        MissingDependency: Horovod is not installed.
        ConfigError: more processes than GPUs on this machine.
    """

    def __init__(self) -> None:
        super().__init__()
        self._hvd = load_horovod()
        self.num_processes = self.num_replicas = int(self._hvd.size())
        self.rank = int(self._hvd.rank())
        pin_gpu(int(self._hvd.local_rank()), int(self._hvd.local_size()))

    def places(self) -> str:
        """Return where the ranks run, such as ``4 on node1, 4 on node2``. All ranks must call it."""
        names = self._hvd.allgather_object(os.environ.get("SLURMD_NODENAME") or platform.node())
        return ", ".join(f"{count} on {name}" for name, count in Counter(names).items())

    def all_reduce(self, tensors: Any) -> Any:
        """Sum tensors over ranks; a list is sent as one vector.

        Horovod can fuse tensors too, but it takes time for each of them.
        """
        if isinstance(tensors, list):
            flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)
            parts = tf.split(self.all_reduce(flat), [tensor.shape.num_elements() for tensor in tensors])
            return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
        return self._hvd.allreduce(tensors, op=self._hvd.Sum)

    def broadcast(self, variables: Sequence[Any]) -> None:
        """Set the variables on all ranks to the values of rank 0."""
        for variable in variables:
            variable.assign(self._hvd.broadcast(tf.convert_to_tensor(variable.value), root_rank=0))

    def total(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the sum of the arrays of all ranks."""
        return self._hvd.allreduce(tf.convert_to_tensor(array), op=self._hvd.Sum).numpy()

    def largest(self, number: int) -> int:
        """Return the largest number of all ranks."""
        return int(np.max(self._hvd.allgather(tf.constant([number], tf.int32))))

    def gather(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the arrays of all ranks, stacked along a new first axis."""
        return self._hvd.allgather(tf.convert_to_tensor(array)[tf.newaxis]).numpy()


def join_processes() -> Horovod:
    """Connect to the other ranks of ``horovodrun`` or ``srun`` and select the GPU of this rank.

    Call before TensorFlow starts.

    Raises:
        MissingDependency: Horovod is not installed.
        ConfigError: more processes than GPUs on this machine, or the ranks cannot connect.
    """
    return Horovod()
