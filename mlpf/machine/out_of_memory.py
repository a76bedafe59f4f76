"""Which errors mean that memory, of the host or of a device, did not suffice."""

import re

import tensorflow as tf

# What TensorFlow, XLA, CUDA and the C++ library say where the type of the error does not tell.
_MESSAGES = re.compile(
    r"RESOURCE_EXHAUSTED|out of memory|OOM when allocating|OUT_OF_MEMORY|failed to allocate memory|bad_alloc",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error, or one that it was raised from, is a lack of memory.

    Messages count only in errors of a run time, which all derive from ``RuntimeError`` or TensorFlow's
    ``OpError``: other errors may quote such words.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError | tf.errors.ResourceExhaustedError):
            return True
        if isinstance(seen, RuntimeError | tf.errors.OpError) and _MESSAGES.search(str(seen)):
            return True
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return False
