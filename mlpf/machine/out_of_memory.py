"""Recognise errors that mean too little memory, of the host or of a device."""

import re

import tensorflow as tf

# Messages of TensorFlow, XLA, CUDA and the C++ library. The type of the error is not specific.
_MESSAGES = re.compile(
    r"RESOURCE_EXHAUSTED|out of memory|OOM when allocating|OUT_OF_MEMORY|failed to allocate memory|bad_alloc",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error, or one of its causes, means too little memory.

    Messages are only searched in ``RuntimeError`` and TensorFlow's ``OpError``, since other errors may quote
    the same words.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError | tf.errors.ResourceExhaustedError):
            return True
        if isinstance(seen, RuntimeError | tf.errors.OpError) and _MESSAGES.search(str(seen)):
            return True
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return False
