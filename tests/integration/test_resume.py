"""A training that is interrupted again and again ends bit by bit as one that is not."""

import json
import signal
import time

import numpy as np
import pytest

from tests.support.fake_training import start, tiny_config
from tests.support.run_results import assert_same, result
from tests.support.waiting import PATIENCE_SECONDS, wait_until

# Dropout draws random numbers, the optimizer has a state, the schedule follows the step.
CONFIG = {
    "setup.num_epochs": 4,
    "setup.lr_schedule": "cosinedecay",
    "setup.lr_warmup_steps": 3,
    "setup.optimizer": "adamw",
    "setup.clipnorm": 1.0,
    "setup.deterministic": True,
    "parameters.output_decoding.dropout": 0.2,
}
STEPS = 3
# Seconds by which a step is longer where a process is to be caught in it: time for the signal to arrive.
CATCH = 1.0


def wait(process, code):
    output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == code, output[-3000:]
    return output


@pytest.fixture(scope="module")
def undisturbed(repo_root, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    wait(start(repo_root, run_dir, config=CONFIG), 0)
    return result(run_dir)


def checkpoints(run_dir):
    return {p.name for p in (run_dir / "checkpoints").glob("epoch_*")}


def wait_for(checkpoint, run_dir, process):
    def there():
        assert process.poll() is None, process.communicate()[0][-3000:]
        return checkpoint in checkpoints(run_dir)

    wait_until(there, checkpoint)


def test_killed_and_stopped_in_the_middle_it_ends_as_if_undisturbed(repo_root, tmp_path, undisturbed):
    run_dir = tmp_path / "run"
    config = CONFIG | {"callbacks.checkpoint.every_steps": 1}

    # kill -9 in the middle of the first epoch
    process = start(repo_root, run_dir, config=config, pause=CATCH)
    wait_for("epoch_1_step_1", run_dir, process)
    process.kill()
    wait(process, -signal.SIGKILL)

    # SIGTERM a little later
    process = start(repo_root, run_dir, config=config, pause=CATCH, resume=True)
    wait_for("epoch_1", run_dir, process)
    process.send_signal(signal.SIGTERM)
    assert "stopped: SIGTERM, after 1 epochs" in wait(process, 75)
    assert json.loads((run_dir / "status.json").read_text(encoding="utf-8"))["state"] == "stopped"

    # the time limit, before anything is done
    output = wait(start(repo_root, run_dir, config=config, resume=True, time_limit=0.01), 75)
    assert "stopped: time limit, after 1 epochs" in output

    # and to the end, saving at whole epochs only
    wait(start(repo_root, run_dir, config=CONFIG, resume=True), 0)
    assert_same(result(run_dir), undisturbed)
    assert json.loads((run_dir / "status.json").read_text(encoding="utf-8"))["state"] == "finished"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_kills_at_random_moments_lose_nothing(repo_root, tmp_path, undisturbed, seed):
    rng = np.random.default_rng(seed)
    run_dir = tmp_path / "run"
    config = CONFIG | {"callbacks.checkpoint.every_steps": 1}

    for _ in range(6):
        process = start(repo_root, run_dir, config=config, pause=0.1, resume=run_dir.exists())
        time.sleep(float(rng.uniform(3.0, 12.0)))
        process.kill()
        process.communicate()
        if process.returncode == 0:
            break
        if not (run_dir / "config.resolved.yaml").exists() and run_dir.exists():
            for file in run_dir.iterdir():
                file.unlink()
            run_dir.rmdir()
    else:
        wait(start(repo_root, run_dir, config=config, resume=run_dir.exists()), 0)

    assert_same(result(run_dir), undisturbed)


def test_an_epoch_of_other_batches_is_not_continued(repo_root, tmp_path):
    run_dir = tmp_path / "run"
    process = start(repo_root, run_dir, config=CONFIG | {"callbacks.checkpoint.every_steps": 1}, pause=CATCH)
    wait_for("epoch_1_step_1", run_dir, process)
    process.send_signal(signal.SIGUSR1)
    assert "SIGUSR1, after 0 epochs and" in wait(process, 75)

    output = wait(start(repo_root, run_dir, config=CONFIG, resume=True, ntrain=9), 2)
    assert "written in the middle of an epoch, but the batches have changed since" in output


def test_the_steps_are_as_many_as_the_tests_think():
    from mlpf.runs import data as training_data
    from tests.support.fake_training import open_fake

    training_data.open_split, original = open_fake, training_data.open_split
    try:
        train, _ = training_data.build_loaders(tiny_config(), 1)
    finally:
        training_data.open_split = original
    assert len(train.plan(1)) == STEPS
