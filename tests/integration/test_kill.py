"""kill -9 at any moment: what is there stays usable, and a second run ends as an undisturbed one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mlpf.data import shards
from mlpf.data.event import read_events
from mlpf.workflows import build, postprocess
from tests.support.edm4hep_files import simple_event, write_edm4hep
from tests.support.parquet_files import write_parquet

NAME = "clic_edm4hep/ttbar"
NUM_FILES = 8
SPLITS = {"split_seed": 2, "split_fractions": (0.6, 0.0, 0.4)}

# The work on small files takes milliseconds; slowed down, it can be killed in the middle.
DRIVER = """
import sys, time
from pathlib import Path
from mlpf.data import shards
from mlpf.data.event import EventsWriter
from mlpf.workflows import build, postprocess

def slow(function):
    def slower(*arguments):
        time.sleep(0.01)
        return function(*arguments)
    return slower

EventsWriter.write = slow(EventsWriter.write)
EventsWriter.finish = slow(EventsWriter.finish)
shards.serialize = slow(shards.serialize)
shards.source_entry = slow(shards.source_entry)
shards.MIN_BLOCK_BYTES = 1
inputs, output = Path(sys.argv[2]), Path(sys.argv[3])
if sys.argv[1] == "postprocess":
    postprocess.run([inputs], output)
else:
    build.run(NAME, output, [inputs], **SPLITS)
""".replace("NAME", repr(NAME)).replace("SPLITS", repr(SPLITS))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("root")
    for i in range(NUM_FILES):
        write_edm4hep(folder / f"reco_{i}.root", [simple_event(10.0 + i), simple_event(20.0 + i)])
    return folder


def listing(folder: Path) -> list[str]:
    return sorted(str(p) for p in folder.rglob("*"))


def content(folder: Path) -> dict[str, bytes]:
    """All files but those that locks are taken on."""
    files = [p for p in folder.rglob("*") if p.is_file() and ".lock" not in p.name]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def run_and_kill(command: str, inputs: Path, output: Path, changes: int, repo_root: Path) -> int:
    """Start the command and kill it when the output changed so many times; return the exit status."""
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, command, inputs, output], env=environment, stdout=subprocess.DEVNULL
    )
    before = listing(output)
    while process.poll() is None and changes > 0:
        now = listing(output)
        changes -= now != before
        before = now
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    return process.wait()


@pytest.mark.parametrize("kills", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_postprocess_ends_the_same_after_kills(root, tmp_path, repo_root, kills):
    postprocess.run([root], tmp_path / "undisturbed")
    output = tmp_path / "killed"
    output.mkdir()
    statuses = []
    for changes in np.random.default_rng(kills).integers(2, 8, kills):
        statuses.append(run_and_kill("postprocess", root, output, int(changes), repo_root))
        for path in output.glob("*.parquet"):
            assert len(read_events(path)) == 2  # complete, or not there
    assert -signal.SIGKILL in statuses
    summary = postprocess.run([root], output)
    assert summary.num_reused > 0
    assert content(output) == content(tmp_path / "undisturbed")


@pytest.mark.parametrize("kills", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_build_ends_the_same_after_kills(tmp_path, repo_root, monkeypatch, kills):
    monkeypatch.setattr(shards, "MIN_BLOCK_BYTES", 1)
    parquet = tmp_path / "parquet"
    parquet.mkdir()
    for i in range(NUM_FILES):
        write_parquet(parquet / f"reco_{i}.parquet", 2)
    build.run(NAME, tmp_path / "undisturbed", [parquet], **SPLITS)
    output = tmp_path / "killed"
    output.mkdir()
    final = output / NAME / "1.0.0"
    statuses = []
    for changes in np.random.default_rng(kills).integers(6, 18, kills):
        statuses.append(run_and_kill("build", parquet, output, int(changes), repo_root))
        if final.exists():
            assert (final / "dataset_info.json").exists()
    assert -signal.SIGKILL in statuses
    summary = build.run(NAME, output, [parquet], **SPLITS)
    assert sum(summary.events.values()) == 2 * NUM_FILES
    assert summary.new_events < 2 * NUM_FILES  # blocks that were finished are used
    assert content(output) == content(tmp_path / "undisturbed")
