"""All elements of all events as rows of one matrix: what acts on one element at a time runs on [B N, D].

A matrix product of two axes is what every library has its fastest kernel for, and the only one that
TensorFlow fuses with the bias and the activation that follow it.
"""

from keras import ops


def to_rows(x):
    """Return x [..., D] as [rows, D]."""
    return ops.reshape(x, (-1, x.shape[-1]))


def from_rows(rows, like):
    """Return rows [rows, D] with the leading axes of ``like`` [..., any], as [..., D]."""
    shape = ops.shape(like)
    return ops.reshape(rows, (*shape[:-1], rows.shape[-1]))
