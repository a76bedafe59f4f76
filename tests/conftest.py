"""Fixtures shared by all tests, what they run in, and the line about the machine."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mlpf.machine import devices
from mlpf.machine.host import read_host
from tests.support.slurm_cluster import SlurmCluster, why_not

# What every test runs in, whatever the shell says. To test on a GPU set CUDA_VISIBLE_DEVICES.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# The tests may run inside a job of Slurm; those about jobs set what they need.
for _name in [name for name in os.environ if name.startswith("SLURM_")]:
    del os.environ[_name]

# Read by click and rich: width of tables, colours, whether a terminal can draw.
_TERMINAL = {"COLUMNS": "80", "LINES": "25", "TERM": "xterm"}
_COLOURS = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


def pytest_report_header() -> list[str]:
    """Say what machine this is: which kernels compute depends on it."""
    settings = [f"{name}={value}" for name, value in devices.onednn_settings().items()]
    return [f"machine: {read_host().describe()}", " ".join(["TensorFlow", str(devices.build()), *settings])]


@pytest.fixture(scope="session", autouse=True)
def _same_terminal_everywhere():
    """Give tests and their child processes one terminal; pytest itself has looked at the real one before."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _TERMINAL.items():
            patch.setenv(name, value)
        for name in _COLOURS:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator, fresh for every test."""
    return np.random.default_rng(1234)


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The top of the checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def slurm_daemons() -> Iterator[SlurmCluster]:
    """A Slurm of two nodes for all tests of this process (of each worker of pytest-xdist its own)."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with SlurmCluster() as cluster:
        yield cluster


@pytest.fixture
def slurm(slurm_daemons: SlurmCluster) -> Iterator[SlurmCluster]:
    """The Slurm of two nodes, both idle; jobs that a test leaves are cancelled."""
    yield slurm_daemons
    slurm_daemons.cancel_all()
