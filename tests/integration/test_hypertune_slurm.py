"""The job of a search on several nodes, run by bash; the nodes are processes of this machine."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from mlpf.config.loading import load_config, write_resolved
from mlpf.errors import MLPFError
from tests.support.search import search_config, state_of
from tests.support.slurm_stand_ins import SCONTROL, SRUN, install

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")

# Notes how it was called. Task N ends with $CODE_N; "wait" waits for a signal, "die" is killed.
MLPF = f"""\
#!{sys.executable}
import os, signal, sys, time
from pathlib import Path

number, run_dir = os.environ["SLURM_PROCID"], Path(os.environ["RUN_DIR"])
code = os.environ["CODE_" + number]

def note(line, file="LOG"):
    with open(os.environ[file], "a") as log:
        log.write(line + "\\n")

def end(state, code):
    if number == "0":
        run_dir.mkdir(parents=True, exist_ok=True)
        for name in ("config.resolved.yaml", "chief.json"):
            (run_dir / name).touch()
        (run_dir / "status.json").write_text('{{"state": "' + state + '"}}')
    sys.exit(code)

def stop(signal_number, frame):
    note(f"{{number}}: got {{signal.Signals(signal_number).name}}")
    end("stopped", 75)

signal.signal(signal.SIGUSR1, stop)
signal.signal(signal.SIGTERM, stop)
note(number + ": mlpf " + " ".join(sys.argv[1:]))
note(str(os.getpid()), "PIDS")
if number == "0" and (run_dir / "chief.json").exists():
    note("old chief")
if code == "wait":
    Path(os.environ["READY"] + "." + number).touch()
    time.sleep(15)
    sys.exit(9)
if code == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if code == "0":
    time.sleep(float(os.environ.get("LAST", 0)))
end({{"0": "finished", "75": "stopped"}}.get(code, "failed"), int(code))
"""
IP = """\
#!/usr/bin/env bash
echo "ip $*" >> "$LOG"
if [[ "$*" != *hsn0* ]]; then echo "no device" >&2; exit 1; fi
echo '2: hsn0    inet 10.1.2.3/16 brd 10.1.255.255 scope global hsn0'
"""


@pytest.fixture
def job(repo_root, tmp_path):
    """Start the job script; return exit code, sorted notes of the tasks, messages."""
    tools = install(tmp_path / "bin", {"mlpf": MLPF, "scontrol": SCONTROL, "srun": SRUN, "ip": IP})
    log, pids, run_dir = tmp_path / "log", tmp_path / "pids", tmp_path / "run"

    def start(*arguments, codes=(0, 0), script=repo_root / "scripts" / "slurm" / "hypertune.sbatch", **more):
        log.write_text("")
        pids.write_text("")
        environment = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "LOG": str(log),
            "PIDS": str(pids),
            "READY": str(tmp_path / "ready"),
            "RUN_DIR": str(run_dir),
            "SLURM_JOB_ID": "17",
            "SLURM_NNODES": str(len(codes)),
        }
        environment |= {f"CODE_{i}": str(code) for i, code in enumerate(codes)}
        clean = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
        return subprocess.Popen(
            ["bash", script, *(arguments or ("-c", "x.yaml"))],
            env=clean | environment | more,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )

    def finish(process, timeout=30):
        errors = process.communicate(timeout=timeout)[1]
        for pid in pids.read_text().split():
            with pytest.raises(ProcessLookupError):
                os.kill(int(pid), 0)
        assert not list(tmp_path.glob(".slurm_*"))
        lines = [line for line in log.read_text().splitlines() if not line.startswith("srun ")]
        return process.returncode, sorted(lines), errors

    def run(*arguments, **settings):
        return finish(start(*arguments, **settings))

    def send(number, **settings):
        process = start(codes=("wait", "wait"), **settings)
        while len(list(tmp_path.glob("ready.*"))) < 2:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        return finish(process)

    run.dir, run.log, run.send, run.start, run.finish = run_dir, log, send, start, finish
    return run


def joined(job, task=1, options=""):
    return f"{task}: mlpf hypertune --join auto -o {job.dir}{options} --name task{task}"


def short_name():
    return subprocess.run(["hostname", "-s"], capture_output=True, text=True, check=True).stdout.strip()


def test_task_0_starts_the_search_and_the_others_join_it(job):
    code, log, errors = job("-c", "x.yaml", "--set", "setup.lr=1 2", codes=(0, 0, 0))
    first = (
        f"0: mlpf hypertune -c x.yaml --set setup.lr=1 2 -o {job.dir} --address {short_name()} --name task0"
    )
    assert (code, log) == (0, [first, joined(job), joined(job, 2)]), errors
    srun = job.log.read_text().splitlines()[0]
    assert srun.startswith("srun --nodes 3 --ntasks 3 --ntasks-per-node 1 ")
    for option in ("--no-kill", "--kill-on-bad-exit=0", "--wait=0"):
        assert option in srun.split()


def test_one_node_opens_no_port_to_others(job):
    _, log, _ = job(codes=(0,))
    assert log == [f"0: mlpf hypertune -c x.yaml -o {job.dir} --name task0"]


def test_the_chief_listens_on_the_network_of_the_site(job):
    _, log, _ = job(NETWORK_INTERFACE="hsn0")
    assert "--address 10.1.2.3 " in log[0]
    shutil.rmtree(job.dir)
    _, log, _ = job(HOST_SUFFIX="i")
    assert f"--address {short_name()}i " in log[0]


def test_an_interface_that_the_node_lacks_is_an_error(job):
    code, _, errors = job(NETWORK_INTERFACE="ib7", codes=(0, 1))
    assert code == 2
    assert f"error: NETWORK_INTERFACE=ib7: no IPv4 address on {short_name()}" in errors


def test_options_of_devices_go_to_all_and_the_port_to_the_chief(job):
    end = str(int(time.time()) + 3600 + 30)
    options = ["-c", "x.yaml", "--gpus-per-trial", "2", "--workers=3", "--port", "5000"]
    _, log, _ = job(
        *options, SLURM_JOB_END_TIME=end, SLURM_CPUS_PER_TASK="6", SRUN_OPTIONS="--gpu-bind=none -l"
    )
    assert f"-c x.yaml -o {job.dir} --gpus-per-trial 2 --workers=3 --time-limit 55m --port 5000" in log[0]
    assert log[1] == joined(job, options=" --gpus-per-trial 2 --workers=3 --time-limit 55m")
    srun = job.log.read_text().splitlines()[0]
    assert "--cpus-per-task 6" in srun
    assert srun.endswith("--gpu-bind=none -l")


def test_a_search_that_stopped_is_requeued_and_goes_on_without_the_old_chief(job):
    code, log, _ = job(codes=(75, 75))
    assert code == 0
    assert log[-1] == "scontrol requeue 17"
    assert (job.dir / "chief.json").exists()
    code, log, _ = job("-c", "x.yaml", "--workers", "2", SLURM_RESTART_COUNT="1")
    assert code == 0
    again = f"0: mlpf hypertune --resume -o {job.dir} --workers 2 --address {short_name()} --name task0"
    assert log == [again, joined(job, options=" --workers 2")]


def test_a_search_that_is_over_is_joined_by_nobody(job):
    job()
    code, log, _ = job()
    assert (code, len(log)) == (0, 1)
    assert log[0].startswith("0: mlpf hypertune --resume")


@pytest.mark.parametrize(("number", "name"), [(signal.SIGUSR1, "SIGUSR1"), (signal.SIGTERM, "SIGTERM")])
def test_signals_reach_all_tasks(job, number, name):
    code, log, errors = job.send(number)
    received = [line for line in log if "got" in line]
    assert sorted(received) == [f"0: got {name}", f"1: got {name}"], errors
    # After scancel nothing goes back into the queue.
    assert (code, "scontrol requeue 17" in log) == ((0, True) if name == "SIGUSR1" else (75, False))


def test_a_task_that_dies_ends_no_other(job):
    code, log, errors = job(codes=(0, "die"), LAST="0.5")
    assert code == 137
    assert json.loads((job.dir / "status.json").read_text()) == {"state": "finished"}, errors
    assert not any("scontrol" in line for line in log)


def test_a_task_that_died_does_not_keep_a_stopped_search_out_of_the_queue(job):
    code, log, _ = job(codes=(75, "die"))
    assert (code, log[-1]) == (0, "scontrol requeue 17")


@pytest.mark.parametrize(
    ("codes", "expected"), [((1, 1), 1), ((1, 75), 1), ((0, 1), 1), ((0, 75), 0), ((2, 2), 2), ((0, 0), 0)]
)
def test_the_exit_code_of_the_job(job, codes, expected):
    code, log, _ = job(codes=codes)
    assert code == expected
    assert not any("scontrol" in line for line in log)


def test_a_task_that_stopped_before_the_search_began_requeues_the_job(job):
    code, log, _ = job(codes=("die", 75), MAX_REQUEUES="3")
    assert (code, "scontrol requeue 17" in log) == (137, False)
    code, log, errors = job(codes=(75, 75), MAX_REQUEUES="3", SLURM_RESTART_COUNT="3")
    assert (code, "scontrol requeue 17" in log) == (75, False)
    assert "requeued 3 times already" in errors


@pytest.mark.parametrize(
    "arguments",
    [["-o", "x"], ["--resume"], ["--address=x"], ["--join", "auto"], ["--name", "x"], ["--time-limit", "1h"]],
)
def test_what_the_job_decides_cannot_be_given(job, arguments):
    code, log, errors = job("-c", "x.yaml", *arguments)
    assert (code, log) == (2, [])
    assert f"error: {arguments[0]}: " in errors


def test_searches_of_an_array_have_their_directories(job):
    array = {"SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "3"}
    _, log, _ = job("-c", "x.yaml", "--set", "setup.seed={task}", codes=(0,), **array)
    assert log == [f"0: mlpf hypertune -c x.yaml --set setup.seed=3 -o {job.dir}/3 --name task0"]


def test_the_copy_that_slurm_runs_finds_what_the_script_shares(job, repo_root, tmp_path):
    script = repo_root / "scripts" / "slurm" / "hypertune.sbatch"
    copy = shutil.copy(script, tmp_path / "slurm_script")
    code, log, _ = job(script=copy, SUBMITTED=str(script), codes=(0,))
    assert (code, len(log)) == (0, 2)


def test_sbatch_reads_what_the_job_relies_on(repo_root):
    lines = (repo_root / "scripts" / "slurm" / "hypertune.sbatch").read_text().splitlines()
    before_code = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    for directive in ("--ntasks-per-node=1", "--signal=B:USR1@180", "--requeue", "--no-kill"):
        assert f"#SBATCH {directive}" in before_code


REAL_MLPF = f"""\
#!/usr/bin/env bash
echo "$SLURM_PROCID: mlpf $*" >> "$LOG"
echo $$ >> "$PIDS"
exec {sys.executable} -m tests.support.search_cli "$@"
"""
# The two nodes are one machine: its name need not be known to its own network.
LOOPBACK_IP = "#!/usr/bin/env bash\necho '1: lo    inet 127.0.0.1/8 scope host lo'\n"


@pytest.mark.slow
def test_real(job, repo_root, tmp_path):
    pytest.importorskip("keras_tuner")
    install(tmp_path / "bin", {"mlpf": REAL_MLPF, "ip": LOOPBACK_IP})
    section = {"algorithm": "random", "num_trials": 12, "num_epochs": 3}
    write_resolved(search_config(**section), tmp_path / "search.yaml")
    (tmp_path / "fake.json").write_text('{"*": {"seconds": 0.2}}')
    options = ["-c", str(tmp_path / "search.yaml"), "--workers", "1", "--cpus-per-trial", "1"]
    settings = {
        "NETWORK_INTERFACE": "lo",
        "PYTHONPATH": str(repo_root),
        "MLPF_TEST_TRIALS": "pretend",
        "RUN_DIR": str(job.dir),
    }

    process = job.start(*options, **settings)
    while sum(trial.status == "completed" for trial in trials(job)) < 2:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    process.send_signal(signal.SIGUSR1)
    code, log, errors = job.finish(process, timeout=120)
    assert (code, log[-1]) == (0, "scontrol requeue 17"), errors
    assert json.loads((job.dir / "status.json").read_text())["state"] == "stopped"
    before = {trial.trial_id for trial in trials(job) if trial.status == "completed"}

    code, log, errors = job.finish(job.start(*options, SLURM_RESTART_COUNT="1", **settings), timeout=240)
    assert code == 0, errors
    assert log[0].startswith("0: mlpf hypertune --resume")
    assert json.loads((job.dir / "status.json").read_text())["state"] == "finished"
    assert before < {trial.trial_id for trial in trials(job)}
    assert [trial.status for trial in trials(job)] == ["completed"] * 12
    assert {trial.worker for trial in trials(job)} == {"task0-0", "task1-0"}
    assert load_config(job.dir / "best.yaml").hypertune is None
    assert not [p for p in psutil.process_iter() if str(job.dir) in " ".join(command_line(p))]


def command_line(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def trials(job):
    try:
        return list(state_of(job.dir).values())
    except (OSError, MLPFError):
        return []
