"""One trial of a search: equal to an ordinary training, honest about its end, and safe to kill."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import tensorflow as tf

from mlpf.config.loading import write_resolved
from mlpf.errors import CheckpointError, DataError
from mlpf.runs import data as training_data
from mlpf.training.loop.interruption import TrainingStopped
from mlpf.training.loop.outcome import TrainingFailed
from mlpf.workflows import hypertune_trial as trial
from mlpf.workflows import train
from tests.support.fake_training import open_fake, start, tiny_config
from tests.support.run_results import assert_same, result

CONFIG = {
    "setup.num_epochs": 4,
    "setup.lr_schedule": "cosinedecay",
    "setup.deterministic": True,
    "parameters.output_decoding.dropout": 0.2,
    "callbacks.physics.every": 0,
}


@pytest.fixture(autouse=True)
def _events(monkeypatch):
    monkeypatch.setattr(training_data, "open_split", open_fake)


@pytest.fixture
def search(tmp_path):
    """Return a function that writes a search with one run, ``a``, and returns its directory."""

    def write(hypertune=None, **overrides):
        config = tiny_config(**CONFIG, **overrides)
        section = {"space": {"setup.lr": {"float": [1e-4, 1e-3]}}} | (hypertune or {})
        (tmp_path / "runs").mkdir()
        write_resolved(config.with_overrides({"hypertune": section}), tmp_path / "config.resolved.yaml")
        write_resolved(config, tmp_path / "runs" / "a.yaml")
        return tmp_path

    return write


def outcome(directory):
    return json.loads((directory / "runs" / "a.outcome.json").read_text(encoding="utf-8"))


def failed(directory, epochs=1):
    with pytest.raises(TrainingFailed) as caught:
        trial.run(directory, "a", epochs)
    found = outcome(directory)
    assert (found["state"], found["reason"]) == ("failed", str(caught.value))
    assert caught.value.exit_code == 3
    return found


def test_rungs_end_as_an_ordinary_training(search, tmp_path, monkeypatch):
    directory = search({"max_inference_ms": 1e6, "max_parameters": 10**6})
    trial.run(directory, "a", 2)
    first = outcome(directory)
    assert (first["state"], first["kind"], first["epochs"]) == ("completed", "", 2)
    assert 0 < first["inference_ms"] < 1e6

    monkeypatch.setattr(trial, "inference_time", None)  # is known: not measured again
    trial.run(directory, "a", 4)
    last = outcome(directory)
    assert last == first | {"epochs": 4, "reason": ""}

    train.run(tiny_config(**CONFIG), tmp_path / "ordinary")
    assert_same(result(directory / "runs" / "a"), result(tmp_path / "ordinary"))


def test_a_network_that_is_too_large(search):
    found = failed(search({"max_parameters": 100}))
    assert found["kind"] == "limit"
    assert found["reason"] == f"{found['num_parameters']} parameters, hypertune.max_parameters is 100"
    assert found["epochs"] == 0


def test_a_network_that_is_too_slow(search):
    directory = search({"max_inference_ms": 1e-6})
    found = failed(directory)
    assert found["kind"] == "limit"
    assert found["reason"].endswith("ms for one event, hypertune.max_inference_ms is 1e-06")
    assert failed(directory) == found  # the time is not measured again


def test_time_is_measured_only_where_it_is_asked_for(search):
    directory = search({"objective": {"val_loss": 1.0, "num_parameters": 1e-6}})
    trial.run(directory, "a", 1)
    assert outcome(directory)["inference_ms"] is None


def test_time_is_measured_for_an_objective(search):
    directory = search({"objective": {"val_loss": 1.0, "inference_ms": 0.1}})
    trial.run(directory, "a", 1)
    assert outcome(directory)["inference_ms"] > 0


def test_a_loss_that_is_not_finite(search):
    found = failed(search(**{"setup.lr": 1e30, "setup.optimizer": "sgd"}), epochs=3)
    assert found["kind"] == "nan"
    assert "not finite" in found["reason"]


def test_a_configuration_that_is_not_valid(search):
    directory = search()
    path = directory / "runs" / "a.yaml"
    path.write_text(
        path.read_text(encoding="utf-8").replace("num_epochs: 4", "num_epochs: -4"), encoding="utf-8"
    )
    found = failed(directory)
    assert found["kind"] == "refused"
    assert "setup.num_epochs" in found["reason"]


def test_a_network_without_bins_for_the_events(search):
    graph = {"parameters.combined_graph_layer.bin_size": 8, "parameters.combined_graph_layer.max_num_bins": 2}
    found = failed(search(**graph))
    assert found["kind"] == "refused"
    assert "the model takes 16" in found["reason"]


def test_a_network_that_cannot_be_built(search):
    found = failed(search(**{"parameters.combined_graph_layer.distance_dim": 2**70}))
    assert found["kind"] == "refused"
    assert "the network cannot be built (ValueError: " in found["reason"]


def test_memory_that_does_not_suffice(search, monkeypatch):
    def no_memory(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor\n" + "node " * 999)

    monkeypatch.setattr(train, "build_trainer", no_memory)
    found = failed(search())
    assert found["kind"] == "memory"
    assert found["reason"].startswith(
        "out of memory: ResourceExhaustedError: OOM when allocating tensor node"
    )
    assert len(found["reason"]) < 250  # not the whole graph


def test_a_dataset_that_is_missing_is_not_the_fault_of_the_trial(search, monkeypatch):
    def missing(*_):
        raise DataError("a: not there")

    monkeypatch.setattr(training_data, "open_split", missing)
    directory = search()
    with pytest.raises(DataError, match="not there"):
        trial.run(directory, "a", 1)
    assert (outcome(directory)["kind"], outcome(directory)["reason"]) == ("error", "a: not there")


def test_what_was_killed_before_its_report_is_not_trained_again(search, monkeypatch):
    directory = search()
    trial.run(directory, "a", 1)
    before = outcome(directory)
    (directory / "runs" / "a.outcome.json").unlink()
    (directory / "runs" / "a" / "history.json").unlink()
    monkeypatch.setattr(train, "run", None)
    trial.run(directory, "a", 1)
    assert outcome(directory) == before
    assert len(json.loads((directory / "runs" / "a" / "history.json").read_text(encoding="utf-8"))) == 1


def test_what_was_killed_before_its_first_checkpoint_starts_anew(search):
    directory = search()
    left = directory / "runs" / "a"
    for folder in ("logs", "checkpoints/.epoch_1.part"):
        (left / folder).mkdir(parents=True)
    (left / "logs" / "events").write_text("half", encoding="utf-8")
    left.with_name("a.outcome.json").write_text('{"state": "completed"}', encoding="utf-8")
    trial.run(directory, "a", 1)
    assert not (left / "logs").exists()
    assert (outcome(directory)["state"], outcome(directory)["epochs"]) == ("completed", 1)


def test_early_stopping_completes_a_trial_and_its_promotion_at_once(search):
    section = {"patience": 1, "min_delta": 100.0}
    directory = search(**{"callbacks.early_stopping": section})
    for epochs in (3, 4):
        trial.run(directory, "a", epochs)
        assert (outcome(directory)["state"], outcome(directory)["epochs"]) == ("completed", 2)
        assert outcome(directory)["reason"].startswith("early stopping after epoch 2")


def test_a_signal_before_the_training_stops_at_once(search, monkeypatch):
    monkeypatch.setattr(trial, "build_network", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    directory = search()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingStopped, match="SIGTERM, before the training"):
        trial.run(directory, "a", 1)
    assert outcome(directory)["state"] == "stopped"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_that_nobody_wrote(search):
    directory = search()
    with pytest.raises(CheckpointError, match=r"b\.yaml: no such file"):
        trial.run(directory, "b", 1)
    with pytest.raises(CheckpointError, match="not a search directory"):
        trial.run(directory / "runs", "a", 1)


def test_stopped_and_killed_processes_end_as_undisturbed(search, tmp_path, repo_root):
    directory = search(**{"callbacks.checkpoint.every_steps": 1})
    checkpoints = directory / "runs" / "a" / "checkpoints"

    def process(code, until=None, number=signal.SIGTERM, pause=0.3):
        started = start(repo_root, directory, pause=pause, trial={"run": "a", "epochs": 2, "num_cpus": 1})
        deadline = time.monotonic() + 120
        while until and not (checkpoints / until).exists():
            assert started.poll() is None, started.communicate()[0][-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if until:
            started.send_signal(number)
        output = started.communicate(timeout=120)[0]
        assert started.returncode == code, output[-3000:]
        return output

    process(-signal.SIGKILL, "epoch_1_step_1", signal.SIGKILL)
    assert not (directory / "runs" / "a.outcome.json").exists()
    process(75, "epoch_1")
    assert (outcome(directory)["state"], outcome(directory)["epochs"]) == ("stopped", 1)
    output = process(0, pause=0.0)
    assert "\r" not in output
    assert "\x1b" not in output
    assert outcome(directory)["state"] == "completed"
    train.run(tiny_config(**CONFIG), tmp_path / "ordinary", stop_after=2)
    assert_same(result(directory / "runs" / "a"), result(tmp_path / "ordinary"))


def test_exit_code_of_the_command(search, repo_root):
    directory = search({"max_parameters": 100})
    done = subprocess.run(
        [sys.executable, "mlpf/pipeline.py", "hypertune", "trial", directory, "a", "--epochs", "1"],
        cwd=repo_root,
        env=os.environ | {"PYTHONPATH": str(repo_root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    (said,) = (line for line in done.stderr.splitlines() if line.startswith("failed: "))
    assert said.endswith("parameters, hypertune.max_parameters is 100")
