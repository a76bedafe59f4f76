"""kill -9 at any moment: what is there stays usable, and a second run ends as an undisturbed one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mlpf.data.dataset import blocks
from mlpf.data.events import Events
from mlpf.workflows import build, postprocess
from tests.support.edm4hep_files import simple_event, write_edm4hep
from tests.support.parquet_files import write_parquet

NAME = "clic_edm4hep/ttbar"
NUM_FILES = 8
SPLITS = {"split_seed": 2, "split_fractions": (0.6, 0.0, 0.4)}

# Kills itself before a step of its work, counted from 1: a change of files below the output (in Python), or
# a call of what writes. So the moment does not depend on how fast the machine is.
DRIVER = """
import os, signal, sys
from pathlib import Path
from mlpf.data.dataset import blocks
from mlpf.data.events import EventsWriter
from mlpf.workflows import build, postprocess

inputs, output, left = Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])

def step():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def counted(function):
    def counting(*arguments):
        step()
        return function(*arguments)
    return counting

def watch(event, arguments):
    changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
    changes |= event == "open" and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
    if changes and str(arguments[0]).startswith(str(output)):
        step()

EventsWriter.write = counted(EventsWriter.write)
EventsWriter.finish = counted(EventsWriter.finish)
blocks.serialize = counted(blocks.serialize)
blocks.source_entry = counted(blocks.source_entry)
blocks.MIN_BLOCK_BYTES = 1
sys.addaudithook(watch)
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


def content(folder: Path) -> dict[str, bytes]:
    """All files but those that locks are taken on."""
    files = [p for p in folder.rglob("*") if p.is_file() and ".lock" not in p.name]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def run_and_kill(command: str, inputs: Path, output: Path, step: int, repo_root: Path) -> int:
    """Run the command, which dies before a step of its work; return the exit status."""
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    arguments = [sys.executable, "-c", DRIVER, command, inputs, output, str(step)]
    return subprocess.run(arguments, env=environment, stdout=subprocess.DEVNULL, check=False).returncode


# The first file is complete after 5 steps, each further one after 4; a second run skips what is complete.
@pytest.mark.parametrize("steps", [[9], pytest.param([7, 6, 11, 8], marks=pytest.mark.slow)])
def test_postprocess_ends_the_same_after_kills(root, tmp_path, repo_root, steps):
    postprocess.run([root], tmp_path / "undisturbed")
    output = tmp_path / "killed"
    output.mkdir()
    for step in steps:
        assert run_and_kill("postprocess", root, output, step, repo_root) == -signal.SIGKILL
        for path in output.glob("*.parquet"):
            assert len(Events.from_parquet(path)) == 2  # complete, or not there
    summary = postprocess.run([root], output)
    assert summary.num_reused > 0
    assert content(output) == content(tmp_path / "undisturbed")


# The first block is complete after 15 steps, each further one after 8; all end with the 77th.
@pytest.mark.parametrize("steps", [[22], [75], pytest.param([17, 20, 23, 18], marks=pytest.mark.slow)])
def test_build_ends_the_same_after_kills(tmp_path, repo_root, monkeypatch, steps):
    monkeypatch.setattr(blocks, "MIN_BLOCK_BYTES", 1)
    parquet = tmp_path / "parquet"
    parquet.mkdir()
    for i in range(NUM_FILES):
        write_parquet(parquet / f"reco_{i}.parquet", 2)
    build.run(NAME, tmp_path / "undisturbed", [parquet], **SPLITS)
    output = tmp_path / "killed"
    output.mkdir()
    final = output / NAME / "1.0.0"
    for step in steps:
        assert run_and_kill("build", parquet, output, step, repo_root) == -signal.SIGKILL
        assert not final.exists()
    summary = build.run(NAME, output, [parquet], **SPLITS)
    assert sum(summary.events.values()) == 2 * NUM_FILES
    assert summary.new_events < 2 * NUM_FILES  # blocks that were finished are used
    assert content(output) == content(tmp_path / "undisturbed")
