"""Fixtures shared by all tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.slurm_cluster import SlurmCluster, why_not

# Tests share two cores: one thread per process keeps timings and results steady.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


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
