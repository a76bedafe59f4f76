"""The launcher with stand-ins for chief and worker (tests/support/fake_search.py)."""

import json
import os
import signal
import time
from dataclasses import replace

import pytest

from mlpf.engine.device_groups import DeviceGroup
from mlpf.tuning import launcher as module
from mlpf.tuning.launcher import ChiefPlace, Launcher, SearchFailed
from mlpf.tuning.processes import Patience
from tests.support.configs import write_config
from tests.support.fake_launch import PROGRAM
from tests.support.fake_search import ORDERS
from tests.support.processes import alive

HURRY = Patience(first_pause=0.01, longest_pause=0.05, leave=20, save=20, end=5, listen=60)
# Where workers of the test leave only when they are asked.
ASKED = replace(HURRY, leave=0.2)
SPACE = "hypertune: {space: {setup.lr: {float: [1.0e-4, 1.0e-2]}}}\n"


class Stop:
    """A request to stop that the test gives."""

    reason = None


class View:
    """Calls a function of the test in each round."""

    def __init__(self, action):
        self.action, self.closed = action, 0

    def update(self):
        self.action()

    def close(self):
        self.closed += 1


class Search:
    """A search of stand-ins in one directory."""

    def __init__(self, directory, monkeypatch, repo_root):
        self.directory, self.lines, self.stop = directory, [], Stop()
        self._monkeypatch, self._root = monkeypatch, repo_root

    def run(self, workers=1, action=lambda: None, patience=HURRY, groups=None, port=0, joins=False, **orders):
        environment = {"PYTHONPATH": str(self._root), ORDERS: json.dumps({"expected": workers, **orders})}
        for name, value in environment.items():
            self._monkeypatch.setenv(name, value)
        deadline = time.monotonic() + 60

        def act():
            assert time.monotonic() < deadline, self.lines
            action()

        self.view = View(act)
        launcher = Launcher(
            self.directory,
            [f"w-{i}" for i in range(workers)],
            groups or [DeviceGroup()] * workers,
            "uid",
            self.lines.append,
            place=None if joins else ChiefPlace("127.0.0.1", port),
            program=PROGRAM,
            patience=patience,
        )
        return launcher.run(self.stop, self.view)

    def starts(self, name):
        file = self.directory / f"starts-{name}.txt"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def has(self, *names):
        return all((self.directory / name).exists() for name in names)

    def all_gone(self):
        files = self.directory.glob("starts-*.txt")
        pids = [json.loads(line)["pid"] for file in files for line in file.read_text().splitlines()]
        return bool(pids) and not any(map(alive, pids))


@pytest.fixture
def search(tmp_path, monkeypatch, repo_root):
    monkeypatch.setattr(module, "_TICK_SECONDS", 0.0)
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.02)
    directory = tmp_path / "search"
    directory.mkdir()
    write_config(directory, SPACE, name="config.resolved.yaml")
    return Search(directory, monkeypatch, repo_root)


def test_a_search_that_ends_leaves_no_process(search):
    assert search.run(2, **{"w-0": ["finish"], "w-1": ["finish"]}) is None
    assert search.all_gone()
    assert search.lines == []
    assert search.view.closed == 1


def test_workers_start_when_the_chief_listens_and_get_their_options(search):
    groups = [DeviceGroup({"CUDA_VISIBLE_DEVICES": "3,5"}, 2, 4)]
    search.run(groups=groups, port=0, **{"w-0": ["finish"]})
    (start,) = search.starts("w-0")
    assert start["options"] == {"--id": "w-0", "--launcher": "uid", "--num-cpus": "4", "--gpus": "2"}
    assert start["gpus"] == "3,5"
    (chief,) = search.starts("chief")
    assert chief["gpus"] == ""
    assert chief["options"] == {"--address": "127.0.0.1", "--port": "0"}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_a_worker_is_bound_to_its_cores(search):
    core = max(os.sched_getaffinity(0))
    search.run(groups=[DeviceGroup(cpus=frozenset({core}))], **{"w-0": ["finish"]})
    assert search.starts("w-0")[0]["cpus"] == [core]
    assert set(search.starts("chief")[0]["cpus"]) == os.sched_getaffinity(0)


def test_a_dead_worker_starts_again_under_its_own_id(search):
    search.run(2, **{"w-0": ["crash", "crash", "finish"], "w-1": ["finish"]})
    assert [s["options"]["--id"] for s in search.starts("w-0")] == ["w-0"] * 3
    assert len({s["pid"] for s in search.starts("w-0")}) == 3
    assert len(search.starts("w-1")) == 1
    assert [line.split(";")[0] for line in search.lines] == [
        "w-0: died (exit code 1), starts again in 0.01 s",
        "w-0: died (exit code 1), starts again in 0.02 s",
    ]


def test_a_killed_worker_starts_again(search):
    def kill():
        starts = search.starts("w-0")
        if search.has("ready-w-0") and len(starts) == 1 and alive(starts[0]["pid"]):
            os.kill(starts[0]["pid"], signal.SIGKILL)

    search.run(action=kill, **{"w-0": ["work", "finish"]})
    assert "died (signal 9)" in search.lines[0]
    assert len(search.starts("w-0")) == 2


def test_one_worker_is_given_up_and_the_others_go_on(search):
    def end():
        if any("w-0: given up (exit code 1, 8 in a row)" in line for line in search.lines):
            (search.directory / "done-w-1").touch()

    assert search.run(2, end, ASKED, expected=1, **{"w-0": ["crash"]}) is None
    assert len(search.starts("w-0")) == 8
    assert len(search.starts("w-1")) == 1


def test_all_workers_given_up_end_the_search(search):
    patience = Patience(first_pause=0.01, longest_pause=0.02, worker_deaths=3)
    with pytest.raises(
        SearchFailed, match=r"(?s)all workers are given up.*w-0: something went wrong"
    ) as caught:
        search.run(patience=patience, **{"w-0": ["crash"]})
    assert caught.value.exit_code == 1
    assert len(search.starts("w-0")) == 3
    assert search.all_gone()


def test_a_worker_that_ends_trials_is_not_given_up(search):
    records = {}

    def one_more_trial():  # as if the worker ended a trial before each of its deaths
        records[f"t{len(records)}"] = {"trial_id": "t", "run": "t", "status": "completed", "worker": "w-0"}
        text = json.dumps({"records": records, "finished": False, "problem": ""})
        if len(search.starts("w-0")) < 5:
            (search.directory / "oracle.json").write_text(text)

    patience = Patience(first_pause=0.1, longest_pause=0.1, worker_deaths=3)
    search.run(action=one_more_trial, patience=patience, **{"w-0": ["crash"] * 5 + ["finish"]})
    assert len(search.starts("w-0")) == 6


def test_a_worker_started_wrongly_is_given_up_at_once(search):
    with pytest.raises(SearchFailed, match=r"(?s)error: w-0 cannot do that") as caught:
        search.run(**{"w-0": ["refuse"]})
    assert caught.value.exit_code == 2
    assert len(search.starts("w-0")) == 1


def test_a_dead_chief_starts_again_on_its_port_and_workers_go_on(search):
    def kill():
        if search.has("ready-w-0"):
            (search.directory / "die").touch()
        if len(search.starts("chief")) == 2:
            (search.directory / "done-w-0").touch()

    search.run(1, kill, ASKED, chief=["die", "serve"], **{"w-0": ["work"]})
    first, second = search.starts("chief")
    said = json.loads((search.directory / "chief.json").read_text())
    assert first["options"]["--port"] == "0"
    assert second["options"]["--port"] == str(said["port"])
    assert len(search.starts("w-0")) == 1
    assert search.has("saved-w-0")  # it did not leave by itself and was asked


def test_a_chief_whose_port_is_taken_gets_another(search):
    def kill():
        if search.has("ready-w-0"):
            (search.directory / "die").touch()
        if len(search.starts("chief")) == 3:
            (search.directory / "done-w-0").touch()

    search.run(1, kill, ASKED, chief=["die", "refuse", "serve"], **{"w-0": ["work"]})
    ports = [start["options"]["--port"] for start in search.starts("chief")]
    assert ports[0] == ports[2] == "0"
    assert ports[1] != "0"


def test_a_chief_that_dies_again_and_again_ends_the_search(search):
    with pytest.raises(SearchFailed, match=r"(?s)5 times in a row.*chief: something went wrong") as caught:
        search.run(chief=["crash"])
    assert caught.value.exit_code == 1
    assert len(search.starts("chief")) == 5
    assert search.starts("w-0") == []


def test_a_chief_started_wrongly_ends_the_search_at_once(search):
    with pytest.raises(SearchFailed, match=r"(?s)error: chief cannot do that") as caught:
        search.run(chief=["refuse"])
    assert caught.value.exit_code == 2
    assert len(search.starts("chief")) == 1


def test_the_file_of_another_chief_does_not_count(search):
    (search.directory / "chief.json").write_text(json.dumps({"pid": 1, "port": 1}))
    search.run(**{"w-0": ["finish"]})
    assert search.starts("w-0")


def test_a_request_to_stop_lets_workers_save(search):
    def stop():
        if search.has("ready-w-0", "ready-w-1"):
            search.stop.reason = "SIGTERM"

    assert search.run(2, action=stop) == "SIGTERM"
    assert search.has("saved-w-0", "saved-w-1")
    assert search.all_gone()


def test_who_does_not_stop_is_killed(search):
    def stop():
        if search.has("ready-w-0"):
            search.stop.reason = "time limit"

    patience = Patience(save=0.2, end=0.2)
    assert search.run(action=stop, patience=patience, **{"w-0": ["stubborn"]}) == "time limit"
    assert search.lines[0] == "w-0: did not end within 0.2 s of SIGTERM, killed"
    assert search.all_gone()


def test_who_does_not_leave_at_the_end_is_asked_then_killed(search):
    assert search.run(patience=Patience(leave=0.2, end=0.2), **{"w-0": ["linger"]}) is None
    assert search.lines == ["w-0: did not end within 0.2 s of SIGTERM, killed"]
    assert search.all_gone()


def test_an_impatient_user_ends_all_at_once(search):
    def interrupt():
        if search.has("ready-w-0"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search.run(action=interrupt, **{"w-0": ["stubborn"]})
    assert search.all_gone()


def test_workers_that_joined_end_by_themselves(search):
    (search.directory / "oracle.json").write_text("{}")
    assert search.run(2, joins=True, **{"w-0": ["crash", "finish"], "w-1": ["finish"]}) is None
    assert search.starts("chief") == []


def test_trials_end_with_a_worker_that_is_killed(search):
    pids = []

    def kill():
        if not pids and search.has("child-w-0"):
            pids.append(int((search.directory / "child-w-0").read_text()))
            os.kill(search.starts("w-0")[0]["pid"], signal.SIGKILL)

    search.run(action=kill, **{"w-0": ["child", "finish"]})
    deadline = time.monotonic() + 60
    while alive(pids[0]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(pids[0])
