"""Two processes of Horovod train like one, stop together and resume."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.fake_training import start
from tests.support.saved_weights import saved_weights

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("horovod") is None, reason="Horovod is not built: make horovod"
)

LAUNCHER = (str(Path(sys.executable).with_name("horovodrun")), "-np", "2", "--gloo")
# Without dropout: its masks differ between one large batch and two halves.
CONFIG = {
    "setup.num_epochs": 3,
    "setup.lr_schedule": "cosinedecay",
    "parameters.output_decoding.dropout": 0.0,
}
SHARED = CONFIG | {"train_test_datasets.physical.batch_per_gpu": 4}
TIMES = ("seconds", "per_second", "wait_share")


def wait(process, succeeds=True):
    output, _ = process.communicate(timeout=300)
    assert (process.returncode == 0) == succeeds, output[-3000:]
    return output


def weights_of(run_dir):
    folder = json.loads((run_dir / "checkpoints" / "latest.json").read_text(encoding="utf-8"))["folder"]
    return saved_weights(run_dir / "checkpoints" / folder)


def history_of(run_dir):
    history = json.loads((run_dir / "history.json").read_text(encoding="utf-8"))
    return [{k: v for k, v in r.items() if not any(t in k for t in TIMES)} for r in history]


@pytest.fixture(scope="module")
def single(repo_root, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("single") / "run"
    wait(start(repo_root, run_dir, config=CONFIG))
    return run_dir


def assert_same(run_dir, other):
    a, b = weights_of(run_dir), weights_of(other)
    assert a.keys() == b.keys()
    for name, values in a.items():
        np.testing.assert_allclose(values, b[name], rtol=0, atol=1e-5, err_msg=name)
    for found, expected in zip(history_of(run_dir), history_of(other), strict=True):
        assert found == pytest.approx(expected, rel=1e-4)  # sums of float32 in another order


def test_two_processes_train_like_one_with_twice_the_batch(repo_root, tmp_path, single):
    run_dir = tmp_path / "run"
    output = wait(start(repo_root, run_dir, launcher=LAUNCHER, config=SHARED, horovod=True))

    assert_same(run_dir, single)
    assert output.count("epoch 1/3") == 1  # one of them speaks
    status = json.loads((run_dir / "status.json").read_text(encoding="utf-8"))
    assert status["state"] == "finished"


def test_they_stop_together_at_the_time_limit_and_go_on(repo_root, tmp_path, single):
    run_dir = tmp_path / "run"
    output = wait(
        start(repo_root, run_dir, launcher=LAUNCHER, config=SHARED, horovod=True, time_limit=0.5, pause=0.01),
        succeeds=False,
    )
    assert output.count("stopped: time limit") == 1
    assert json.loads((run_dir / "status.json").read_text(encoding="utf-8"))["state"] == "stopped"

    wait(start(repo_root, run_dir, launcher=LAUNCHER, config=SHARED, horovod=True, resume=True))
    assert_same(run_dir, single)


def test_early_stopping_by_what_only_the_first_process_measures(repo_root, tmp_path):
    early = {"patience": 1, "min_delta": 100.0, "monitor": "val_met_response_iqr"}
    config = SHARED | {"callbacks.early_stopping": early}
    output = wait(start(repo_root, tmp_path / "run", launcher=LAUNCHER, config=config, horovod=True))
    assert len(history_of(tmp_path / "run")) == 2
    assert "early stopping after epoch 2" in " ".join(output.split())
    assert json.loads((tmp_path / "run" / "status.json").read_text(encoding="utf-8"))["state"] == "finished"
    wait(start(repo_root, tmp_path / "run", launcher=LAUNCHER, config=config, horovod=True, resume=True))
    assert len(history_of(tmp_path / "run")) == 2
