"""The driver keeps slots busy, gives trainings again, and stops in order."""

import threading
from concurrent.futures import Future

import pytest

from mlpf.engine.base import Engine, EngineFailed, Slot, TaskLost
from mlpf.engine.child import announce_driver, is_in_charge
from mlpf.ensemble.driver import Driver, read_states, resting
from mlpf.ensemble.state import STATES_FOLDER, MemberFiles, MemberState, read_state
from mlpf.ensemble.task import MemberTask


class ScriptedEngine(Engine):
    """Ends tasks as a script says; a task without an entry never ends.

    Args:
        script: name -> what its attempts come to: states, or errors to raise.
        num_slots: tasks at a time.
    """

    slot = Slot()

    def __init__(self, script, num_slots=2):
        self.num_slots = num_slots
        self.script = {name: list(ends) for name, ends in script.items()}
        self.submitted, self.never, self.open = [], [], 0
        self.most = 0

    def submit(self, _function, *arguments):
        (task,) = arguments
        self.submitted.append(task.name)
        future = Future()
        ends = self.script.get(task.name)
        self.open += 1
        self.most = max(self.most, self.open)
        if ends:
            future.set_running_or_notify_cancel()
            threading.Timer(0.01, self._end, (future, ends.pop(0))).start()
        else:
            self.never.append(future)
        return future

    def _end(self, future, end):
        self.open -= 1
        if isinstance(end, Exception):
            future.set_exception(end)
        else:
            future.set_result(end)

    def shutdown(self, now):
        pass


def completed():
    return MemberState("completed")


@pytest.fixture
def driver(tmp_path):
    (tmp_path / STATES_FOLDER).mkdir()
    announce_driver(tmp_path, "d")

    def make(*names, retries=1):
        states = {name: MemberState() for name in names}
        return Driver(tmp_path, states, lambda name: MemberTask(tmp_path, name, (), "d", retries))

    return make


def run(driver, engine, reason=lambda: None, show=lambda: None):
    return driver.run(engine, reason, show)


def test_all_are_trained_and_no_more_at_a_time_than_slots(driver):
    names = [f"m{i}" for i in range(7)]
    made, engine = driver(*names), ScriptedEngine({name: [completed()] for name in names})
    assert run(made, engine) is None
    assert engine.submitted == names
    assert engine.most <= 2
    assert {state.state for state in made.states.values()} == {"completed"}


def test_what_waits_is_given_again_and_what_has_ended_is_not(driver):
    made = driver("a", "b", "c")
    made.states["b"].state, made.states["c"].state = "completed", "failed"
    engine = ScriptedEngine({"a": [MemberState("waiting"), MemberState("waiting"), completed()]})
    assert run(made, engine) is None
    assert engine.submitted == ["a"] * 3


def test_a_lost_task_fails_its_training_only(driver, tmp_path):
    made = driver("a", "b")
    engine = ScriptedEngine({"a": [TaskLost("killed 4 times")], "b": [completed()]})
    assert run(made, engine) is None
    assert made.states["b"].state == "completed"
    state = read_state(MemberFiles(tmp_path, "a"))
    assert (state.state, state.kind, state.reason) == ("failed", "lost", "killed 4 times")


def test_a_task_that_breaks_counts_as_a_crash(driver, tmp_path):
    made = driver("a", retries=1)
    engine = ScriptedEngine({"a": [OSError("no space"), OSError("no space")]})
    assert run(made, engine) is None
    state = read_state(MemberFiles(tmp_path, "a"))
    assert (state.state, state.kind, state.crashes) == ("failed", "crash", 2)
    assert state.reason == "OSError: no space"


def test_the_end_of_the_engine_ends_the_driver(driver):
    engine = ScriptedEngine({"a": [EngineFailed("it is gone")]})
    with pytest.raises(EngineFailed, match="it is gone"):
        run(driver("a"), engine)


def test_a_stop_reaches_the_programs_and_nothing_more_is_given(driver, tmp_path):
    made = driver("a", "b", "c")
    engine = ScriptedEngine({"a": [MemberState("waiting", reason="saved")]}, num_slots=2)
    assert is_in_charge(tmp_path, "d")
    assert run(made, engine, reason=lambda: "SIGTERM" if engine.submitted else None) == "SIGTERM"
    assert not is_in_charge(tmp_path, "d")
    assert engine.submitted == ["a", "b"]  # b was cancelled before it began
    assert {state.state for state in made.states.values()} == {"waiting"}
    assert made.states["a"].reason == "saved"


def test_a_worker_that_is_lost_while_all_stop_is_no_failure(driver):
    made = driver("a", "b")
    # The stop is seen when b has ended; a is lost after that.
    engine = ScriptedEngine({"b": [completed()]})
    lost = []

    def reason():
        if made.states["b"].state != "completed":
            return None
        if not lost:
            (future,) = engine.never
            future.set_running_or_notify_cancel()
            lost.append(threading.Timer(0.05, future.set_exception, (TaskLost("killed"),)))
            lost[0].start()
        return "SIGTERM"

    assert run(made, engine, reason) == "SIGTERM"
    assert made.states["a"].state == "waiting"


def test_what_ran_when_the_driver_was_killed_waits(tmp_path):
    (tmp_path / STATES_FOLDER).mkdir()
    MemberState("running", attempts=3).write(MemberFiles(tmp_path, "a"))
    MemberState("failed", "nan").write(MemberFiles(tmp_path, "b"))
    states = read_states(tmp_path, ["a", "b", "c"])
    assert [(state.state, state.attempts) for state in states.values()] == [
        ("waiting", 3),
        ("failed", 0),
        ("waiting", 0),
    ]
    assert resting(completed()) == completed()
