"""Threads of libraries, and the report of the environment."""

import json
import os
import subprocess
import sys

import pytest

from mlpf.machine import session
from mlpf.machine.host import read_host

COUNT_THREADS = """
import os, sys
from mlpf.machine import session
from mlpf.machine.host import read_host
session.limit_library_threads(1 if sys.argv[1] == "one" else None)
import numpy as np
a = np.ones((600, 600)); a @ a
status = open("/proc/self/status").read().splitlines()
print(next(line.split()[1] for line in status if line.startswith("Threads")))
"""


@pytest.mark.skipif(read_host().usable_cores < 2, reason="one core has one thread anyway")
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs the process files of Linux")  # noqa: PTH110
def test_num_cpus_limits_the_threads_of_numpy():
    def threads(limit):
        clean = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
        command = [sys.executable, "-c", COUNT_THREADS, limit]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, env=clean).stdout)

    assert threads("one") == 1
    assert threads("all") > 1


def test_a_limit_that_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    session.limit_library_threads(1)
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_the_environment_is_plain_data_with_devices():
    facts = json.loads(json.dumps(session.environment()))
    assert facts["packages"]["keras"] != "not installed"
    assert facts["devices"][-1]["kind"] == "cpu"
    assert {"visible_devices", "tensorflow_build", "onednn", "tf32"} <= set(facts)
    assert facts["machine"] == read_host().as_dict()


def test_all_commands_that_run_a_network_prepare_their_process_alike(repo_root):
    """Otherwise one of them takes all memory of a GPU, or forgets a number format."""
    setters = ("grow_gpu_memory", "allow_tf32(", "set_dtype_policy", "set_threads")
    for folder in ("workflows", "runs"):
        for path in (repo_root / "mlpf" / folder).glob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert not [name for name in setters if f".{name}" in text.replace("setup.allow_tf32", "")], path
