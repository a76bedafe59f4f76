"""A training on two nodes of a real Slurm: it trains like one process, stops, and goes on exactly."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml

from tests.support.datasets import write_dataset
from tests.support.fake_split import fake_event
from tests.support.models import TINY_NETWORK
from tests.support.saved_weights import saved_weights

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("horovod") is None, reason="Horovod is not built: make horovod"
)

NUM_EPOCHS = 25
EVENTS = {"train": 24, "valid": 8}
PROGRAMS = Path(sys.executable).parent
# Two ranks take two rows of four.
BATCH = "train_test_datasets.physical.batch_per_gpu"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The configuration of a short training on events in a folder."""
    folder = tmp_path_factory.mktemp("events")
    rng = np.random.default_rng(1)
    lengths = {split: rng.integers(3, 20, number) for split, number in EVENTS.items()}
    write_dataset(
        folder,
        {s: [fake_event(rng, int(n), f"{s}_{i}") for i, n in enumerate(ns)] for s, ns in lengths.items()},
    )
    path = folder / "tiny.yaml"
    # Without dropout: its masks differ between one large batch and two halves.
    heads = TINY_NETWORK["output_decoding"] | {"dropout": 0.0}
    sections = {
        "setup": {"num_epochs": NUM_EPOCHS, "lr_schedule": "cosinedecay"},
        "parameters": TINY_NETWORK | {"output_decoding": heads},
        "callbacks": {"tensorboard": False},
        "train_test_datasets": {"physical": {"batch_per_gpu": 4, "datasets": ["events"]}},
        "validation_dataset": "events",
        "validation_batch_size": 8,
        "evaluation_datasets": {},
        "datasets": {"events": {"version": "1.5.0", "data_dir": str(folder)}},
    }
    path.write_text(yaml.safe_dump(sections), encoding="utf-8")
    return path


def submit(slurm, repo_root, config, folder, *options, path=PROGRAMS, **variables):
    """Submit a training on two nodes; its run directory is ``folder/run``, its output ``folder/out``."""
    return slurm.sbatch(
        repo_root / "scripts" / "slurm" / "train.sbatch",
        *("--nodes=2", "--cpus-per-task=1", "--gpus-per-node=0", "--time=30", "--output=out", *options),
        arguments=["-c", str(config)],
        environment={
            "RUN_DIR": str(folder / "run"),
            "PATH": f"{path}:{PROGRAMS}:{os.environ['PATH']}",
            "PYTHONPATH": str(repo_root),
            **variables,
        },
        cwd=folder,
    )


@pytest.fixture(scope="module")
def undisturbed(slurm_daemons, repo_root, config, tmp_path_factory):
    """The folder of a training on two nodes that was never stopped."""
    folder = tmp_path_factory.mktemp("undisturbed")
    job = submit(slurm_daemons, repo_root, config, folder)
    assert slurm_daemons.wait(job)["JobState"] == "COMPLETED", (folder / "out").read_text(encoding="utf-8")
    return folder


def wait_for_epoch(slurm, folder):
    slurm.wait_for((folder / "run" / "history.json").exists, "the end of the first epoch")


def go_on_at_once(slurm, job):
    slurm.wait_for(lambda: slurm.job(job)["Restarts"] == "1", f"requeue of job {job}")
    slurm.wait_for_state(job, "PENDING")
    slurm.start_now(job)


def weights_of(folder):
    store = folder / "run" / "checkpoints"
    return saved_weights(store / json.loads((store / "latest.json").read_text(encoding="utf-8"))["folder"])


def losses_of(folder):
    history = json.loads((folder / "run" / "history.json").read_text(encoding="utf-8"))
    return [(record["epoch"], record["loss"], record["val_loss"]) for record in history]


def test_two_nodes_train_like_one_process_with_twice_the_batch(undisturbed, repo_root, config, tmp_path):
    assert "processes: 1 on n1, 1 on n2" in (undisturbed / "out").read_text(encoding="utf-8")
    words = ["-m", "mlpf.pipeline", "train", "-c", config, "-o", tmp_path / "run", "--set", f"{BATCH}=8"]
    environment = os.environ | {"PYTHONPATH": str(repo_root)}
    subprocess.run([sys.executable, *words], env=environment, check=True, capture_output=True)

    single, shared = weights_of(tmp_path), weights_of(undisturbed)
    assert single.keys() == shared.keys()
    for name, values in single.items():
        # Sums of float32 in another order, over 75 steps.
        np.testing.assert_allclose(shared[name], values, rtol=0, atol=1e-4, err_msg=name)


def test_a_training_that_slurm_warns_is_requeued_and_ends_as_if_undisturbed(
    slurm, repo_root, config, undisturbed, tmp_path
):
    job = submit(slurm, repo_root, config, tmp_path)
    wait_for_epoch(slurm, tmp_path)
    slurm.command("scancel", "--batch", "--signal=USR1", job)
    go_on_at_once(slurm, job)
    ended = slurm.wait(job)
    output = (tmp_path / "out").read_text(encoding="utf-8")
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "1"), output
    assert output.count("stopped: SIGUSR1, after") == 1  # one of the ranks speaks
    assert output.count("processes: 1 on n1, 1 on n2") == 2
    assert_same(tmp_path, undisturbed)


def assert_same(folder, other):
    assert losses_of(folder) == losses_of(other)
    assert len(losses_of(folder)) == NUM_EPOCHS
    weights = weights_of(other)
    for name, values in weights_of(folder).items():
        np.testing.assert_array_equal(values, weights[name], err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "state"),
    [((), "CANCELLED"), (("--batch", "--signal=TERM"), "FAILED")],
    ids=["scancel", "only the script"],
)
def test_sigterm_stops_all_ranks_in_order_and_requeues_nothing(
    slurm, repo_root, config, tmp_path, options, state
):
    job = submit(slurm, repo_root, config, tmp_path)
    wait_for_epoch(slurm, tmp_path)
    slurm.command("scancel", *options, job)
    ended = slurm.wait(job)
    slurm.wait_until_idle()
    output = (tmp_path / "out").read_text(encoding="utf-8")
    assert (ended["JobState"], ended["Restarts"]) == (state, "0"), output
    assert "everything is saved, continue with --resume" in output
    assert "stopped by SIGTERM, not requeued" in output
    assert json.loads((tmp_path / "run" / "status.json").read_text(encoding="utf-8"))["state"] == "stopped"


# Refuses its data on one node.
ONE_SIDED = """\
#!/usr/bin/env bash
if [[ "$SLURMD_NODENAME" == n2 && "$1" == train ]]; then set -- "$@" --data-dir nowhere; fi
exec "$MLPF" "$@"
"""


def test_what_one_node_refuses_ends_the_job(slurm, repo_root, config, tmp_path):
    program = tmp_path / "mlpf"
    program.write_text(ONE_SIDED, encoding="utf-8")
    program.chmod(0o755)
    job = submit(slurm, repo_root, config, tmp_path, path=tmp_path, MLPF=str(PROGRAMS / "mlpf"))
    ended = slurm.wait(job)
    output = (tmp_path / "out").read_text(encoding="utf-8")
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("FAILED", "2:0", "0"), output
    assert "error: events: not built, no nowhere/" in output
    assert "error: another process of this training ended" in output
    assert "Traceback" not in output


def test_an_unknown_network_interface_is_named_before_anything_starts(slurm, repo_root, config, tmp_path):
    job = submit(slurm, repo_root, config, tmp_path, NETWORK_INTERFACE="ib7")
    assert slurm.wait(job)["ExitCode"] == "2:0"
    assert "error: NETWORK_INTERFACE=ib7: no IPv4 address" in (tmp_path / "out").read_text(encoding="utf-8")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_job(slurm, repo_root, config, tmp_path):
    job = submit(slurm, repo_root, config, tmp_path)
    wait_for_epoch(slurm, tmp_path)
    (rank,) = [process for process in psutil.process_iter() if is_rank(process, job, "1")]
    rank.kill()
    ended = slurm.wait(job)
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("FAILED", "137:0", "0")
    assert "error: another process of this training ended" in (tmp_path / "out").read_text(encoding="utf-8")


def is_rank(process, job, number):
    try:
        variables = process.environ()
    except psutil.Error:
        return False
    return (variables.get("SLURM_JOB_ID"), variables.get("SLURM_PROCID")) == (job, number)


@pytest.mark.slow
def test_a_training_that_loses_a_node_goes_on_when_there_are_two_again(
    slurm, repo_root, config, undisturbed, tmp_path
):
    job = submit(slurm, repo_root, config, tmp_path)
    wait_for_epoch(slurm, tmp_path)
    slurm.down("n2")
    slurm.wait_for(lambda: slurm.job(job)["Restarts"] == "1", "Slurm to requeue the job")
    slurm.resume("n2")
    go_on_at_once(slurm, job)
    assert slurm.wait(job)["JobState"] == "COMPLETED", (tmp_path / "out").read_text(encoding="utf-8")
    assert_same(tmp_path, undisturbed)
