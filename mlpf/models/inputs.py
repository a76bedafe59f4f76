"""What every model does to its input before anything else."""

from keras import ops

# Below the largest float32, so that infinities of either sign are caught by one comparison.
LARGEST = 3.0e38


def finite_or_zero(x):
    """Replace NaN and infinities by 0; any shape."""
    return ops.where(ops.abs(x) < LARGEST, x, ops.zeros_like(x))
