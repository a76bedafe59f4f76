import pickle
import threading
import traceback

import pytest

from mlpf.engine.parsl import worker
from tests.support import engine_tasks as tasks


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    """This process is no worker: it takes no slot."""
    monkeypatch.setattr(worker, "_settle", lambda: None)


def outcome(function, *arguments):
    return worker.perform(pickle.dumps((function, arguments)))


def test_result():
    assert worker.unpack(outcome(tasks.add, 1, 2)) == 3


def test_error_has_the_traceback_of_the_worker(tmp_path):
    with pytest.raises(LookupError, match="gone") as caught:
        worker.unpack(outcome(tasks.complain, "gone", str(tmp_path / "log")))
    assert "in complain" in "".join(traceback.format_exception(caught.value))


def test_error_that_cannot_be_pickled_keeps_its_words():
    with pytest.raises(RuntimeError, match="Awkward: one"):
        worker.unpack(outcome(tasks.complain_awkwardly))


def test_result_that_cannot_be_pickled_is_an_error():
    succeeded, _, text = outcome(threading.Lock)
    assert not succeeded
    assert "pickle" in text


def test_function_that_is_not_there_is_an_error():
    succeeded, _, text = worker.perform(b"cno_such_module\nfunction\n.")
    assert not succeeded
    assert "no_such_module" in text


def test_slot_is_told_in_the_environment(monkeypatch):
    bound = []
    monkeypatch.setattr(worker, "bind", lambda _, cpus: bound.append(cpus))
    groups = '[{"environment": {"A": "0"}, "cpus": [0]}, {"environment": {"A": "1"}, "cpus": [1, 2]}]'
    there = {"PARSL_WORKER_RANK": "1", "PARSL_WORKER_BLOCK_ID": "7", worker.GROUPS_VARIABLE: groups}
    assert worker._slot(there | {"SLURMD_NODENAME": "n1"}) == {"A": "1", "MLPF_SLOT": "n1-7.1"}
    assert bound == [frozenset({1, 2})]
