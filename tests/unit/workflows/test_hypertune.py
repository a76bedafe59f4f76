"""The command hypertune from end to end, with pretended trainings."""

import json
import os
import signal
import subprocess
import sys

import click
import pytest
import yaml
from click.testing import CliRunner

from mlpf.cli.tuning import hypertune
from mlpf.engine.base import EngineFailed
from mlpf.engine.child import is_in_charge
from mlpf.errors import CheckpointError, ConfigError, DataError, MissingDependency, MLPFError, OutputExists
from mlpf.files.locking import locked
from mlpf.search.driver import NodeRefused, SearchFailed
from mlpf.training.loop.interruption import TrainingStopped
from mlpf.workflows import hypertune as workflow
from tests.support.configs import write_config
from tests.support.engines import Recorder
from tests.support.processes import no_process_left
from tests.support.search import state_of
from tests.support.waiting import wait_until

SPACE = """\
setup: {num_epochs: 2}
hypertune:
  space: {setup.lr: {float: [1.0e-4, 1.0e-2]}}
  algorithm: random
  num_trials: 2
  confirm: {top: 0}
"""
PROGRAM = [sys.executable, "-m", "tests.support.search_cli"]


@pytest.fixture
def place(tmp_path, monkeypatch, repo_root):
    """Configuration, directory of a search and the options that find the data."""
    monkeypatch.setattr(workflow, "program_before", lambda _: PROGRAM)
    monkeypatch.setattr(workflow, "_report", lambda _, plots: click.echo(f"report plots={plots}"))
    monkeypatch.setenv("PYTHONPATH", str(repo_root))
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")  # the command chooses another one for its process
    monkeypatch.setenv("MLPF_TEST_TRIALS", "pretend")
    dataset = tmp_path / "data" / "clic_edm4hep" / "ttbar" / "1.0.0"
    dataset.mkdir(parents=True)
    (dataset / "dataset_info.json").write_text("{}", encoding="utf-8")
    plan(tmp_path)
    return write_config(tmp_path, SPACE), tmp_path / "search", ["--data-dir", str(tmp_path / "data")]


def plan(folder, **runs):
    """Say how pretended trainings go; ``all`` stands for those that are not named."""
    (folder / "fake.json").write_text(
        json.dumps({run.replace("all", "*"): p for run, p in runs.items()}), encoding="utf-8"
    )


def search(*arguments):
    """Run the command in this process; errors are raised."""
    arguments = [*map(str, arguments)]
    if not {"--workers", "--site"} & {*arguments}:
        arguments = ["--workers", "1", "--cpus-per-trial", "1", *arguments]
    return CliRunner().invoke(hypertune, arguments, catch_exceptions=False, standalone_mode=False).output


def new(place, *arguments):
    """Begin a search."""
    return search("-c", place[0], "-o", place[1], *place[2], *arguments)


def start(place, *arguments):
    """Run the command in a process of its own."""
    config, directory, data = place
    command = [*PROGRAM, "hypertune", "-o", directory, "--workers", 1, "--cpus-per-trial", 1, *data]
    return subprocess.Popen(
        [str(word) for word in (*command, *(arguments or ["-c", config]))],
        env=os.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(*files):
    wait_until(lambda: all(f.exists() for f in files), f"{files}")


def lines(file):
    return file.read_text(encoding="utf-8").splitlines()


def status(directory):
    return json.loads((directory / "status.json").read_text(encoding="utf-8"))["state"]


def refused(error, match, *arguments):
    """Expect one line and exit code 2."""
    with pytest.raises(error, match=match) as caught:
        search(*arguments)
    if isinstance(caught.value, MLPFError):
        assert caught.value.exit_code == 2
        assert "\n" not in str(caught.value)


def test_a_search_runs_to_its_end(place):
    said = new(place, "--ntrain", 500)
    directory = place[1]
    assert "configurations 2/2  completed 2" in said
    assert said.rstrip().endswith("report plots=True")
    assert status(directory) == "finished"
    resolved = yaml.safe_load((directory / "config.resolved.yaml").read_text(encoding="utf-8"))
    assert resolved["hypertune"]["algorithm"] == "random"
    assert resolved["datasets"]["clic_edm4hep/ttbar"]["data_dir"] == place[2][1]
    options = {"ntrain": 500, "ntest": None, "devices": 1}
    assert json.loads((directory / "options.json").read_text(encoding="utf-8")) == options
    assert {r.status for r in state_of(directory).values()} == {"completed"}
    assert all(r.worker for r in state_of(directory).values())
    no_process_left(directory)


def test_two_workers_find_what_one_finds(place, tmp_path):
    new(place)
    two = (place[0], tmp_path / "two", place[2])
    search("-c", two[0], "-o", two[1], *two[2], "--workers", 2)
    tables = [
        {i: (r.values, r.objective, r.epochs) for i, r in state_of(d).items()} for d in (place[1], two[1])
    ]
    assert tables[0] == tables[1]


def test_a_finished_search_says_so(place):
    new(place)
    before = lines(place[1] / "starts.txt")
    assert "the search is finished; mlpf hypertune report writes its results again" in search(
        "-o", place[1], "--resume"
    )
    assert lines(place[1] / "starts.txt") == before


def test_a_finished_search_goes_on_with_a_raised_limit(place):
    config, directory, _ = place
    new(place, "--total-time", "1s", "--set", "hypertune.num_trials=4")
    done = len(state_of(directory))
    resolved = yaml.safe_load((directory / "config.resolved.yaml").read_text(encoding="utf-8"))
    assert resolved["hypertune"]["max_total_hours"] == pytest.approx(1 / 3600)
    if done < 4:
        search("-o", directory, "--resume", "--total-time", "1h")
    assert len(state_of(directory)) == 4
    assert config.exists()


def test_trials_that_all_fail_fail_the_search(place, tmp_path):
    plan(tmp_path, all={"kind": "nan"})
    with pytest.raises(SearchFailed, match="no trial was completed: it is too large") as caught:
        new(place)
    assert caught.value.exit_code == 1
    assert status(place[1]) == "failed"
    with pytest.raises(SearchFailed, match="no trial was completed"):
        search("-o", place[1], "--resume")


def test_a_search_that_gave_up_tries_again(place, tmp_path):
    plan(tmp_path, all={"code": 1})
    more = ["--set", "hypertune.max_retries=0", "--set", "hypertune.max_consecutive_failures=1"]
    with pytest.raises(SearchFailed, match=r"gave up: 1 trials in a row failed, .*exit code 1: the reason"):
        new(place, *more)
    plan(tmp_path)
    search("-o", place[1], "--resume")
    assert status(place[1]) == "finished"
    assert [r.status for r in state_of(place[1]).values()] == ["failed", "completed"]


def test_a_configuration_without_search(place, tmp_path):
    config = write_config(tmp_path, name="plain.yaml")
    refused(ConfigError, r"no section hypertune.* such as hypertune: \{space", "-c", config, "-o", place[1])


def test_a_search_that_cannot_work_is_refused(place):
    arguments = ["-c", place[0], "-o", place[1], *place[2], "--set", "hypertune.algorithm=asha"]
    refused(ConfigError, "min_epochs: 1 x factor 3 is more than setup.num_epochs 2", *arguments)
    assert not place[1].exists()


def test_a_dataset_that_is_not_there(place):
    refused(DataError, "clic_edm4hep/ttbar", "-c", place[0], "-o", place[1])
    assert not place[1].exists()


def test_keras_tuner_that_is_not_installed(place, monkeypatch):
    monkeypatch.setattr(workflow, "find_spec", lambda name: None if name == "keras_tuner" else name)
    arguments = ["-c", place[0], "-o", place[1]]
    refused(MissingDependency, r"keras_tuner: not installed.*\.\[hypertune\]", *arguments)


def test_a_directory_that_is_not_empty(place):
    place[1].mkdir()
    (place[1] / "notes.txt").touch()
    refused(OutputExists, "continue with --resume", "-c", place[0], "-o", place[1], *place[2])


def test_more_gpus_than_there_are(place, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    arguments = ["-c", place[0], "-o", place[1], *place[2], "--gpus-per-trial", 2]
    refused(ConfigError, r"2 GPU\(s\) each", *arguments)
    assert not place[1].exists()


def test_a_site_that_is_not_there(place):
    arguments = ["-c", place[0], "-o", place[1], *place[2], "--site", "atlantis"]
    refused(ConfigError, "site atlantis: no such site; there are ", *arguments)
    assert not place[1].exists()


def test_a_site_with_fewer_cores_than_a_trial_wants(place, tmp_path):
    site = tmp_path / "site.yaml"
    site.write_text("{description: x, provider: local, cores_per_node: 2}", encoding="utf-8")
    arguments = ["-c", place[0], "-o", place[1], *place[2], "--site", site, "--cpus-per-trial", 3]
    refused(ConfigError, "3", *arguments)
    assert not place[1].exists()


def test_pilot_jobs_that_are_too_short_for_any_trial(place, tmp_path):
    site = tmp_path / "site.yaml"
    site.write_text(
        "{description: x, provider: slurm, cores_per_node: 1, max_minutes: 1, stop_margin: 0}",
        encoding="utf-8",
    )
    arguments = ["-c", place[0], "-o", place[1], *place[2], "--site", site]
    refused(ConfigError, r"max_minutes 1 .* no trial would have a checkpoint", *arguments)
    assert not place[1].exists()


def test_nothing_to_resume(place):
    refused(CheckpointError, "nothing to resume", "-c", place[0], "-o", place[1], *place[2], "--resume")


def test_changed_settings_are_refused_with_the_difference(place, tmp_path):
    new(place, "--ntrain", 500)
    changed = write_config(tmp_path, SPACE.replace("random", "asha"), name="changed.yaml")
    arguments = ["--resume", "--ntrain", 1000, "--set", "setup.lr=0.5", "--set", "setup.num_epochs=3"]
    with pytest.raises(ConfigError) as caught:
        search("-c", changed, "-o", place[1], *place[2], *arguments)
    first, *lines = str(caught.value).splitlines()
    assert "these differ (before -> now)" in first
    assert sorted(lines) == [
        "--ntrain: 500 -> 1000",
        "hypertune.algorithm: random -> asha",
        "setup.lr: 0.001 -> 0.5",
        "setup.num_epochs: 2 -> 3",
    ]


def test_another_space_is_refused(place, tmp_path):
    new(place)
    changed = write_config(tmp_path, SPACE.replace("1.0e-4", "1.0e-5"), name="changed.yaml")
    with pytest.raises(ConfigError, match=r"hypertune\.space\.setup\.lr") as caught:
        search("-c", changed, "-o", place[1], *place[2], "--resume")
    assert caught.value.exit_code == 2


def test_trials_keep_their_limits_of_events_and_number_of_gpus(place, monkeypatch):
    """A batch grows with the GPUs of a trial: another number would be another training."""
    directory = place[1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    new(place, "--ntrain", 500, "--gpus-per-trial", 2)
    (directory / "oracle.json").unlink()
    with pytest.raises(ConfigError, match="--gpus-per-trial: 2 -> 1"):
        search("-o", directory, "--resume", "--gpus-per-trial", 1)
    search("-o", directory, "--resume")
    assert {(r.devices, r.on_gpu) for r in state_of(directory).values()} == {(2, True)}
    options = {"ntrain": 500, "ntest": None, "devices": 2}
    assert json.loads((directory / "options.json").read_text(encoding="utf-8")) == options


def test_data_may_move_between_two_parts_of_a_search(place, tmp_path):
    config, directory, data = place
    (tmp_path / "data").rename(tmp_path / "moved")
    search("-c", config, "-o", directory, "--data-dir", tmp_path / "moved")
    run = directory / "runs" / "a.yaml"
    run.write_text(config.read_text(encoding="utf-8").replace(SPACE, "setup: {lr: 0.25}\n"), encoding="utf-8")
    (tmp_path / "moved").rename(tmp_path / "data")
    (directory / "oracle.json").unlink()
    search("-c", config, "-o", directory, *data, "--resume")
    of_run = yaml.safe_load(run.read_text(encoding="utf-8"))
    assert of_run["datasets"]["clic_edm4hep/ttbar"]["data_dir"] == data[1]
    assert of_run["setup"]["lr"] == 0.25


def test_two_searches_in_one_directory(place):
    new(place)
    with locked(place[1] / ".lock", "x"):
        refused(OutputExists, "is at work there", "-o", place[1], "--resume")


def test_a_damaged_state_is_named(place):
    new(place)
    (place[1] / "oracle.json").write_text("{", encoding="utf-8")
    refused(CheckpointError, r"oracle\.json: damaged", "-o", place[1], "--resume")


def test_an_engine_that_cannot_start_leaves_the_directory_for_another_attempt(place, monkeypatch):
    def refuse(*_):
        raise EngineFailed("sbatch: error: no such partition")

    with monkeypatch.context() as patch:
        patch.setattr(workflow.Resources, "open", refuse)
        refused(EngineFailed, "sbatch: error: no such partition", "-c", place[0], "-o", place[1], *place[2])
    new(place)
    assert status(place[1]) == "finished"


def test_an_engine_that_fails_leaves_a_search_that_can_go_on(place, monkeypatch):
    engine = Recorder(EngineFailed("the interchange has ended"))
    with monkeypatch.context() as patch:
        patch.setattr(workflow.Resources, "open", lambda *_: engine)
        refused(EngineFailed, "the interchange has ended", "-c", place[0], "-o", place[1], *place[2])
    assert True in engine.ended
    assert status(place[1]) == "failed"
    search("-o", place[1], "--resume")
    assert status(place[1]) == "finished"
    assert {r.losses for r in state_of(place[1]).values()} == {0}


def test_an_engine_is_shut_down_whatever_fails_after_its_start(place, monkeypatch):
    engine = Recorder()

    def refuse(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(workflow.Resources, "open", lambda *_: engine)
    monkeypatch.setattr(workflow, "lay_out", refuse)
    with pytest.raises(OSError, match="no space left"):
        new(place)
    assert engine.ended


def test_a_worker_that_refuses_ends_the_command(place, tmp_path):
    plan(tmp_path, all={"code": 2})
    with pytest.raises(NodeRefused, match="run 0000: the reason") as caught:
        new(place)
    assert caught.value.exit_code == 2
    assert status(place[1]) == "failed"
    plan(tmp_path)
    search("-o", place[1], "--resume")
    assert status(place[1]) == "finished"


def test_a_signal_stops_a_search_that_can_go_on(place, tmp_path):
    directory = place[1]
    plan(tmp_path, all={"seconds": 0.3})
    process = start(place, "-c", place[0], "--set", "setup.num_epochs=12")
    wait_for(directory / "runs" / "0000" / "history.json")
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 75, said
    assert "stopped: SIGTERM, after 0 completed trials" in said
    assert status(directory) == "stopped"
    assert [(r.status, r.losses) for r in state_of(directory).values()] == [("waiting", 0)]
    no_process_left(directory)
    plan(tmp_path)
    assert "completed 2" in search("-o", directory, "--resume", *place[2])
    assert status(directory) == "finished"
    trained = lines(directory / "trained.txt")
    assert len(trained) == len(set(trained)) == 24


def test_a_second_interrupt_ends_at_once(place, tmp_path):
    directory = place[1]
    plan(tmp_path, all={"seconds": 600, "stubborn": True})
    process = start(place)
    wait_for(directory / "runs" / "0000" / "stubborn")
    driver = json.loads((directory / "driver.json").read_text(encoding="utf-8"))["driver"]
    process.send_signal(signal.SIGINT)
    wait_until(lambda: not is_in_charge(directory, driver), "the request to save")
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    no_process_left(directory)


def test_a_time_limit_stops_a_search(place, tmp_path):
    plan(tmp_path, all={"seconds": 600})
    with pytest.raises(TrainingStopped, match="time limit, after 0 completed trials") as caught:
        new(place, "--time-limit", "3s")
    assert caught.value.exit_code == 75
    assert status(place[1]) == "stopped"
    no_process_left(place[1])
