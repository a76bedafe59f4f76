"""A search with driver and workers in one job of a real Slurm, which goes back into the queue by itself."""

import json
import sys
from collections import Counter

import pytest

from mlpf.config.loading import write_resolved
from tests.support.search import search_config, state_of

SITE = "{description: two nodes, provider: slurm, cores_per_node: 1, max_minutes: 30, stop_margin: 1}"
NUM_TRIALS, NUM_EPOCHS = 4, 3


@pytest.fixture
def submit(slurm, repo_root, tmp_path):
    """Return a function that submits the search of a configuration file and returns its number."""
    (tmp_path / "site.yaml").write_text(SITE, encoding="utf-8")
    (tmp_path / "fake.json").write_text(json.dumps({"*": {"seconds": 3.0}}), encoding="utf-8")
    program = tmp_path / "bin" / "mlpf"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/bash\nexec {sys.executable} -m tests.support.search_cli "$@"\n', encoding="utf-8"
    )
    program.chmod(0o755)
    environment = {
        "PATH": f"{program.parent}:{slurm.environment['PATH']}",
        "PYTHONPATH": str(repo_root),
        "MLPF_TEST_TRIALS": "pretend",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "RUN_DIR": str(tmp_path / "search"),
    }
    options = ("--nodes=2", "--cpus-per-task=1", "--gpus-per-node=0", "--time=30", f"--output={tmp_path}/log")

    def give(config):
        return slurm.sbatch(
            repo_root / "scripts" / "slurm" / "hypertune.sbatch",
            *options,
            arguments=["--site", str(tmp_path / "site.yaml"), "-c", str(config)],
            environment=environment,
            cwd=repo_root,
        )

    return give


def test_a_search_that_is_refused_ends_the_job_on_all_nodes(slurm, submit, tmp_path):
    (tmp_path / "config.yaml").write_text("setup: {lrr: 1}\n", encoding="utf-8")
    assert slurm.wait(submit(tmp_path / "config.yaml"))["ExitCode"] == "2:0"
    said = (tmp_path / "log").read_text(encoding="utf-8")
    assert "setup.lrr: unknown key (did you mean 'lr'?)" in said
    assert "the search ended with exit code 2" in said
    assert not (tmp_path / "search").exists()


def test_a_warned_search_goes_back_into_the_queue_and_ends(slurm, submit, tmp_path):
    write_resolved(
        search_config(algorithm="random", num_trials=NUM_TRIALS, num_epochs=NUM_EPOCHS),
        tmp_path / "config.yaml",
    )
    job = submit(tmp_path / "config.yaml")
    directory = tmp_path / "search"
    slurm.wait_for(lambda: (directory / "trained.txt").exists(), "the first epoch")
    slurm.command("scancel", "--batch", "--signal=USR1", job)
    slurm.wait_for(lambda: slurm.job(job)["Restarts"] == "1", "the job in the queue again")
    if slurm.state(job) == "PENDING":
        slurm.start_now(job)
    assert slurm.wait(job)["ExitCode"] == "0:0", (tmp_path / "log").read_text(encoding="utf-8")[-3000:]

    said = (tmp_path / "log").read_text(encoding="utf-8")
    assert "stopped: SIGUSR1, after" in said
    assert "start 1: mlpf hypertune" in said
    assert "--resume" in said
    records = state_of(directory)
    assert {r.status for r in records.values()} == {"completed"}
    assert {(r.losses, r.crashes) for r in records.values()} == {(0, 0)}
    assert {r.worker.split("-")[0] for r in records.values()} == {"n1", "n2"}
    trained = Counter((directory / "trained.txt").read_text(encoding="utf-8").splitlines())
    assert set(trained) == {f"{run} {e}" for run in records for e in range(1, NUM_EPOCHS + 1)}
    # A pretended training may be stopped between an epoch and its history.
    assert sum(trained.values()) <= NUM_TRIALS * NUM_EPOCHS + 2
