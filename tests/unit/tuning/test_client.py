import json

import pytest

from mlpf.tuning.client import ChiefClient, ChiefUnreachable, RemoteOracle
from mlpf.tuning.state import TrialRecord


class FakeClient:
    """Answers from a list and remembers what was asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.calls = []

    def call(self, name, **arguments):
        self.calls.append((name, arguments))
        return self.answers.pop(0)


def trial(status, trial_id="0000"):
    state = {
        "trial_id": trial_id,
        "hyperparameters": {"space": [], "values": {"setup.lr": 0.1}},
        "metrics": {"metrics": {}},
        "score": None,
        "best_step": 0,
        "status": status,
        "message": None,
    }
    record = TrialRecord(trial_id, trial_id, values={"setup.lr": 0.1}).to_json()
    return {"trial": state, "record": record if status == "RUNNING" else None}


def test_idle_workers_ask_less_and_less_often():
    client = FakeClient(*[trial("IDLE")] * 8, trial("RUNNING"))
    pauses = []
    oracle = RemoteOracle(client, pauses.append)
    assert oracle.create_trial("w").status == "RUNNING"
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
    assert oracle.record.values == {"setup.lr": 0.1}


def test_a_result_goes_in_one_call():
    client = FakeClient(trial("RUNNING"), {"accepted": True})
    oracle = RemoteOracle(client)
    given = oracle.create_trial("w")
    oracle.result = {"seconds": 3.0}
    oracle.update_trial("0000", {"objective": 1.0, "val_loss": 2.0})
    given.status = "COMPLETED"
    oracle.end_trial(given)
    name, arguments = client.calls[-1]
    assert name == "end"
    assert arguments == {
        "trial": "0000",
        "status": "COMPLETED",
        "seconds": 3.0,
        "metrics": {"objective": 1.0, "val_loss": 2.0},
    }
    assert oracle.record is None


def test_an_unforeseen_error_is_told_by_its_last_line():
    client = FakeClient(trial("RUNNING"), {"accepted": True})
    oracle = RemoteOracle(client)
    given = oracle.create_trial("w")
    given.status, given.message = "INVALID", "Traceback:\n  file\nOSError: no space left\n"
    oracle.end_trial(given)
    assert client.calls[-1][1]["failure"] == "OSError: no space left"


def test_no_chief_is_waited_for_and_then_named(tmp_path):
    client = ChiefClient(tmp_path, "w", "l", "p", patience=0.2)
    with pytest.raises(ChiefUnreachable, match=r"chief.json: the chief has not answered for 0 s"):
        client.call("hello")
    (tmp_path / "chief.json").write_text(json.dumps({"address": "127.0.0.1", "port": 1, "token": "t"}))
    with pytest.raises(ChiefUnreachable):
        client.call("hello")


def test_a_worker_that_is_asked_to_stop_does_not_wait(tmp_path):
    class Asked(Exception):
        pass

    def stopped():
        raise Asked

    client = ChiefClient(tmp_path, "w", "l", "p", patience=600.0, stopped=stopped)
    with pytest.raises(Asked):
        client.call("hello")
