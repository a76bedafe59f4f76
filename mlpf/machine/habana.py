"""Habana Gaudi: load the plug-in that makes its cards TensorFlow devices."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

from mlpf.errors import MissingDependency, one_line

# The last release on the package index.
_PLUGIN = "habana-tensorflow"
_LAST_RELEASE = "1.14.0.493"
_SUPPORTED = "TensorFlow 2.15 and Python 3.10"


def load_habana() -> int:
    """Make Gaudi cards TensorFlow devices. Call before the first operation of TensorFlow.

    Returns:
        Number of cards.

    Raises:
        MissingDependency: the plug-in is missing or for another TensorFlow or Python, or there is no driver
            or card.
    """
    import tensorflow as tf

    here = f"TensorFlow {tf.__version__} and Python {sys.version_info.major}.{sys.version_info.minor}"
    try:
        with _convolution_of_keras_2():
            from habana_frameworks.tensorflow import load_habana_module
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("habana_frameworks"):
            raise
        raise MissingDependency(
            f"-g: the package {_PLUGIN} is not installed; its last release {_LAST_RELEASE} is for "
            f"{_SUPPORTED}, here are {here}; habana/README.md has a container, or leave out -g"
        ) from None
    except (ImportError, OSError, AttributeError) as error:
        raise MissingDependency(
            f"-g: {_PLUGIN} {_version()} does not load with {here} ({one_line(error)}); "
            f"it is for {_SUPPORTED} and needs the Gaudi libraries: see habana/README.md"
        ) from None
    try:
        load_habana_module()
    except Exception as error:  # noqa: BLE001 - the plug-in raises plain Exception
        raise MissingDependency(
            f"-g: {_PLUGIN} {_version()} cannot start ({one_line(error)}); "
            "are driver and card there? hl-smi shows them"
        ) from None
    cards = len(tf.config.list_physical_devices("HPU"))
    if cards == 0:
        raise MissingDependency(
            f"-g: {_PLUGIN} {_version()} is loaded, but finds no Gaudi card; check with hl-smi"
        )
    return cards


@contextmanager
def _convolution_of_keras_2() -> Iterator[None]:
    """Provide a class of Keras 2 while the plug-in is imported: the plug-in replaces one of its methods.

    Keras 3 has no such class. Our networks have no convolutions, so it is not used.
    """
    from keras.src.layers.convolutional import base_conv

    base_conv.Conv = type("Conv", (), {})
    try:
        yield
    finally:
        del base_conv.Conv


def _version() -> str:
    """Return the version of the plug-in."""
    try:
        return version(_PLUGIN)
    except PackageNotFoundError:
        return "of unknown version"
