"""Real errors for want of memory, and others that only speak of it."""

import pytest
import tensorflow as tf

from mlpf.training.loop.outcome import is_out_of_memory
from tests.support.child_process import run_code

# In a process of its own, which may not have more than 200 MB beyond what it has.
LIMITED = """
import json, resource
import numpy as np
from mlpf.training.loop.outcome import is_out_of_memory
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000,) * 2)
found = {}
for name, allocate in {"list": lambda: [0] * 10**9, "numpy": lambda: np.ones(10**9)}.items():
    try:
        allocate()
    except Exception as error:
        found[name] = [isinstance(error, MemoryError), is_out_of_memory(error)]
print(json.dumps(found))
"""


def raised(function):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what the test is about
        function()
    return caught.value


@pytest.mark.slow  # the allocator tries for ten seconds
def test_tensorflow_without_memory():
    error = raised(lambda: tf.zeros([2**40], tf.float32) + 1)
    assert isinstance(error, tf.errors.ResourceExhaustedError)
    assert is_out_of_memory(error)


@pytest.mark.slow  # the allocator tries for ten seconds
def test_tensorflow_without_memory_inside_a_graph():
    @tf.function
    def graph(number):
        return tf.reduce_sum(tf.random.uniform([number, number]))

    assert is_out_of_memory(raised(lambda: graph(tf.constant(2**21))))


def test_python_without_memory(repo_root):
    found = run_code(repo_root, LIMITED)
    assert found == {"list": [True, True], "numpy": [True, True]}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 17 bytes"), True),  # of XLA
        (tf.errors.InternalError(None, None, "CUDA_ERROR_OUT_OF_MEMORY: out of memory"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("no such device"), False),
        (ValueError("the key is called out of memory"), False),
        (tf.errors.InvalidArgumentError(None, None, "shapes do not fit"), False),
    ],
)
def test_by_type_and_message(error, expected):
    assert is_out_of_memory(error) is expected


def test_the_error_behind_an_error_counts():
    def fail():
        try:
            raise MemoryError
        except MemoryError as error:
            raise ValueError("the layer could not be called") from error

    def hide():
        try:
            raise MemoryError
        except MemoryError:
            raise ValueError("another matter") from None

    assert is_out_of_memory(raised(fail))
    assert not is_out_of_memory(raised(hide))
