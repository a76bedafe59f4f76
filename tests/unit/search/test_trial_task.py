import json
import os
import signal
import sys
import threading
import time

import pytest

from mlpf.config.loading import load_config, write_resolved
from mlpf.config.search.space import trial_config
from mlpf.engine import child
from mlpf.engine.base import PILOT_END_VARIABLE, SLOT_VARIABLE
from mlpf.engine.child import SAVE_SECONDS, announce_driver, ask_all_to_stop
from mlpf.files.atomic import read_json
from mlpf.files.run_directory import RESOLVED_CONFIG
from mlpf.search import trial_task
from mlpf.search.trial_files import TrialFiles
from mlpf.search.trial_task import TrialEnd, TrialTask, train_trial
from tests.support.search import search_config

LR = 0.01


@pytest.fixture
def place(tmp_path, monkeypatch, repo_root):
    """A search with one run, ``0000``, whose driver is ``d``."""
    monkeypatch.setenv("PYTHONPATH", str(repo_root))
    monkeypatch.setenv(SLOT_VARIABLE, "host-0")
    monkeypatch.delenv(PILOT_END_VARIABLE, raising=False)
    monkeypatch.setattr(trial_task, "_LATE_SECONDS", 0.1)
    monkeypatch.setattr(child, "_NAP_SECONDS", 0.1)
    monkeypatch.setattr(trial_task, "_NAP_SECONDS", 0.1)
    directory = tmp_path / "search"
    (directory / "runs").mkdir(parents=True)
    lay_out(directory)
    announce_driver(directory, "d")
    return directory


def lay_out(directory, **section):
    config = search_config(**section)
    write_resolved(config, directory / RESOLVED_CONFIG)
    write_resolved(trial_config(config, {"setup.lr": LR}, None), TrialFiles(directory, "0000").config)


def train(directory, plan=None, trial_id="0000", **fields):
    """Train run 0000 as the plan says."""
    (directory.parent / "fake.json").write_text(json.dumps({"0000": plan or {}}), encoding="utf-8")
    fields = {"epochs": 3, "num_cpus": 2, "driver": "d"} | fields
    program = (sys.executable, "-m", "tests.support.fake_trial")
    order = TrialTask(directory, trial_id, "0000", program=program, arguments=(), **fields)
    return train_trial(order)


def starts(directory):
    return [line.split() for line in (directory / "starts.txt").read_text(encoding="utf-8").splitlines()]


def once_training(directory, then):
    """Call ``then`` when the first epoch is done, in a thread."""

    def wait():
        while not (directory / "runs" / "0000" / "history.json").exists():
            time.sleep(0.01)
        then()

    threading.Thread(target=wait, daemon=True).start()


def test_a_trial_is_a_training_of_its_configuration(place):
    end = train(place, trial_id="0007")
    assert (end.state, end.worker, end.best_epoch) == ("completed", "host-0", 3)
    assert end.objective == pytest.approx(10 * LR + 1 / 3, abs=1e-12)  # as the stand-in makes it
    wanted = {"epoch": 3, "val_loss": end.objective, "num_parameters": 1000, "trained_epochs": 3}
    assert end.metrics == wanted
    assert end.seconds > 0
    assert [s[:4] for s in starts(place)] == [["0000", "3", "2", "tensorflow"]]
    files = TrialFiles(place, "0000")
    assert load_config(files.config).hypertune is None
    noted = read_json(files.worker, dict)
    assert (noted["trial_id"], noted["worker"]) == ("0007", "host-0")
    assert abs(time.time() - noted["since"]) < 600


def test_the_objective_of_a_rung_is_of_its_epochs(place):
    """A run that went further before the driver heard of it: killed after a later rung began."""
    run_dir = place / "runs" / "0000"
    run_dir.mkdir()
    history = [{"epoch": e, "val_loss": float(v)} for e, v in ((1, 5), (2, 4), (3, 3))]
    (run_dir / "history.json").write_text(json.dumps(history), encoding="utf-8")
    assert [train(place, epochs=epochs).objective for epochs in (1, 2, 3)] == [5.0, 4.0, 3.0]


@pytest.mark.parametrize("kind", ["memory", "nan", "limit", "refused"])
def test_a_trial_that_fails_for_good(place, kind):
    end = train(place, {"kind": kind})
    assert (end.state, end.kind, end.reason) == ("failed", kind, "it is too large")


def test_a_metric_that_no_epoch_has_fails_the_trial(place):
    lay_out(place, objective="val_jet_iqr")
    end = train(place)
    assert (end.state, end.kind) == ("failed", "nan")
    assert "val_jet_response_iqr" in end.reason


def test_a_history_that_is_missing_fails_the_trial(place):
    end = train(place, epochs=1, plan={"lost_history": True})
    assert (end.state, end.kind) == ("failed", "nan")


@pytest.mark.parametrize(
    ("how", "text"), [("exit", "exit code 1: "), ("kill", "killed by SIGKILL (perhaps by the system, ")]
)
def test_a_crash_says_what_was_printed_last(place, how, text):
    end = train(place, {"fail_once": how})
    assert (end.state, end.kind) == ("crashed", "crash")
    assert end.reason.startswith(text)
    assert end.reason.endswith("something broke")


def test_a_crash_does_not_take_the_outcome_of_an_earlier_attempt(place):
    train(place, {"kind": "nan"}, epochs=1)
    end = train(place, {"code": 1})
    assert (end.state, end.reason) == ("crashed", "exit code 1: the reason")


def test_a_run_that_is_still_saved_is_waited_for(place):
    end = train(place, {"busy": 2})
    assert end.state == "completed"
    assert len(starts(place)) == 3


def test_a_run_that_stays_busy_counts_as_crashed(place, monkeypatch):
    monkeypatch.setattr(child, "_BUSY_SECONDS", 0.1)
    end = train(place, {"busy": 9})
    assert end.state == "crashed"
    assert end.reason.startswith("exit code 4")


def test_waiting_for_a_busy_run_ends_with_the_driver(place):
    def leave():
        while not (place / "runs" / "0000" / "busy").exists():
            time.sleep(0.01)
        ask_all_to_stop(place)

    threading.Thread(target=leave, daemon=True).start()
    end = train(place, {"busy": 1000})
    assert (end.state, end.reason) == ("stopped", "driver")


def test_bad_input_is_refused_with_its_words(place):
    end = train(place, {"code": 2})
    assert (end.state, end.reason) == ("refused", "worker host-0, run 0000: the reason")


def test_a_program_that_is_not_there_is_an_error(place):
    order = TrialTask(place, "0000", "0000", 1, ("/no/such/program",), (), 1, "d")
    with pytest.raises(FileNotFoundError, match="/no/such/program"):
        train_trial(order)


def test_a_trial_stops_when_the_driver_asks(place):
    once_training(place, lambda: ask_all_to_stop(place))
    end = train(place, {"seconds": 0.5}, epochs=100)
    assert (end.state, end.reason, end.progressed, end.pilot) == ("stopped", "driver", True, "")
    assert read_json(TrialFiles(place, "0000").outcome, dict)["state"] == "stopped"


def test_a_trial_stops_before_its_pilot_job_ends(place, monkeypatch):
    monkeypatch.setenv(PILOT_END_VARIABLE, str(time.time() + SAVE_SECONDS + 600))
    near = str(time.time() + SAVE_SECONDS - 1)
    once_training(place, lambda: monkeypatch.setenv(PILOT_END_VARIABLE, near))
    end = train(place, {"seconds": 0.5}, epochs=100)
    assert (end.state, end.reason, end.progressed, end.pilot) == ("stopped", "pilot", True, near)


def test_a_trial_that_was_stopped_before_its_first_checkpoint_has_not_progressed(place, monkeypatch):
    monkeypatch.setenv(PILOT_END_VARIABLE, str(time.time() + SAVE_SECONDS + 0.5))
    end = train(place, {"seconds": 600.0})
    assert (end.state, end.reason, end.progressed) == ("stopped", "pilot", False)


def test_nothing_begins_when_a_pilot_job_is_about_to_end(place, monkeypatch):
    monkeypatch.setenv(PILOT_END_VARIABLE, str(time.time() + SAVE_SECONDS - 1))
    assert train(place) == TrialEnd("stopped", "host-0", 0.0, "late", progressed=False)
    assert not (place / "starts.txt").exists()


def test_a_signal_from_elsewhere_stops_a_trial(place):
    once_training(place, lambda: os.kill(int(starts(place)[0][4]), signal.SIGTERM))
    end = train(place, {"seconds": 0.5}, epochs=100)
    assert (end.state, end.reason) == ("stopped", "signal")


def test_the_time_of_a_trial_is_limited_over_all_attempts(place):
    once_training(place, lambda: ask_all_to_stop(place))
    first = train(place, {"seconds": 0.5}, epochs=100, max_seconds=3600.0)
    assert first.state == "stopped"
    announce_driver(place, "d")
    end = train(place, {"seconds": 0.5}, epochs=100, max_seconds=first.seconds + 1.0)
    assert (end.state, end.kind) == ("failed", "time")
    assert end.reason.startswith("longer than hypertune.max_trial_hours, ")
    assert end.seconds > first.seconds + 1.0
    assert read_json(TrialFiles(place, "0000").cost, dict) == {"0000": end.seconds}


def test_cost_adds_up_over_attempts_and_belongs_to_one_trial(place):
    first = train(place, {"fail_once": "exit"}, trial_id="0000", epochs=1)
    second = train(place, {"fail_once": "exit"}, trial_id="0000", epochs=1)
    other = train(place, trial_id="0003", epochs=2)
    assert (first.state, second.state) == ("crashed", "completed")
    assert 0 < first.seconds < second.seconds
    cost = {"0000": second.seconds, "0003": other.seconds}
    assert read_json(TrialFiles(place, "0000").cost, dict) == cost


def test_cost_is_noted_while_a_trial_runs(place, monkeypatch):
    monkeypatch.setattr(trial_task, "_NOTE_SECONDS", 0.5)
    noted = []

    def look():
        noted.append(read_json(TrialFiles(place, "0000").cost, dict))
        ask_all_to_stop(place)

    def later():
        while not TrialFiles(place, "0000").cost.exists():
            time.sleep(0.01)
        look()

    threading.Thread(target=later, daemon=True).start()
    end = train(place, {"seconds": 0.1}, epochs=1000)
    assert 0.5 <= noted[0]["0000"] <= end.seconds


def test_a_worker_that_does_not_see_the_directory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "_SHARED_SECONDS", 0.2)
    monkeypatch.setattr(child, "_NAP_SECONDS", 0.1)
    monkeypatch.setenv(SLOT_VARIABLE, "n1-0")
    (tmp_path / "fake.json").touch()
    end = train(tmp_path / "not_here")
    assert end.state == "refused"
    assert f"{tmp_path}/not_here: worker n1-0 does not see the directory" in end.reason
    assert "-o on a file system that all nodes share" in end.reason


def test_a_task_of_a_driver_that_is_gone_does_nothing(place):
    end = train(place, driver="another")
    assert end == TrialEnd("stopped", "host-0", 0.0, "driver", progressed=False)
    assert not (place / "starts.txt").exists()
    assert not TrialFiles(place, "0000").worker.exists()
