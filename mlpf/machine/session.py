"""Set up the process: seeds, threads and number format; report what it runs on."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mlpf import __version__
from mlpf.errors import ConfigError
from mlpf.machine import devices
from mlpf.machine.habana import load_habana
from mlpf.machine.host import read_host

_REPORTED_PACKAGES = ("tensorflow", "keras", "numpy", "tensorflow-datasets", "array-record", "pyarrow")


def set_seeds(seed: int) -> None:
    """Seed Python, NumPy, Keras and TensorFlow."""
    import keras

    keras.utils.set_random_seed(seed)


def use_deterministic_operations() -> None:
    """Let TensorFlow only use deterministic operations. Operations without such a form raise an error."""
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()


def limit_library_threads(num_cpus: int | None) -> None:
    """Limit OpenMP (MKL, some builds of TensorFlow) and NumPy's OpenBLAS to ``num_cpus`` threads.

    Call before NumPy and TensorFlow are imported. Variables that the user has set are kept.
    """
    if num_cpus is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(num_cpus))


def set_threads(num_cpus: int | None) -> None:
    """Limit TensorFlow to ``num_cpus`` threads; None = all cores.

    Has no effect once TensorFlow has run its first operation.
    """
    import tensorflow as tf

    if num_cpus is None:
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(num_cpus)
        tf.config.threading.set_inter_op_parallelism_threads(num_cpus)
    except RuntimeError:
        # TensorFlow has started before, in a program that uses this package.
        return


def gpu_memory_peak() -> int | None:
    """Return the peak memory of TensorFlow on one GPU so far, in bytes; None without a GPU."""
    import tensorflow as tf

    names = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices("GPU")]
    return max((tf.config.experimental.get_memory_info(name)["peak"] for name in names), default=None)


def set_dtype_policy(name: str) -> None:
    """Set the Keras number format: ``float32``, ``mixed_bfloat16`` or ``mixed_float16``.

    Raises:
        ConfigError: TensorFlow would abort with it.
    """
    import keras

    if problem := devices.why_bfloat16_aborts(name):
        raise ConfigError(problem)

    keras.config.set_dtype_policy(name)


def prepare(
    dtype: str,
    allow_tf32: bool,
    *,
    num_cpus: int | None = None,
    deterministic: bool = False,
    habana_enabled: bool = False,
) -> None:
    """Set up a process that runs a network. Call before the first operation of TensorFlow.

    GPU memory is allocated when needed, so that several processes can share a GPU.

    Args:
        dtype: number format of Keras.
        allow_tf32: let GPUs round float32 products to TensorFloat-32.
        num_cpus: threads; None = all cores.
        deterministic: only use deterministic operations.
        habana_enabled: load the plug-in of Gaudi.

    Raises:
        ConfigError: TensorFlow would abort with this number format.
        MissingDependency: no plug-in, driver or card of Gaudi.
    """
    if deterministic:
        use_deterministic_operations()
    set_threads(num_cpus)
    if habana_enabled:
        load_habana()
    devices.grow_gpu_memory()
    devices.allow_tf32(allow_tf32)
    set_dtype_policy(dtype)


def environment() -> dict[str, Any]:
    """Return versions, platform, machine, devices and thread counts as plain data."""
    import tensorflow as tf

    return {
        "mlpf": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "machine": read_host().as_dict(),
        "packages": {name: _version(name) for name in _REPORTED_PACKAGES},
        **devices.report(),
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads(),
    }


def _version(package: str) -> str:
    """Return the installed version of a package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
