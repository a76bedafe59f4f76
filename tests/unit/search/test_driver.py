import json
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from mlpf.config.loading import load_config, write_resolved
from mlpf.engine.base import EngineFailed, Slot, TaskLost
from mlpf.engine.child import announce_driver
from mlpf.errors import ConfigError
from mlpf.files.run_directory import RESOLVED_CONFIG
from mlpf.search import driver as driver_module
from mlpf.search.algorithms import build_oracle
from mlpf.search.driver import Driver, NodeRefused, SearchFailed, TakenOver
from mlpf.search.trial_files import TrialFiles
from mlpf.search.trial_task import TrialEnd
from tests.support.engines import ManualEngine, ThreadEngine
from tests.support.search import search_config, state_of


class View:
    """Counts."""

    def __init__(self, then=lambda: None):
        self.updates, self.closed, self._then = 0, 0, then

    def update(self):
        self.updates += 1
        self._then()

    def close(self):
        self.closed += 1


@pytest.fixture
def search(tmp_path, monkeypatch, repo_root):
    """Make a driver; trials end as ``plans`` say. What is searched for stands in its attributes."""
    monkeypatch.setenv("PYTHONPATH", str(repo_root))
    monkeypatch.setattr(driver_module, "_TICK_SECONDS", 0.05)
    directory = tmp_path / "search"
    (directory / "runs").mkdir(parents=True)

    def make(plans=None, engine=None, then=lambda: None, **section):
        config = search_config(**{"algorithm": "random", "num_trials": 2, "num_epochs": 3, **section})
        write_resolved(config, directory / RESOLVED_CONFIG)
        (tmp_path / "fake.json").write_text(json.dumps(plans or {}), encoding="utf-8")
        oracle = build_oracle(directory, config)
        if (directory / "oracle.json").exists():
            oracle.reload()
            oracle.resume()
        make.said, make.stop, make.view, make.oracle = [], SimpleNamespace(reason=None), View(then), oracle
        make.engine = engine or ThreadEngine()
        return Driver(
            oracle,
            make.engine,
            directory,
            config,
            program=[sys.executable, "-m", "tests.support.fake_trial"],
            arguments=(),
            stop=make.stop,
            view=make.view,
            say=make.said.append,
        )

    make.directory = directory
    yield make
    make.engine.shutdown(now=True)


def starts(directory):
    return [line.split() for line in (directory / "starts.txt").read_text(encoding="utf-8").splitlines()]


def first_epoch_of(directory, run="0000"):
    return (directory / "runs" / run / "history.json").exists()


def test_trials_are_trainings_with_the_values_chosen(search):
    assert search(engine=ThreadEngine(2)).run() is None
    records = state_of(search.directory)
    assert [r.status for r in records.values()] == ["completed"] * 2
    for record in records.values():
        config = load_config(search.directory / "runs" / f"{record.run}.yaml")
        assert config.setup.lr == record.values["setup.lr"]
        assert config.hypertune is None
        assert record.objective == pytest.approx(10 * config.setup.lr + 1 / 3, abs=1e-12)
        assert (record.best_epoch, record.metrics["trained_epochs"]) == (3, 3)
        assert (record.devices, record.on_gpu) == (2, False)
        assert record.seconds > 0
        assert record.started <= record.ended
    assert sorted(s[:4] for s in starts(search.directory)) == [
        [run, "3", "2", "tensorflow"] for run in records
    ]
    assert (search.view.closed, search.oracle.finished) == (1, True)


def test_a_slot_with_gpus_counts_them(search):
    search(engine=ThreadEngine(1, Slot(num_cpus=4, num_gpus=2))).run()
    assert {(r.devices, r.on_gpu) for r in state_of(search.directory).values()} == {(2, True)}
    assert {order.num_cpus for order in search.engine.orders} == {4}


def test_a_promotion_continues_in_the_run_it_comes_from(search):
    search(algorithm="asha", num_trials=3).run()
    records = list(state_of(search.directory).values())
    promoted = records[-1]
    assert (promoted.rung, promoted.initial_epoch, promoted.epochs) == (1, 1, 3)
    assert promoted.run in {r.run for r in records[:3]}
    history = json.loads(
        (search.directory / "runs" / promoted.run / "history.json").read_text(encoding="utf-8")
    )
    assert [r["epoch"] for r in history] == [1, 2, 3]


@pytest.mark.parametrize("kind", ["memory", "nan", "limit", "refused"])
def test_a_trial_that_fails_for_good_is_listed_and_the_search_goes_on(search, kind):
    search({"0000": {"kind": kind}}).run()
    records = state_of(search.directory)
    assert [r.status for r in records.values()] == ["failed", "completed"]
    assert (records["0000"].failure_kind, records["0000"].failure) == (kind, "it is too large")
    assert len(starts(search.directory)) == 2


def test_a_configuration_that_is_refused_fails_only_its_trial(search, monkeypatch):
    make = driver_module.trial_config

    def refuse_first(config, values, seed):
        if not (search.directory / "runs" / "0000.yaml").exists() and not list(search.oracle.end_order):
            raise ConfigError("setup.lr: not today")
        return make(config, values, seed)

    monkeypatch.setattr(driver_module, "trial_config", refuse_first)
    search().run()
    records = state_of(search.directory)
    assert [(r.status, r.failure_kind, r.failure) for r in records.values()] == [
        ("failed", "refused", "setup.lr: not today"),
        ("completed", "", ""),
    ]


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_a_crash_is_repeated(search, how):
    search({"0000": {"fail_once": how}}, max_retries=1).run()
    record = state_of(search.directory)["0000"]
    assert (record.status, record.crashes, record.failure) == ("completed", 1, "")


def test_crashes_in_a_row_end_the_search(search):
    search({"*": {"code": 1}}, max_retries=0, max_consecutive_failures=2, num_trials=9).run()
    records = state_of(search.directory)
    assert [(r.status, r.failure_kind) for r in records.values()] == [("failed", "crash")] * 2
    assert search.oracle.problem == "2 trials in a row failed, the last: exit code 1: the reason"


def test_a_lost_task_counts_and_its_trial_goes_on(search):
    losses = []

    def lose(order):
        if len(losses) < 2:
            losses.append(order.trial_id)
            raise TaskLost("worker host-0 was killed")

    search(engine=ThreadEngine(before=lose)).run()
    records = state_of(search.directory)
    assert [(r.status, r.losses) for r in records.values()] == [("completed", 2), ("completed", 0)]
    lost = "trial 0000 lost its worker and continues on another one: worker host-0 was killed"
    assert search.said == [lost, lost]


def test_what_a_lost_attempt_has_cost_counts(search):
    def lose(order):
        if not search.oracle.records["0000"].losses:
            (search.directory / "runs" / "0000.cost.json").write_text('{"0000": 50.0}', encoding="utf-8")
            raise TaskLost("killed")

    search(engine=ThreadEngine(before=lose), num_trials=1).run()
    assert state_of(search.directory)["0000"].seconds > 50


def test_a_node_that_refuses_ends_the_search_and_the_others_are_saved(search):
    def refuse(order):
        if order.trial_id == "0001":
            while not first_epoch_of(search.directory):
                time.sleep(0.01)
            return TrialEnd("refused", "n2-0", 0.0, "n2 sees another mlpf")
        return None

    driver = search({"0000": {"seconds": 0.3}}, ThreadEngine(2, before=refuse), num_epochs=100)
    with pytest.raises(NodeRefused, match="n2 sees another mlpf") as caught:
        driver.run()
    assert caught.value.exit_code == 2
    records = state_of(search.directory)
    assert [(r.status, r.losses, r.failure) for r in records.values()] == [("waiting", 0, "")] * 2
    outcome = json.loads(TrialFiles(search.directory, "0000").outcome.read_text(encoding="utf-8"))
    assert outcome["state"] == "stopped"
    assert search.view.closed == 1


def test_an_error_of_a_worker_ends_the_search_in_order(search):
    def fail(order):
        if order.trial_id == "0001":
            while not first_epoch_of(search.directory):
                time.sleep(0.01)
            raise OSError("no space left on device")

    driver = search({"0000": {"seconds": 0.3}}, ThreadEngine(2, before=fail), num_epochs=100)
    with pytest.raises(OSError, match="no space left"):
        driver.run()
    assert [(r.status, r.losses) for r in state_of(search.directory).values()] == [("waiting", 0)] * 2
    assert (
        json.loads(TrialFiles(search.directory, "0000").outcome.read_text(encoding="utf-8"))["state"]
        == "stopped"
    )


def test_a_failed_engine_gives_all_trials_back(search):
    engine = ManualEngine(2)
    driver = search(engine=engine, then=lambda: [f.set_exception(EngineFailed("it has ended"))
                    for f, _ in engine.futures if not f.done()])  # fmt: skip
    with pytest.raises(EngineFailed, match="it has ended"):
        driver.run()
    records = state_of(search.directory)
    assert [(r.status, r.losses) for r in records.values()] == [("waiting", 0)] * 2
    again = search()
    again.run()
    assert [r.status for r in state_of(search.directory).values()] == ["completed"] * 2


def test_an_engine_that_takes_no_task(search):
    engine = ManualEngine()
    engine.refuses = EngineFailed("it has ended before")
    with pytest.raises(EngineFailed, match="it has ended before"):
        search(engine=engine).run()
    assert [(r.status, r.losses) for r in state_of(search.directory).values()] == [("waiting", 0)]


def test_a_request_to_stop_saves_and_gives_back(search):
    def stop():
        if first_epoch_of(search.directory):
            search.stop.reason = "SIGTERM"

    driver = search({"*": {"seconds": 0.2}}, ThreadEngine(2), stop, num_epochs=8)
    assert driver.run() == "SIGTERM"
    records = state_of(search.directory)
    assert [(r.status, r.losses) for r in records.values()] == [("waiting", 0)] * 2
    assert records["0000"].seconds > 0
    assert (
        json.loads(TrialFiles(search.directory, "0000").outcome.read_text(encoding="utf-8"))["state"]
        == "stopped"
    )
    assert not search.oracle.finished
    assert search({"*": {}}, ThreadEngine(2)).run() is None
    records = state_of(search.directory)
    assert [(r.status, r.losses) for r in records.values()] == [("completed", 0)] * 2
    trained = (search.directory / "trained.txt").read_text(encoding="utf-8").splitlines()
    assert len(trained) == len(set(trained))  # no epoch twice


def test_tasks_that_wait_for_a_pilot_job_hold_nobody_up(search):
    engine = ManualEngine(2)
    driver = search(engine=engine, then=lambda: setattr(search.stop, "reason", "time limit"))
    began = time.monotonic()
    assert driver.run() == "time limit"
    assert time.monotonic() - began < driver_module._LEAVE_SECONDS / 2
    assert [r.status for r in state_of(search.directory).values()] == ["waiting"] * 2


def test_a_trial_that_does_not_save_is_given_back(search, monkeypatch):
    monkeypatch.setattr(driver_module, "_LEAVE_SECONDS", 0.2)
    engine = ManualEngine(1)

    def begin_and_stop():
        TrialFiles(search.directory, "0000").worker.write_text("{}", encoding="utf-8")
        search.stop.reason = "SIGTERM"

    assert search(engine=engine, then=begin_and_stop).run() == "SIGTERM"
    assert search.said == ["trial 0000: has not saved within 0.2 s"]
    assert state_of(search.directory)["0000"].status == "waiting"


def stopped(number, **fields):
    """An attempt that its pilot job ended."""
    fields = {"progressed": False, "pilot": str(number)} | fields
    return TrialEnd("stopped", "n1-0", 1.0, fields.pop("reason", "pilot"), **fields)


def test_pilot_jobs_that_are_too_short_end_the_search(search):
    ends = iter([stopped(1), stopped(1), stopped(2), stopped(2), stopped(3)])
    driver = search(engine=ThreadEngine(before=lambda _: next(ends)))
    with pytest.raises(SearchFailed, match=r"trial 0000: 3 pilot jobs in a row .* longer walltime") as caught:
        driver.run()
    assert caught.value.exit_code == 1
    assert next(ends, None) is None
    assert [(r.status, r.losses) for r in state_of(search.directory).values()] == [("waiting", 0)]


def test_pilot_jobs_in_which_a_trial_progresses_may_be_many(search):
    ends = [stopped(1), stopped(2), stopped(3, progressed=True), stopped(4), stopped(5, reason="late")]
    ends += [stopped(6, reason="signal"), stopped(7), stopped(8, progressed=True)]
    left = iter(ends)
    search(engine=ThreadEngine(before=lambda _: next(left, None)), num_trials=1).run()
    assert next(left, None) is None
    assert state_of(search.directory)["0000"].status == "completed"


def test_checkpoints_that_nothing_needs_are_removed(search):
    search(algorithm="asha", num_trials=6, factor=3, num_epochs=9).run()
    records = state_of(search.directory).values()
    best = min((r for r in records if r.epochs == 9), key=lambda r: r.objective)
    kept = {f.parent.name for f in (search.directory / "runs").glob("*/checkpoints")}
    assert kept == {best.run}
    histories = {f.parent.name for f in (search.directory / "runs").glob("*/history.json")}
    assert histories == {r.run for r in records}


def test_the_wall_time_adds_up_over_starts(search, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(driver_module.time, "monotonic", lambda: now[0])
    engine = ManualEngine()
    ends = iter([20.0, 30.0])

    def end():
        for future, _ in engine.futures:
            if not future.done() and (seconds := next(ends, None)):
                now[0] += seconds
                future.set_result(TrialEnd("failed", "h-0", seconds, "x", "nan"))

    search(engine=engine, then=end, num_trials=2, max_total_hours=45 / 3600).run()
    assert json.loads((search.directory / "oracle.json").read_text(encoding="utf-8"))["wall_seconds"] == 50
    assert search.oracle.limit == "hypertune.max_total_hours: 0.01389 of 0.0125 h are over"
    now[0] += 1000
    engine = ManualEngine()
    ends = iter([7.0])
    search(engine=engine, then=end, num_trials=3, max_total_hours=1.0).run()
    assert json.loads((search.directory / "oracle.json").read_text(encoding="utf-8"))["wall_seconds"] == 57


def test_the_wall_time_is_kept_while_a_trial_runs(search, monkeypatch):
    monkeypatch.setattr(driver_module, "_STATE_SECONDS", 0.2)
    engine = ManualEngine()

    def look():
        kept = json.loads((search.directory / "oracle.json").read_text(encoding="utf-8"))["wall_seconds"]
        if kept > 0.2 and not engine.futures[0][0].done():
            engine.futures[0][0].set_result(TrialEnd("failed", "h-0", 1.0, "x", "nan"))

    search(engine=engine, then=look, num_trials=1).run()


def test_a_second_driver_stops_programs_of_the_first_which_leaves_the_state(search):
    state = []

    def take_over():
        if first_epoch_of(search.directory) and not state:
            announce_driver(search.directory, "another")
            state.append((search.directory / "oracle.json").read_text(encoding="utf-8"))

    driver = search({"*": {"seconds": 0.3}}, ThreadEngine(2), take_over, num_epochs=100)
    with pytest.raises(TakenOver, match="another driver has taken over") as caught:
        driver.run()
    assert caught.value.exit_code == 2
    assert (search.directory / "oracle.json").read_text(encoding="utf-8") == state[0]
    outcome = json.loads(TrialFiles(search.directory, "0000").outcome.read_text(encoding="utf-8"))
    assert outcome["state"] == "stopped"
    assert search.view.closed == 1


def test_a_new_driver_stops_what_an_earlier_one_has_left(search):
    """The trial of a driver that was killed still runs on another node: it saves, and then goes on."""
    before = search({"*": {"seconds": 0.3}}, ThreadEngine(1), num_trials=1, num_epochs=8)

    def run():
        with pytest.raises(TakenOver):
            before.run()

    first = threading.Thread(target=run)
    first.start()
    while not first_epoch_of(search.directory):
        time.sleep(0.01)
    search({"*": {}}, ThreadEngine(1), num_trials=1, num_epochs=8).run()
    first.join()
    record = state_of(search.directory)["0000"]
    assert (record.status, record.losses) == ("completed", 1)
    trained = (search.directory / "trained.txt").read_text(encoding="utf-8").splitlines()
    # Of a pretended training one epoch may have been counted and not yet saved.
    assert 8 <= len(trained) <= 9


def test_an_interrupt_goes_through(search):
    def interrupt():
        raise KeyboardInterrupt

    driver = search({"*": {"seconds": 0.1}}, then=interrupt)
    with pytest.raises(KeyboardInterrupt):
        driver.run()
    assert search.view.closed == 1
    announce_driver(search.directory, "")  # the engine of this test cannot kill
