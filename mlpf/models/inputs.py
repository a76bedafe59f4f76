"""What every model does to its input before anything else, and which rows of it are elements."""

from typing import Any

from keras import ops

ELEMTYPE = 0  # column of the element type; the same for every kind of element, 0 = padding

# Below the largest float32, so that infinities of either sign are caught by one comparison.
LARGEST = 3.0e38


def finite_or_zero(x):
    """Replace NaN and infinities by 0; any shape."""
    return ops.where(ops.abs(x) < LARGEST, x, ops.zeros_like(x))


def element_mask(X: Any) -> Any:
    """Return [B, N] bool, True = real element, False = padding.

    Args:
        X: [B, N, F] without NaN, as batches are and as ``finite_or_zero`` makes it; numpy or any backend.
    """
    return ops.not_equal(X[..., ELEMTYPE], 0.0)
