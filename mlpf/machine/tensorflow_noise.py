"""Suppress known messages that TensorFlow always prints while it is imported.

A build with CUDA registers cuFFT, cuDNN and cuBLAS twice and reports that as an error on every machine. The
lines come from C++ before log levels are set, so no environment variable suppresses them.
"""

import importlib.util
import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_KNOWN = re.compile(
    rb"Unable to register cu(FFT|DNN|BLAS) factory"
    rb"|All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    rb"|computation placer already registered"
)
_STDERR = 2


def quieten_tensorflow() -> None:
    """Filter standard error during the import of TensorFlow, whenever that happens."""
    if "tensorflow" not in sys.modules and not any(isinstance(f, _Finder) for f in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Import hook for TensorFlow with a loader that filters standard error. Works once."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - of Python's interface
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Return the spec of TensorFlow; None for other modules."""
        if fullname != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            load = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                with known_lines_left_out():
                    load(module)

            loader.exec_module = exec_module
        return spec


@contextmanager
def known_lines_left_out() -> Iterator[None]:
    """During the block, pass on lines written to file descriptor 2, except for known ones."""
    sys.stderr.flush()
    real = os.dup(_STDERR)
    reading, writing = os.pipe()
    os.dup2(writing, _STDERR)
    os.close(writing)
    passing = threading.Thread(target=_pass_on, args=(reading, real), daemon=True)
    passing.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(real, _STDERR)  # closes the last end for writing, which ends the thread
        passing.join()
        os.close(real)


def _pass_on(reading: int, real: int) -> None:
    with os.fdopen(reading, "rb") as lines:
        for line in lines:
            if not _KNOWN.search(line):
                os.write(real, line)
