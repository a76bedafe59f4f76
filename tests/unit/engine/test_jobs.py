"""Many files, one task each."""

import os
from concurrent.futures import Future

import pytest

from mlpf.engine.base import Engine, Slot, TaskLost
from mlpf.engine.jobs import run_jobs
from mlpf.engine.opening import Placement, open_engine
from mlpf.errors import DataError, MLPFError
from tests.support import pool_tasks


def opened(workers, retries=1):
    return open_engine(Placement(workers), "unused", retries=retries)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_done_once(workers):
    with opened(workers) as engine:
        results = list(run_jobs(engine, pool_tasks.square, [(i,) for i in range(5)], list("abcde")))
    assert sorted(value for _, value in results) == [0, 1, 4, 9, 16]
    assert (os.getpid() in {pid for pid, _ in results}) == (workers == 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_come_through(workers):
    with opened(workers) as engine, pytest.raises(DataError, match="no 3"):
        list(run_jobs(engine, pool_tasks.fail, [(3,), (3,)], ["a", "b"]))


def test_no_jobs_give_nothing():
    with opened(1) as engine:
        assert list(run_jobs(engine, pool_tasks.square, [], [])) == []


def test_lost_jobs_are_an_error_that_names_what_is_unfinished(tmp_path):
    jobs = [(tmp_path, "done"), (tmp_path, "lost")]
    with opened(2) as engine:
        results = run_jobs(engine, pool_tasks.killed_after_a_word, jobs, ["one.root", "two.root"])
        assert next(results) == "done"
        (tmp_path / "seen").touch()
        with pytest.raises(MLPFError, match=r"1 of 2 are unfinished: two\.root; what is finished is kept"):
            next(results)


def test_a_job_that_is_lost_once_is_done_all_the_same(tmp_path):
    with opened(2) as engine:
        assert list(run_jobs(engine, pool_tasks.killed, [(tmp_path, "a", 1)], ["a"])) == [2]


class AtOnce(Engine):
    """Notes what it is given, and ends it at once."""

    def __init__(self, num_slots, lost=False):
        self.num_slots, self.slot, self._lost = num_slots, Slot(), lost
        self.given = []

    def submit(self, _, *arguments):
        self.given.append(arguments)
        future = Future()
        if self._lost:
            future.set_exception(TaskLost("killed"))
        else:
            future.set_result(arguments)
        return future

    def shutdown(self, now):
        pass


@pytest.mark.parametrize(("num_slots", "ahead"), [(1, 0), (3, 2)])
def test_few_jobs_are_given_out_ahead(num_slots, ahead):
    engine = AtOnce(num_slots)
    results = run_jobs(engine, pool_tasks.square, [(i,) for i in range(100)], [""] * 100)
    seen = []
    for number, result in zip(range(20), results, strict=False):
        seen.append(result)
        assert len(engine.given) <= number + num_slots + ahead
    results.close()
    assert len(set(seen)) == 20
    assert len(engine.given) < 30


def test_many_lost_jobs_are_counted():
    with pytest.raises(MLPFError, match=r"5 of 5 are unfinished: a, b, c and 2 more; .*with fewer workers"):
        list(run_jobs(AtOnce(8, lost=True), pool_tasks.square, [()] * 5, list("edcba")))
