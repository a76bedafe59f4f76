"""Preparation by the engine of clusters gives what the processes of one machine give."""

import os
import re
import subprocess
import sys

import pytest

from tests.support.edm4hep_files import simple_event, write_edm4hep
from tests.support.waiting import PATIENCE_SECONDS

NAME = "clic_edm4hep/ttbar"
SPLITS = ("--split-seed", "2", "--split-fractions", "0.6,0.2,0.2")
NUM_FILES = 9
SLURM_SITE = "description: two nodes\nprovider: slurm\ncores_per_node: 1\nmax_minutes: 30\n"
LOCAL_SITE = "description: one core of this machine\nprovider: local\ncores_per_node: 1\n"


@pytest.fixture(params=["parsl", "slurm"])
def site(request, tmp_path, monkeypatch):
    """A site file of two nodes with one core each."""
    if request.param == "slurm":
        monkeypatch.setenv("SLURM_CONF", request.getfixturevalue("slurm").environment["SLURM_CONF"])
    path = tmp_path / "site.yaml"
    path.write_text(SLURM_SITE if request.param == "slurm" else LOCAL_SITE, encoding="utf-8")
    return "--site", path.name, "--nodes", "2"


@pytest.fixture
def mlpf(tmp_path, monkeypatch, repo_root):
    """Run a command of a checkout that is not installed, with paths relative to the test's folder."""
    monkeypatch.delenv("PYTHONPATH", raising=False)

    def run(*words):
        done = subprocess.run(
            [sys.executable, repo_root / "mlpf" / "pipeline.py", *words],
            cwd=tmp_path,
            env=os.environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def content(folder):
    """Bytes of all files below a folder but locks."""
    files = [p for p in folder.rglob("*") if p.is_file() and ".lock" not in p.name]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def counts(said, folder):
    """Return what a command said, without times and rates, and the name of its output."""
    lines = [line for line in said.splitlines() if not re.search(r"second|wall time|written to", line)]
    return [re.sub(r"[ ─━]+", " ", line).replace(folder, "OUTPUT") for line in lines]


@pytest.mark.slow
def test_a_site_gives_what_one_machine_gives(tmp_path, mlpf, site):
    (tmp_path / "root").mkdir()
    for i in range(NUM_FILES):
        write_edm4hep(tmp_path / "root" / f"reco_{i}.root", [simple_event(10.0 + i + j) for j in range(3)])
    (tmp_path / "root" / "bad.root").write_bytes(b"no ROOT file" * 99)
    said = {}
    for where, options in (("here", ("-j", "2")), ("there", site)):
        mlpf("postprocess", "root/reco_[12].root", "-o", f"parquet-{where}")  # a run that was interrupted
        first = mlpf("postprocess", "root", "-o", f"parquet-{where}", *options)
        assert "skipped root/bad.root" in first
        build = ("build", NAME, "--data-dir", f"data-{where}", "-i", f"parquet-{where}", *SPLITS, *options)
        said[where] = [counts(text, where) for text in (first, mlpf(*build), mlpf(*build))]
    assert said["there"] == said["here"]
    assert any("2" in line for line in said["here"][0] if "reused" in line)
    assert any("reused" in line for line in said["here"][2])
    for folder in ("parquet", "data"):
        assert content(tmp_path / f"{folder}-there") == content(tmp_path / f"{folder}-here")
    assert len(content(tmp_path / "parquet-here")) == NUM_FILES
    assert not list(tmp_path.rglob(".engine"))
