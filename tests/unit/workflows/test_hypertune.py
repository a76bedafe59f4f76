"""The command hypertune from end to end, with stand-ins for chief and workers."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import yaml
from click.testing import CliRunner
from mlpf.tuning.launcher import SearchFailed

from mlpf.cli.tuning import hypertune
from mlpf.errors import CheckpointError, ConfigError, DataError, MissingDependency, MLPFError, OutputExists
from mlpf.locking import locked
from mlpf.tuning import launcher
from mlpf.tuning.options import TrialOptions
from mlpf.workflows import hypertune as workflow
from tests.support.configs import write_config
from tests.support.fake_launch import PROGRAM, modules
from tests.support.fake_search import ORDERS
from tests.support.processes import wait_until_gone

SPACE = "hypertune: {space: {setup.lr: {float: [1.0e-4, 1.0e-2]}}, algorithm: asha}\n"
FINISH = {"expected": 1, "w-0": ["finish"]}


@pytest.fixture
def place(tmp_path, monkeypatch, repo_root):
    """Return configuration, directory of a search and the options that find the data."""
    for name, module in modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(launcher, "started_by", lambda: [*PROGRAM])
    monkeypatch.setenv("PYTHONPATH", str(repo_root))
    monkeypatch.setenv(ORDERS, json.dumps(FINISH))
    description = tmp_path / "data" / "clic_edm4hep" / "ttbar" / "1.0.0" / "dataset_info.json"
    description.parent.mkdir(parents=True)
    description.write_text("{}")
    return write_config(tmp_path, SPACE), tmp_path / "search", ["--data-dir", str(tmp_path / "data")]


def search(*arguments):
    """Run the command in this process; errors are raised."""
    done = CliRunner().invoke(
        hypertune, ["--name", "w", *map(str, arguments)], catch_exceptions=False, standalone_mode=False
    )
    return done.output


def start(place, *arguments, orders=FINISH):
    """Run the command in a process of its own."""
    config, directory, data = place
    environment = {**os.environ, ORDERS: json.dumps(orders)}
    command = [*PROGRAM, "hypertune", "-c", config, "-o", directory]
    return subprocess.Popen(
        [*command, "--name", "w", *data, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(*files):
    deadline = time.monotonic() + 60
    while not all(f.exists() for f in files) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert all(f.exists() for f in files)


def pids(directory):
    lines = [line for f in directory.glob("starts-*.txt") for line in f.read_text().splitlines()]
    return [json.loads(line)["pid"] for line in lines]


def status(directory):
    return json.loads((directory / "status.json").read_text())["state"]


def test_a_search_runs_to_its_end(place):
    config, directory, data = place
    said = search("-c", config, "-o", directory, *data, "--ntrain", 500)
    assert "not encrypted: users of this machine" in said
    assert "report plots=True" in said
    assert "table closed" in said
    assert status(directory) == "finished"
    resolved = yaml.safe_load((directory / "config.resolved.yaml").read_text())
    assert resolved["hypertune"]["algorithm"] == "asha"
    assert resolved["datasets"]["clic_edm4hep/ttbar"]["data_dir"] == data[1]
    assert json.loads((directory / "options.json").read_text()) == {
        "ntrain": 500,
        "ntest": None,
        "devices": 1,
    }
    wait_until_gone(pids(directory))


def test_a_finished_search_says_so(place):
    config, directory, data = place
    search("-c", config, "-o", directory, *data)
    before = len(pids(directory))
    assert "the search is finished" in search("-o", directory, "--resume")
    assert len(pids(directory)) == before


@pytest.mark.parametrize(
    ("orders", "reason"),
    [
        ({"status": "failed"}, "no trial was completed"),
        ({"problem": "5 trials in a row crashed"}, "gave up: 5 trials in a row crashed"),
    ],
)
def test_a_search_without_success_fails(place, monkeypatch, orders, reason):
    config, directory, data = place
    monkeypatch.setenv(ORDERS, json.dumps(FINISH | orders))
    with pytest.raises(SearchFailed, match=reason) as caught:
        search("-c", config, "-o", directory, *data)
    assert caught.value.exit_code == 1
    assert status(directory) == "failed"


def refused(error, match, *arguments):
    with pytest.raises(error, match=match) as caught:
        search(*arguments)
    if isinstance(caught.value, MLPFError):
        assert caught.value.exit_code == 2


def test_a_configuration_without_search(place, tmp_path):
    config = write_config(tmp_path, name="plain.yaml")
    refused(ConfigError, r"no section hypertune.* such as hypertune: \{space", "-c", config, "-o", place[1])


def test_a_search_that_cannot_work_is_refused(place, monkeypatch):
    def refuse(config):
        raise ConfigError("hypertune.space.x: no such key")

    for name, module in modules(refuse).items():
        monkeypatch.setitem(sys.modules, name, module)
    refused(ConfigError, "no such key", "-c", place[0], "-o", place[1], *place[2])
    assert not place[1].exists()


def test_a_dataset_that_is_not_there(place):
    refused(DataError, "clic_edm4hep/ttbar", "-c", place[0], "-o", place[1])
    assert not place[1].exists()


def test_keras_tuner_that_is_not_installed(place, monkeypatch):
    monkeypatch.setattr(workflow, "find_spec", lambda name: None if name == "keras_tuner" else name)
    refused(
        MissingDependency, r"keras_tuner: not installed.*mlpf\[hypertune\]", "-c", place[0], "-o", place[1]
    )


def test_a_directory_that_is_not_empty(place):
    place[1].mkdir()
    (place[1] / "notes.txt").touch()
    refused(OutputExists, "continue with --resume", "-c", place[0], "-o", place[1], *place[2])


def test_more_gpus_than_there_are(place, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    arguments = ["-c", place[0], "-o", place[1], *place[2], "--gpus-per-trial", 2]
    refused(ConfigError, r"2 GPU\(s\) each", *arguments)
    assert not place[1].exists()


@pytest.mark.parametrize("name", ["chief-1", "a b", "../x", "The.Chief"])
def test_names_that_cannot_be(place, name):
    refused(ConfigError, "without the word chief", "-c", place[0], "-o", place[1], *place[2], "--name", name)


def test_nothing_to_resume(place):
    refused(CheckpointError, "nothing to resume", "-c", place[0], "-o", place[1], *place[2], "--resume")


def test_changed_settings_are_refused_with_the_difference(place, tmp_path):
    config, directory, data = place
    search("-c", config, "-o", directory, *data, "--ntrain", 500)
    changed = write_config(tmp_path, SPACE.replace("asha", "random"), name="changed.yaml")
    with pytest.raises(ConfigError) as caught:
        search("-c", changed, "-o", directory, *data, "--resume", "--ntrain", 1000, "--set", "setup.lr=0.5")
    first, *lines = str(caught.value).splitlines()
    assert "these differ (before -> now)" in first
    assert lines == [
        "setup.lr: 0.001 -> 0.5",
        "hypertune.algorithm: asha -> random",
        "--ntrain: 500 -> 1000",
    ]


def test_trials_keep_their_number_of_gpus(place, monkeypatch):
    """A batch grows with the GPUs of a trial: another number would be another training."""
    config, directory, data = place
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    search("-c", config, "-o", directory, *data, "--workers", 1, "--gpus-per-trial", 2)
    for file in (directory / "oracle.json", directory / "done-w-0"):
        file.unlink()
    refused(ConfigError, r"--gpus-per-trial: 2 -> 1", "-o", directory, "--resume", "--gpus-per-trial", 1)
    arguments = ["--join", "auto", "-o", directory, "--gpus-per-trial", 1]
    refused(ConfigError, "have 2 GPUs each", *arguments)
    monkeypatch.setenv(ORDERS, json.dumps({"expected": 2, "w-0": ["finish"], "w-1": ["finish"]}))
    search("-o", directory, "--resume")
    gpus = [json.loads(f.read_text().splitlines()[-1])["gpus"] for f in directory.glob("starts-w-*.txt")]
    assert sorted(gpus) == ["0,1", "2,3"]


def test_data_may_move_between_two_parts_of_a_search(place, tmp_path):
    config, directory, data = place
    (tmp_path / "data").rename(tmp_path / "moved")
    moved = ["--data-dir", str(tmp_path / "moved")]
    search("-c", config, "-o", directory, *moved)
    run = directory / "runs" / "a.yaml"
    run.parent.mkdir()
    run.write_text(config.read_text().replace(SPACE, "setup: {lr: 0.25}\n"))
    (tmp_path / "moved").rename(tmp_path / "data")
    (directory / "oracle.json").unlink()
    search("-c", config, "-o", directory, *data, "--resume")
    of_run = yaml.safe_load(run.read_text())
    assert of_run["datasets"]["clic_edm4hep/ttbar"]["data_dir"] == data[1]
    assert of_run["setup"]["lr"] == 0.25


def test_two_searches_in_one_directory(place):
    config, directory, data = place
    search("-c", config, "-o", directory, *data)
    with locked(directory / ".lock", "x"):
        refused(OutputExists, "is at work there", "-o", directory, "--resume")


def test_a_warning_where_the_network_can_reach_the_chief(place):
    config, directory, data = place
    said = search("-c", config, "-o", directory, *data, "--address", "0.0.0.0")
    assert "warning: the chief listens on 0.0.0.0, not encrypted" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_stop_a_search_that_can_go_on(place, number):
    directory = place[1]
    process = start(place, orders={"expected": 1})
    wait_for(directory / "ready-w-0")
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert f"stopped: {signal.Signals(number).name}, after 0 completed trials" in said
    assert "report plots=False" in said
    assert (directory / "saved-w-0").exists()
    assert status(directory) == "stopped"
    wait_until_gone(pids(directory))
    resumed = start(place, "--resume")
    said, _ = resumed.communicate(timeout=60)
    assert resumed.returncode == 0, said
    assert status(directory) == "finished"


def test_a_second_interrupt_ends_at_once(place):
    directory = place[1]
    process = start(place, orders={"expected": 1, "w-0": ["stubborn"]})
    wait_for(directory / "ready-w-0")
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    wait_until_gone(pids(directory))


def test_a_time_limit_stops_a_search(place):
    process = start(place, "--time-limit", "2s", orders={"expected": 1})
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert "stopped: time limit" in said
    wait_until_gone(pids(place[1]))


def test_a_killed_launcher_leaves_no_process(place):
    directory = place[1]
    process = start(place, "--workers", 2, orders={"expected": 9, "w-0": ["child"], "w-1": ["stubborn"]})
    wait_for(directory / "child-w-0", directory / "ready-w-1")
    left = [*pids(directory), int((directory / "child-w-0").read_text())]
    assert len(left) == 4
    process.kill()
    process.wait()
    wait_until_gone(left)
    process.stdout.close()
    resumed = start(place, "--resume")  # the lock is gone with its process
    said, _ = resumed.communicate(timeout=60)
    assert resumed.returncode == 0, said


def test_another_launcher_joins_and_ends_with_the_search(place):
    directory = place[1]
    process = start(place, orders={"expected": 2, "w-0": ["finish"]})
    wait_for(directory / "chief.json")
    environment = {**os.environ, ORDERS: json.dumps({"v-0": ["finish"]})}
    command = [*PROGRAM, "hypertune", "--join", "auto"]
    joined = subprocess.run(
        [*command, "-o", directory, "--name", "v"], env=environment, capture_output=True, text=True
    )
    said, _ = process.communicate(timeout=60)
    assert (joined.returncode, process.returncode) == (0, 0), joined.stderr + said
    assert (directory / "done-v-0").exists()


def test_a_finished_search_needs_nobody(place):
    config, directory, data = place
    search("-c", config, "-o", directory, *data)
    before = len(pids(directory))
    assert "the search is finished" in search("--join", "auto", "-o", directory, "--name", "v")
    assert len(pids(directory)) == before


def test_who_joined_and_was_not_told_ends_with_the_search(place):
    directory = place[1]
    process = start(place, orders={"expected": 2, "w-0": ["finish"]})
    wait_for(directory / "done-w-0")
    environment = {**os.environ, ORDERS: json.dumps({"v-0": ["work"]})}
    command = [*PROGRAM, "hypertune", "--join", "auto", "-o", directory, "--name", "v"]
    joined = subprocess.Popen(command, env=environment)
    wait_for(directory / "ready-v-0")
    (directory / "done-x").touch()
    said = process.communicate(timeout=60)[0]
    assert (process.returncode, joined.wait(timeout=60)) == (0, 0), said


def test_who_joined_stops_with_the_search(place):
    directory = place[1]
    process = start(place, orders={"expected": 2})
    wait_for(directory / "ready-w-0")
    command = [*PROGRAM, "hypertune", "--join", "localhost:40000"]
    joined = subprocess.Popen([*command, "-o", directory, "--name", "v"], stderr=subprocess.PIPE, text=True)
    wait_for(directory / "ready-v-0")
    process.terminate()
    process.communicate(timeout=60)
    said = joined.communicate(timeout=60)[1]
    assert joined.returncode == 75
    assert "the search was stopped: SIGTERM" in said
    assert (directory / "saved-v-0").exists()
    options = json.loads((directory / "starts-v-0.txt").read_text())["options"]
    assert options["--chief"] == "localhost:40000"


def test_a_chief_on_the_loopback_of_another_machine_cannot_be_joined(place):
    directory = place[1]
    directory.mkdir()
    (directory / "config.resolved.yaml").write_text(place[0].read_text())
    TrialOptions().write(directory)
    (directory / "chief.json").write_text(json.dumps({"address": "127.0.0.1", "port": 1, "pid": 1}))
    (directory / ".lock").write_text(json.dumps({"host": f"not-{socket.gethostname()}", "pid": 1}))
    for at in ("auto", "localhost:5"):
        refused(
            ConfigError, r"listens on .* only.*start the search with --address", "--join", at, "-o", directory
        )
