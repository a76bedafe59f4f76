import os
import signal
import time

import pytest

from mlpf.training.checkpoints.run_state import EpochProgress, RunState
from mlpf.training.loop.interruption import Decision, SavePolicy, StopRequest


def save_policy(**settings):
    saved = []
    return SavePolicy(saved.append, StopRequest(), **settings), saved


def test_steps_are_counted_from_the_last_checkpoint():
    policy, saved = save_policy(every_steps=3)

    assert [policy.decide(1) for _ in range(3)] == [Decision.GO_ON, Decision.GO_ON, Decision.SAVE]
    policy.save(RunState())
    assert len(saved) == 1
    assert policy.decide(2) is Decision.GO_ON
    policy.reset_timer()
    assert policy.decide(2) is Decision.GO_ON
    assert policy.decide(1) is Decision.SAVE


def test_minutes_are_counted_from_the_last_checkpoint(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    policy, _ = save_policy(every_minutes=2.0)

    assert policy.decide(1) is Decision.GO_ON
    now[0] += 119.0
    assert policy.decide(1) is Decision.GO_ON
    now[0] += 1.0
    assert policy.decide(1) is Decision.SAVE
    policy.save(RunState())
    assert policy.decide(1) is Decision.GO_ON


def test_without_intervals_nothing_is_saved_between_epochs():
    policy, _ = save_policy()
    assert {policy.decide(1) for _ in range(1000)} == {Decision.GO_ON}


def test_the_time_limit_counts_from_the_start(monkeypatch):
    now = [50.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    request = StopRequest(time_limit=10.0, started=45.0)

    assert request.reason is None
    now[0] = 55.0
    assert request.reason == "time limit"
    assert SavePolicy(lambda _: None, request).decide(1) is Decision.STOP


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_signals_ask_to_stop_and_are_handed_back(name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    request = StopRequest()

    with request.signals():
        assert request.reason is None
        os.kill(os.getpid(), number)
        assert request.reason == name
    assert signal.getsignal(number) is before


def test_a_second_interrupt_interrupts():
    request = StopRequest()

    with request.signals():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_error_says_how_far_the_training_got():
    request = StopRequest(time_limit=0.0)
    error = SavePolicy(lambda _: None, request).stopped_error(RunState([{}, {}], EpochProgress(5)))

    assert str(error) == "time limit, after 2 epochs and 5 steps; everything is saved, continue with --resume"
    assert error.exit_code == 75
