"""What holds for every engine: the pool of this machine, Parsl on this machine, Parsl on a real Slurm."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import traceback
import uuid
from concurrent.futures import wait
from pathlib import Path

import psutil
import pytest

from mlpf.engine.base import EngineFailed, Slot, TaskLost
from mlpf.engine.local import LocalEngine
from mlpf.engine.sites import load_site
from mlpf.machine.allocation import DeviceGroup
from tests.support import engine_tasks as tasks

ENGINES = ["local", "parsl", "slurm"]
CLUSTERS = ["parsl", "slurm"]
PATIENCE = 180.0
RETRIES = 1

SLURM_SITE = """\
description: two nodes
provider: slurm
cores_per_node: 1
max_minutes: {minutes}
stop_margin: {margin}
"""
LOCAL_SITE = "description: one core of this machine\nprovider: local\ncores_per_node: 1\n"


def site_file(kind, folder, minutes=30, margin=0, more=""):
    path = folder / f"{kind}.yaml"
    path.write_text(
        (SLURM_SITE if kind == "slurm" else LOCAL_SITE).format(minutes=minutes, margin=margin) + more,
        encoding="utf-8",
    )
    return path


def open_engine(kind, folder, **options):
    if kind == "local":
        return LocalEngine([DeviceGroup()] * 2, RETRIES)
    from mlpf.engine.parsl.engine import ParslEngine

    return ParslEngine(
        load_site(site_file(kind, folder, **options)), 2, run_dir=folder, slot=Slot(), retries=RETRIES
    )


@contextlib.contextmanager
def surroundings(kind, request):
    """Mark all processes that begin inside; let them find the Slurm of the tests."""
    mark = uuid.uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(tasks.MARK, mark)
        # The interchange changes its title, and would overwrite its variables with it.
        patch.setenv("SPT_NOENV", "1")
        if kind == "slurm":
            cluster = request.getfixturevalue("slurm_daemons")
            patch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
        yield mark


def marked(mark):
    """Return the processes that began under a mark, but for this one and its helper of multiprocessing."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ours = process.pid != os.getpid() and process.environ().get(tasks.MARK) == mark
            helper = process.ppid() == os.getpid() and "resource_tracker" in " ".join(process.cmdline())
            if ours and not helper and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def lives(pid):
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def wait_for(condition, what, seconds=PATIENCE):
    limit = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < limit, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.1)
    return result


def no_process_left(mark, kind, request):
    wait_for(lambda: not marked(mark), f"the end of {marked(mark)}")
    if kind == "slurm":
        cluster = request.getfixturevalue("slurm_daemons")
        wait_for(lambda: not cluster.squeue(), "an empty queue")


@pytest.fixture(params=ENGINES)
def kind(request):
    if request.param == "slurm":
        request.getfixturevalue("slurm")
    return request.param


@pytest.fixture(params=CLUSTERS)
def cluster_kind(request):
    if request.param == "slurm":
        request.getfixturevalue("slurm")
    return request.param


@pytest.fixture(params=ENGINES, scope="class")
def shared(request, tmp_path_factory):
    """An engine for the tests that leave it as it was."""
    with (
        surroundings(request.param, request),
        open_engine(request.param, tmp_path_factory.mktemp("e")) as one,
    ):
        yield one


@pytest.fixture
def log(tmp_path):
    return str(tmp_path / "log")


class TestTask:
    def test_results_come_back_from_two_slots(self, shared):
        assert shared.num_slots == 2
        futures = [shared.submit(tasks.add, i, 1) for i in range(40)]
        assert [future.result(PATIENCE) for future in futures] == list(range(1, 41))
        both = [shared.submit(tasks.surroundings, 1.0) for _ in range(2)]
        assert len({future.result(PATIENCE)["MLPF_SLOT"] for future in both}) == 2

    def test_takes_what_its_slot_has(self, shared):
        found = shared.submit(tasks.surroundings).result(PATIENCE)
        assert found["OMP_NUM_THREADS"] == "1"
        assert found["MLPF_SLOT"]
        assert found["pid"] != os.getpid()
        if found["SLURMD_NODENAME"]:
            assert found["MLPF_SLOT"].startswith(found["SLURMD_NODENAME"])
            assert 0 < float(found["MLPF_PILOT_END"]) - time.time() <= 30 * 60
        else:
            assert found["MLPF_PILOT_END"] is None

    def test_error_arrives_with_the_traceback_of_the_worker(self, shared, log):
        future = shared.submit(tasks.complain, "not here", log)
        with pytest.raises(LookupError, match="not here") as caught:
            future.result(PATIENCE)
        text = "".join(traceback.format_exception(caught.value))
        assert "engine_tasks.py" in text
        assert "in complain" in text
        assert tasks.times(log) == 1

    def test_end_of_the_program_is_an_error_too(self, shared):
        with pytest.raises(SystemExit):
            shared.submit(tasks.leave).result(PATIENCE)

    def test_killed_with_its_worker_runs_again(self, shared, log):
        assert shared.submit(tasks.die_at_first, log).result(PATIENCE) == 2

    def test_lost_too_often_is_given_up(self, shared, log):
        with pytest.raises(TaskLost, match=r"die_always.*tried 2 time"):
            shared.submit(tasks.die_always, log).result(PATIENCE)
        assert tasks.times(log) == 1 + RETRIES
        assert shared.submit(tasks.add, 1, 2).result(PATIENCE) == 3

    def test_that_has_not_begun_can_be_cancelled(self, shared, log):
        first = [shared.submit(tasks.surroundings, 0.5) for _ in range(2)]
        later = shared.submit(tasks.note, log, "ran")
        assert later.cancel()
        wait(first, PATIENCE)
        assert shared.submit(tasks.add, 1, 2).result(PATIENCE) == 3
        assert not Path(log).exists()


def test_error_that_cannot_travel_arrives_as_its_text(request, tmp_path):
    with surroundings("parsl", request), open_engine("parsl", tmp_path) as engine:
        with pytest.raises(RuntimeError, match="Awkward: one"):
            engine.submit(tasks.complain_awkwardly).result(PATIENCE)
        assert engine.submit(tasks.add, 1, 2).result(PATIENCE) == 3


def test_orderly_end_leaves_no_process(kind, request, tmp_path, log, monkeypatch):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with surroundings(kind, request) as mark:
        with open_engine(kind, tmp_path) as engine:
            assert engine.submit(tasks.add, 1, 2).result(PATIENCE) == 3
            assert marked(mark)
        no_process_left(mark, kind, request)
    assert not list(folder.iterdir())


def test_end_in_an_error_stops_what_runs(kind, request, tmp_path, log):
    with surroundings(kind, request) as mark:
        engine = open_engine(kind, tmp_path)
        with contextlib.suppress(KeyboardInterrupt), engine:
            futures = [engine.submit(tasks.stay, log, 600.0) for _ in range(3)]
            wait_for(lambda: Path(log).exists() and tasks.times(log) == 2, "two tasks")
            raise KeyboardInterrupt
        no_process_left(mark, kind, request)
    assert all(future.done() for future in futures)
    assert futures[2].cancelled()
    assert isinstance(futures[0].exception(), TaskLost)


def test_killed_interchange_ends_the_engine(cluster_kind, request, tmp_path, log):
    with surroundings(cluster_kind, request) as mark, open_engine(cluster_kind, tmp_path) as engine:
        futures = [engine.submit(tasks.stay, log, 600.0) for _ in range(3)]
        wait_for(Path(log).exists, "a task")
        (interchange,) = [p for p in marked(mark) if "HTEX interchange" in " ".join(p.cmdline())]
        interchange.kill()
        for future in futures:
            with pytest.raises(EngineFailed, match=r"interchange has ended \(killed by SIGKILL\)"):
                future.result(PATIENCE)
        with pytest.raises(EngineFailed):
            engine.submit(tasks.add, 1, 2)
        engine.shutdown(now=True)
        no_process_left(mark, cluster_kind, request)


@pytest.mark.slow
def test_killed_manager_is_replaced(cluster_kind, request, tmp_path, log):
    with surroundings(cluster_kind, request) as mark:
        with open_engine(cluster_kind, tmp_path) as engine:
            future = engine.submit(tasks.stay_at_first, log, 600.0)
            wait_for(Path(log).exists, "the task")
            worker, manager, _ = Path(log).read_text(encoding="utf-8").split()
            os.kill(int(manager), signal.SIGKILL)
            assert future.result(PATIENCE) == 2
            assert not lives(int(worker))
            both = [engine.submit(tasks.surroundings, 3.0) for _ in range(2)]
            assert len({future.result(PATIENCE)["MLPF_SLOT"] for future in both}) == 2
        no_process_left(mark, cluster_kind, request)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_ended_driver_leaves_no_process_and_no_job(kind, number, request, tmp_path, log, repo_root):
    where = "local" if kind == "local" else str(site_file(kind, tmp_path))
    with surroundings(kind, request) as mark:
        driver = subprocess.Popen(
            [sys.executable, "-m", "tests.support.engine_driver", where, "2", str(tmp_path / "run"), log],
            cwd=repo_root,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        wait_for(lambda: driver.poll() or (Path(log).exists() and tasks.times(log) == 2), "two tasks")
        # A terminal sends Ctrl-C to the whole group.
        os.kill(driver.pid, number) if number != signal.SIGINT else os.killpg(driver.pid, number)
        said = driver.communicate(timeout=PATIENCE)[1]
        no_process_left(mark, kind, request)
    assert "parsl" not in said.replace("parsl_engine.py", "")
    assert driver.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 75, signal.SIGINT: -2}[number]


def inside(cluster, tmp_path, log, repo_root, nodes=2):
    """Submit a driver that runs inside its own allocation."""
    site = site_file("slurm", tmp_path)
    script = (
        "#!/bin/bash\n"
        f"export PYTHONPATH={repo_root} {tasks.MARK}={os.environ[tasks.MARK]}\n"
        f"exec {sys.executable} -m tests.support.engine_driver {site} {nodes} {tmp_path}/run {log} inside\n"
    )
    return cluster.sbatch(script, "--nodes=2", f"--output={tmp_path}/job.out", "--time=10", cwd=repo_root)


@pytest.mark.usefixtures("slurm")
class TestSlurm:
    def test_refusal_is_shown_in_its_own_words(self, request, tmp_path):
        with surroundings("slurm", request) as mark:
            with pytest.raises(EngineFailed, match="invalid partition specified: nowhere") as caught:
                open_engine("slurm", tmp_path, more="partition: nowhere\n")
            assert len(str(caught.value).splitlines()) == 1
            no_process_left(mark, "slurm", request)

    def test_printed_job_is_one_that_slurm_takes(self, slurm, tmp_path):
        from mlpf.engine.parsl.configuration import job_text

        text = job_text(load_site(site_file("slurm", tmp_path)), 2, slot=Slot())
        script = text[text.index("#!/bin/bash") :].replace("RUN_DIR", str(tmp_path))
        done = slurm.command("sbatch", "--test-only", input=script)
        assert "to start at" in done.stderr

    @pytest.mark.slow
    def test_jobs_that_never_come_up_end_the_engine(self, request, tmp_path):
        with surroundings("slurm", request):
            engine = open_engine("slurm", tmp_path, more="setup: ['echo no such module >&2; exit 1']\n")
            with engine, pytest.raises(EngineFailed, match=r"3 times in a row: .*no such module"):
                engine.submit(tasks.add, 1, 2).result(PATIENCE)

    @pytest.mark.slow
    def test_cancelled_pilot_job_is_replaced(self, slurm, request, tmp_path, log):
        with surroundings("slurm", request), open_engine("slurm", tmp_path) as engine:
            future = engine.submit(tasks.stay_at_first, log, 600.0)
            wait_for(Path(log).exists, "the task")
            node = Path(log).read_text(encoding="utf-8").split()[2].partition("-")[0]
            (job,) = [row.job for row in slurm.squeue() if row.nodes == node]
            slurm.command("scancel", job)
            assert future.result(PATIENCE) == 2
            both = [engine.submit(tasks.surroundings, 5.0) for _ in range(2)]
            assert {f.result(PATIENCE)["SLURMD_NODENAME"] for f in both} == {"n1", "n2"}
            assert job not in {row.job for row in slurm.squeue()}

    @pytest.mark.slow
    def test_task_of_a_node_that_goes_down_runs_elsewhere(self, slurm, request, tmp_path, log):
        with surroundings("slurm", request) as mark:
            with open_engine("slurm", tmp_path) as engine:
                future = engine.submit(tasks.stay_at_first, log, 600.0)
                wait_for(Path(log).exists, "the task")
                node = Path(log).read_text(encoding="utf-8").split()[2].partition("-")[0]
                slurm.down(node)
                assert future.result(PATIENCE) == 2
                assert (
                    not Path(log)
                    .read_text(encoding="utf-8")
                    .splitlines()[1]
                    .split()[2]
                    .startswith(f"{node}-")
                )
                slurm.resume(node)
                both = [engine.submit(tasks.surroundings, 10.0) for _ in range(2)]
                assert {f.result(PATIENCE)["SLURMD_NODENAME"] for f in both} == {"n1", "n2"}
            no_process_left(mark, "slurm", request)

    @pytest.mark.slow
    def test_pilot_jobs_that_end_are_followed_by_others(self, request, tmp_path, log):
        """Jobs of three minutes that take no task in the last one, work for longer: no task is lost."""
        with surroundings("slurm", request):
            with open_engine("slurm", tmp_path, minutes=3, margin=1) as engine:
                futures = [engine.submit(tasks.stay, log, 20.0) for _ in range(14)]
                wait(futures)
            assert [future.exception() for future in futures] == [None] * 14
            assert tasks.times(log) == 14
            slots = {
                line.split()[2].partition(".")[0]
                for line in Path(log).read_text(encoding="utf-8").splitlines()
            }
            assert len(slots) >= 4

    @pytest.mark.slow
    def test_driver_inside_its_allocation_uses_all_its_nodes(self, slurm, request, tmp_path, log, repo_root):
        with surroundings("slurm", request) as mark:
            job = inside(slurm, tmp_path, log, repo_root)
            wait_for(lambda: Path(log).exists() and tasks.times(log) == 2, "two tasks")
            lines = [line.split() for line in Path(log).read_text(encoding="utf-8").splitlines()]
            assert {slot.partition("-")[0] for _, _, slot, _ in lines} == {"n1", "n2"}
            # The job has ten minutes.
            assert all(500 < float(end) - time.time() <= 600 for *_, end in lines)
            slurm.command("scancel", job)
            slurm.wait(job)
            no_process_left(mark, "slurm", request)
