from types import SimpleNamespace

import pytest

from mlpf.engine.base import EngineFailed
from mlpf.engine.parsl import pilot_jobs
from mlpf.engine.parsl.pilot_jobs import PilotJobs


class Queue:
    """A scheduler: jobs run until a test ends them."""

    def __init__(self):
        self.commands, self.ended, self.cancelled, self.refuses = [], {}, [], ""

    def submit(self, command, *_):
        if self.refuses:
            raise RuntimeError(self.refuses)
        self.commands.append(command)
        return len(self.commands) - 1

    def status(self, job_ids):
        return [
            SimpleNamespace(terminal=job in self.ended, stderr_summary=self.ended.get(job), message=None)
            for job in job_ids
        ]

    def cancel(self, job_ids):
        self.cancelled += job_ids
        return [True] * len(job_ids)


@pytest.fixture
def queue(monkeypatch):
    monkeypatch.setattr(pilot_jobs, "_PAUSE_SECONDS", 0.0)
    return Queue()


def jobs_on(queue, count):
    return PilotJobs(queue, lambda block, node: f"{block} on {node}", count, str)


def test_as_many_as_asked_for(queue):
    jobs_on(queue, 3).start()
    assert queue.commands == ["0 on 0", "1 on 1", "2 on 2"]


def test_ended_job_is_replaced_at_its_node(queue):
    jobs = jobs_on(queue, 2)
    jobs.start()
    queue.ended[0] = ""
    jobs.look(lambda: ["0", "1"], wanted=True)
    assert queue.commands[2:] == ["2 on 0"]
    jobs.look(lambda: ["0", "1"], wanted=True)
    assert len(queue.commands) == 3
    jobs.cancel()
    assert sorted(queue.cancelled) == [1, 2]


def test_without_work_none_is_replaced(queue):
    jobs = jobs_on(queue, 1)
    jobs.start()
    queue.ended[0] = ""
    jobs.look(lambda: ["0"], wanted=False)
    assert len(queue.commands) == 1
    jobs.look(lambda: ["0"], wanted=True)
    assert len(queue.commands) == 2


def test_node_that_never_comes_up_is_given_up_but_the_others_go_on(queue):
    jobs = jobs_on(queue, 2)
    jobs.start()
    for _ in range(10):
        for job, command in enumerate(queue.commands):
            if command.endswith("on 0"):
                queue.ended[job] = "broken node"
        jobs.look(lambda: ["1"], wanted=True)
    assert sum(command.endswith("on 0") for command in queue.commands) == pilot_jobs.MAX_FAILURES
    queue.ended[1] = ""
    jobs.look(lambda: ["1"], wanted=True)
    assert queue.commands[-1].endswith("on 1")


def test_no_node_comes_up(queue):
    jobs = jobs_on(queue, 1)
    jobs.start()
    for job in range(pilot_jobs.MAX_FAILURES - 1):
        queue.ended[job] = "no such\nmodule"
        jobs.look(list, wanted=True)
    queue.ended[pilot_jobs.MAX_FAILURES - 1] = "no such\nmodule"
    with pytest.raises(EngineFailed, match=r"3 times in a row: no such module"):
        jobs.look(list, wanted=True)
    assert len(queue.commands) == pilot_jobs.MAX_FAILURES


def test_a_node_that_came_up_may_fail_again_and_again(queue):
    jobs = jobs_on(queue, 1)
    jobs.start()
    for job in range(10):
        queue.ended[job] = "time limit"
        jobs.look(lambda job=job: [str(job)], wanted=True)
    assert len(queue.commands) == 11


def test_refusal_at_the_start_cancels_what_was_taken(queue):
    jobs = jobs_on(queue, 2)
    submit = queue.submit
    queue.submit = lambda *words: submit(*words) if not queue.commands else refuse("too many jobs")

    def refuse(words):
        raise RuntimeError(words)

    with pytest.raises(EngineFailed, match="refuses the pilot job: too many jobs"):
        jobs.start()
    assert queue.cancelled == [0]


def test_refusal_later_is_tried_again(queue):
    jobs = jobs_on(queue, 1)
    jobs.start()
    queue.ended[0] = ""
    queue.refuses = "busy"
    jobs.look(lambda: ["0"], wanted=True)
    queue.refuses = ""
    jobs.look(list, wanted=True)
    assert queue.commands == ["0 on 0", "2 on 0"]
