"""The Slurm that other tests run on: two nodes, and nothing left of it."""

import os
import subprocess
import sys
from pathlib import Path

import psutil


def test_a_job_runs_on_two_nodes(slurm, tmp_path):
    script = "#!/bin/bash\nsrun bash -c 'echo $SLURM_PROCID on $SLURMD_NODENAME'"
    job = slurm.sbatch(script, "--nodes=2", "--ntasks-per-node=1", f"--output={tmp_path}/out")
    assert slurm.wait(job)["JobState"] == "COMPLETED"
    assert sorted((tmp_path / "out").read_text(encoding="utf-8").splitlines()) == ["0 on n1", "1 on n2"]


def test_a_job_whose_node_goes_down_starts_again_on_the_other(slurm, tmp_path):
    script = "#!/bin/bash\necho ${SLURM_RESTART_COUNT:-0} $SLURMD_NODENAME >> starts\n"
    script += "[[ ${SLURM_RESTART_COUNT:-0} != 0 ]] || sleep 600"
    job = slurm.sbatch(script, "--requeue", "--nodelist=n1", "--output=out", cwd=tmp_path)
    slurm.wait_for(lambda: (tmp_path / "starts").exists(), "the first start")
    assert [(row.job, row.state, row.nodes) for row in slurm.squeue()] == [(job, "RUNNING", "n1")]
    slurm.down("n1")
    slurm.command("scontrol", "update", f"JobId={job}", "ReqNodeList=n2")
    slurm.wait_for_state(job, "PENDING")
    slurm.start_now(job)
    assert slurm.wait(job)["Restarts"] == "1"
    assert (tmp_path / "starts").read_text(encoding="utf-8").splitlines() == ["0 n1", "1 n2"]
    slurm.resume("n1")
    slurm.wait_until_idle()


RUN = """
import os, time
from tests.support.slurm_cluster import SlurmCluster
with SlurmCluster() as cluster:
    began = cluster.folder / "began"
    script = f"#!/bin/bash\\nsetsid sleep 600 & touch {began}; sleep 600"
    cluster.sbatch(script, "--nodes=2", "--output=/dev/null")
    cluster.wait_for(began.exists, "the start of the job")
    print(cluster.folder, flush=True)
    time.sleep(600)
"""


def test_nothing_is_left_when_the_tests_are_killed(slurm, repo_root):
    # Besides the one of these tests: two on one machine do not disturb each other.
    process = subprocess.Popen(
        [sys.executable, "-c", RUN],
        cwd=repo_root,
        env=os.environ | {"PYTHONPATH": str(repo_root)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        folder = Path(process.stdout.readline().strip())
        below = psutil.Process(process.pid).children(recursive=True)
        names = {each.name() for each in below}
        process.kill()
    assert {"munged", "slurmctld", "slurmd", "slurmstepd", "sleep"} <= names
    slurm.wait_for(lambda: not any(map(lives, below)), "the end of all processes")
    slurm.wait_for(lambda: not folder.exists(), "the end of their folder")
    assert slurm.node_states() == {"n1": "idle", "n2": "idle"}


def lives(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
