"""Number formats that TensorFlow cannot compute in, with the settings of this process."""

import pytest

from mlpf.machine import devices


def skip_if_it_aborts(policy):
    """Skip a test under a dtype policy with which TensorFlow would end the whole process."""
    if problem := devices.why_bfloat16_aborts(policy):
        pytest.skip(problem)
