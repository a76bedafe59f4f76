import json
import os
import sys
import threading
import time

import pytest

from mlpf.config.loading import RESOLVED_FILE, load_config, write_resolved
from mlpf.tuning.algorithms import build_oracle
from mlpf.tuning.chief import Chief
from mlpf.tuning.client import RemoteOracle
from mlpf.tuning.tuner import Cost, Orders, Resources, SearchTuner, WorkerAsked
from tests.support.search import search_config, state_of


class DirectClient:
    """Calls a chief in the same process."""

    def __init__(self, chief, worker):
        self._chief = chief
        self._who = {"worker": worker, "launcher": "here", "process": worker}

    def call(self, name, **arguments):
        with self._chief.lock:
            return json.loads(json.dumps(getattr(self._chief, name)(**self._who, **arguments)))


@pytest.fixture
def search(tmp_path, repo_root):
    """Make a tuner for a search with the given section; trials end as ``plans`` say."""
    directory = tmp_path / "search"
    directory.mkdir()

    def make(plans=None, worker="w0", chief=None, **section):
        config = search_config(**{"algorithm": "random", "num_trials": 2, "num_epochs": 3, **section})
        write_resolved(config, directory / RESOLVED_FILE)
        (tmp_path / "fake.json").write_text(json.dumps(plans or {}))
        chief = chief or Chief(build_oracle(directory, config), 60.0)
        resources = Resources(
            [sys.executable, "-m", "tests.support.fake_trial"],
            environment=os.environ | {"PYTHONPATH": str(repo_root), "KERAS_BACKEND": "tensorflow"},
            num_cpus=2,
        )
        oracle = RemoteOracle(DirectClient(chief, worker), lambda _: time.sleep(0.01), devices=2)
        tuner = SearchTuner(oracle, directory, config, worker, resources, Orders())
        tuner.chief, tuner.directory_of_search = chief, directory
        return tuner

    make.directory = directory
    return make


def starts(directory):
    return [line.split() for line in (directory / "starts.txt").read_text().splitlines()]


def test_trials_are_trainings_with_the_values_chosen(search):
    search().search()
    records = state_of(search.directory)
    assert [r.status for r in records.values()] == ["completed"] * 2
    for record in records.values():
        config = load_config(search.directory / "runs" / f"{record.run}.yaml")
        assert config.setup.lr == record.values["setup.lr"]
        assert config.hypertune is None
        assert record.objective == pytest.approx(10 * config.setup.lr + 1 / 3, abs=1e-12)
        assert (record.best_epoch, record.metrics["trained_epochs"]) == (3, 3)
        assert record.metrics["num_parameters"] == 1000
        assert (record.devices, record.on_gpu, record.worker) == (2, False, "w0")
        assert record.seconds > 0
    assert [s[:4] for s in starts(search.directory)] == [[run, "3", "2", "tensorflow"] for run in records]


def test_a_promotion_continues_in_the_run_it_comes_from(search):
    search(algorithm="asha", num_trials=3).search()
    records = list(state_of(search.directory).values())
    promoted = records[-1]
    assert (promoted.rung, promoted.initial_epoch, promoted.epochs) == (1, 1, 3)
    assert promoted.run in {r.run for r in records[:3]}
    history = json.loads((search.directory / "runs" / promoted.run / "history.json").read_text())
    assert [r["epoch"] for r in history] == [1, 2, 3]


def test_the_objective_of_a_rung_is_of_its_epochs(search):
    """A run that went further before the chief heard of it: killed after a later rung began."""
    tuner = search(algorithm="asha", num_trials=1)
    run_dir = search.directory / "runs" / "0000"
    run_dir.mkdir(parents=True)
    history = [{"epoch": e, "val_loss": float(v)} for e, v in ((1, 5), (2, 4), (3, 3))]
    (run_dir / "history.json").write_text(json.dumps(history))
    tuner.search()
    assert [r.objective for r in state_of(search.directory).values()] == [5.0, 3.0]


@pytest.mark.parametrize("kind", ["memory", "nan", "limit", "refused"])
def test_a_trial_that_fails_for_good_is_listed_and_the_search_goes_on(search, kind):
    search({"0000": {"kind": kind}}).search()
    records = state_of(search.directory)
    assert [r.status for r in records.values()] == ["failed", "completed"]
    assert (records["0000"].failure_kind, records["0000"].failure) == (kind, "it is too large")
    assert len(starts(search.directory)) == 2


@pytest.mark.parametrize(("how", "text"), [("exit", "exit code 1"), ("kill", "killed by SIGKILL")])
def test_a_crash_is_repeated(search, how, text):
    search({"0000": {"fail_once": how}}, max_retries=1).search()
    record = state_of(search.directory)["0000"]
    assert (record.status, record.crashes) == ("completed", 1)
    search.directory.joinpath("oracle.json").unlink()


@pytest.mark.parametrize(("how", "text"), [("exit", "exit code 1"), ("kill", "killed by SIGKILL")])
def test_a_crash_too_often_says_what_was_printed(search, how, text):
    search({"0000": {"fail_once": how}}, max_retries=0).search()
    record = state_of(search.directory)["0000"]
    assert (record.status, record.failure_kind) == ("failed", "crash")
    assert text in record.failure
    assert record.failure.endswith("something broke")


def test_a_metric_that_no_epoch_has_fails_the_trial(search):
    search(objective="val_jet_iqr").search()
    records = state_of(search.directory)
    assert [r.failure_kind for r in records.values()] == ["nan", "nan"]
    assert "val_jet_response_iqr" in records["0000"].failure


def once_training(tuner, then):
    """Call ``then`` when the first epoch of the first trial is done, in a thread."""

    def wait():
        while not (tuner.directory_of_search / "runs" / "0000" / "history.json").exists():
            time.sleep(0.01)
        then()

    threading.Thread(target=wait, daemon=True).start()


def test_a_worker_that_is_asked_to_stop_stops_its_trial_in_order(search):
    tuner = search({"*": {"seconds": 0.3}})
    once_training(tuner, lambda: setattr(tuner._orders, "stop", True))
    with pytest.raises(WorkerAsked):
        tuner.search()
    assert state_of(search.directory)["0000"].status == "running"
    outcome = json.loads((search.directory / "runs" / "0000.outcome.json").read_text())
    assert outcome["state"] == "stopped"


def test_a_trial_taken_by_the_chief_is_ended_at_once(search):
    tuner = search({"*": {"seconds": 0.3}}, num_trials=1)
    chief = tuner.chief

    def take():
        with chief.lock:
            chief._oracle.lose("w0")
            chief._oracle.create_trial("w1", holder="w1")
        tuner._orders.taken = True
        time.sleep(0.5)
        with chief.lock:
            chief._oracle.finish_trial("w1", "0000", "FAILED", failure="x", kind="nan")

    once_training(tuner, take)
    tuner.search()
    record = state_of(search.directory)["0000"]
    assert (record.status, record.worker, record.losses) == ("failed", "w1", 1)
    assert not (search.directory / "runs" / "0000.outcome.json").exists()  # killed, not stopped


def test_a_pause_waits_for_the_chief_and_goes_on(search):
    tuner = search({"*": {"seconds": 0.3}}, num_trials=1)

    def pause():
        tuner._orders.pause = True
        while not (search.directory / "runs" / "0000.outcome.json").exists():
            time.sleep(0.01)
        time.sleep(0.3)
        tuner._orders.pause = False

    once_training(tuner, pause)
    tuner.search()
    assert state_of(search.directory)["0000"].status == "completed"
    assert len(starts(search.directory)) == 2


def test_cost_adds_up_over_attempts(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    path = tmp_path / "cost.json"
    first = Cost(path, "0000")
    now[0] = 5.0
    first.save()
    again = Cost(path, "0000")
    now[0] = 7.0
    assert again.total() == 7.0
    again.save()
    other = Cost(path, "0003")
    now[0] = 8.0
    assert other.total() == 1.0
    other.save()
    assert json.loads(path.read_text()) == {"0000": 7.0, "0003": 1.0}
