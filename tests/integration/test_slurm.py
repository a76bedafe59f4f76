"""The job for Slurm, run by bash with stand-ins for Slurm, Horovod and the training."""

import os
import shutil
import signal
import subprocess
import time

import pytest

from tests.support.slurm_stand_ins import SCONTROL, install
from tests.support.waiting import PATIENCE_SECONDS, wait_until

pytestmark = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("bash", "pgrep", "ps")), reason="needs bash and procps"
)

# Notes its arguments, writes a status and ends with the code it is told; "wait" ends on a signal.
MLPF = """\
#!/usr/bin/env bash
echo "mlpf $*" >> "$LOG"
stop() {
    echo "got $1" >> "$LOG"
    echo "{\\"state\\": \\"${STATE:-stopped}\\"}" > "$RUN_DIR/status.json"
    exit 75
}
trap 'stop USR1' USR1
trap 'stop TERM' TERM
mkdir -p "$RUN_DIR"
if [[ -n "${STATE:-}" ]]; then echo "{\\"epoch\\": 1, \\"state\\": \\"$STATE\\"}" > "$RUN_DIR/status.json"; fi
if [[ "$CODE" == wait ]]; then touch "$RUN_DIR/ready"; for i in {1..6000}; do sleep 0.05; done; exit 9; fi
exit "$CODE"
"""
# Starts the command, and hides its exit code as the real one does.
HOROVODRUN = """\
#!/usr/bin/env bash
echo "horovodrun ${*:1:5}" >> "$LOG"
while [[ "$1" != mlpf ]]; do shift; done
sh -c '"$@"; exit $?' sh "$@" || exit 1
"""


@pytest.fixture
def job(repo_root, tmp_path):
    """Start the job script; return the process and a function that waits and returns exit code and notes."""
    tools = install(tmp_path / "bin", {"mlpf": MLPF, "scontrol": SCONTROL, "horovodrun": HOROVODRUN})
    log = tmp_path / "log"

    def start(*arguments, code=0, script=repo_root / "scripts" / "slurm" / "train.sbatch", **settings):
        clean = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
        environment = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "LOG": str(log),
            "CODE": str(code),
            "RUN_DIR": str(tmp_path / "run"),
            "SLURM_JOB_ID": "17",
        }
        log.write_text("", encoding="utf-8")
        return subprocess.Popen(
            ["bash", script, *(arguments or ("-c", "x.yaml"))],
            env=clean | environment | settings,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )

    def finish(process):
        errors = process.communicate(timeout=PATIENCE_SECONDS)[1]
        return process.returncode, log.read_text(encoding="utf-8").splitlines(), errors

    def run(*arguments, **settings):
        return finish(start(*arguments, **settings))

    run.start, run.finish, run.dir = start, finish, tmp_path / "run"
    return run


def with_checkpoint(run_dir):
    (run_dir / "checkpoints").mkdir(parents=True)
    (run_dir / "checkpoints" / "latest.json").write_text("{}", encoding="utf-8")
    (run_dir / "config.resolved.yaml").touch()


def test_a_training_that_finishes_ends_the_job(job):
    code, log, _ = job("-c", "x.yaml", "--ntrain", "9")
    assert (code, log) == (0, [f"mlpf train -c x.yaml --ntrain 9 -o {job.dir}"])


def test_a_training_that_stopped_goes_back_into_the_queue_once(job):
    code, log, _ = job(code=75)
    assert code == 0
    assert log == [f"mlpf train -c x.yaml -o {job.dir}", "scontrol requeue 17"]


@pytest.mark.parametrize("code", [1, 2, 137])
def test_a_training_that_failed_ends_the_job_with_its_code(job, code):
    returned, log, errors = job(code=code)
    assert returned == code
    assert not any("scontrol" in line for line in log)
    assert f"exit code {code}" in errors


def test_an_old_status_does_not_requeue_a_training_that_failed(job):
    with_checkpoint(job.dir)
    (job.dir / "status.json").write_text('{"state": "stopped"}', encoding="utf-8")
    code, log, _ = job(code=2, SLURM_NTASKS="2", SLURM_JOB_NODELIST="n", SLURM_TASKS_PER_NODE="1,1,0")
    assert code == 1
    assert "scontrol requeue 17" not in log


def test_a_run_with_a_checkpoint_is_resumed_with_what_its_directory_does_not_hold(job):
    with_checkpoint(job.dir)
    _, log, _ = job("-c", "x.yaml", "--set", "setup.lr=1", "-g", "--num-cpus", "3")
    assert log == [f"mlpf train --resume {job.dir} -g --num-cpus 3"]


def test_a_run_killed_before_its_first_checkpoint_starts_again_beside_what_it_left(job):
    (job.dir / "checkpoints").mkdir(parents=True)
    (job.dir / "config.resolved.yaml").write_text("kept", encoding="utf-8")
    code, log, _ = job()
    assert (code, log) == (0, [f"mlpf train -c x.yaml -o {job.dir}"])
    (aside,) = job.dir.parent.glob("run.without_checkpoint.*")
    assert (aside / "config.resolved.yaml").read_text(encoding="utf-8") == "kept"


def test_tasks_of_an_array_have_their_directories_and_are_requeued_alone(job):
    array = {"SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "43"}
    _, log, _ = job("-c", "x.yaml", "--seed", "{task}", code=75, **array)
    assert log == [f"mlpf train -c x.yaml --seed 3 -o {job.dir}/3", "scontrol requeue 40_3"]


def test_the_number_of_requeues_has_a_limit(job):
    code, log, errors = job(code=75, SLURM_RESTART_COUNT="4", MAX_REQUEUES="4")
    assert code == 75
    assert len(log) == 1
    assert "requeued 4 times already" in errors


def test_a_requeue_that_slurm_refuses_is_an_error(job):
    code, _, errors = job(code=75, SCONTROL_CODE="1")
    assert code == 75
    assert "scontrol requeue failed" in errors


def test_training_is_told_to_stop_before_the_job_ends(job):
    end = str(int(time.time()) + 3600 + 59)  # the minutes are rounded down: nearly one to start the script
    _, log, _ = job(SLURM_JOB_END_TIME=end, STOP_MARGIN="10", SLURM_CPUS_PER_TASK="4")
    assert log[0].endswith("--num-cpus 4 --time-limit 50m")
    _, log, _ = job(SLURM_JOB_END_TIME=str(int(time.time())))
    assert log[0].endswith("--time-limit 1m")


def send(job, signals, **settings):
    process = job.start(code="wait", **settings)
    wait_until(lambda: next(job.dir.parent.rglob("ready"), None), "the start of the training")
    for number in signals:
        process.send_signal(number)
        time.sleep(0.02)
    return job.finish(process)


@pytest.mark.parametrize("signals", [[signal.SIGUSR1], [signal.SIGUSR1, signal.SIGUSR1]])
def test_the_warning_of_slurm_reaches_the_training_which_is_requeued(job, signals):
    code, log, _ = send(job, signals)
    assert code == 0
    assert log[1:] == ["got USR1", "scontrol requeue 17"]


def test_scancel_stops_the_training_and_requeues_nothing(job):
    code, log, errors = send(job, [signal.SIGTERM])
    assert code == 75
    assert log[1:] == ["got TERM"]
    assert f"RUN_DIR={job.dir}" in errors


SEVERAL = {"SLURM_NTASKS": "9", "SLURM_JOB_NODELIST": "node[1-3]", "SLURM_TASKS_PER_NODE": "4(x2),1"}


def test_several_tasks_train_together_on_the_hosts_of_the_job(job):
    code, log, _ = job(HOROVODRUN_OPTIONS="--network-interfaces ib0", **SEVERAL)
    assert code == 0
    assert log == [
        "scontrol show hostnames node[1-3]",
        "horovodrun -np 9 -H node1:4,node2:4,node3:1 --gloo",
        f"mlpf train -c x.yaml -o {job.dir} -m",
    ]


@pytest.mark.parametrize(("state", "requeued"), [("stopped", True), ("failed", False), ("running", False)])
def test_under_horovod_the_status_says_whether_training_stopped(job, state, requeued):
    code, log, _ = job(code=75 if requeued else 3, STATE=state, **SEVERAL)
    assert code == (0 if requeued else 1)
    assert ("scontrol requeue 17" in log) == requeued


def test_under_horovod_the_signal_goes_to_the_training_itself(job):
    code, log, _ = send(job, [signal.SIGUSR1], **SEVERAL)
    assert code == 0
    assert log[-2:] == ["got USR1", "scontrol requeue 17"]


@pytest.mark.parametrize(
    "arguments", [["-o", "x"], ["--resume", "x"], ["--time-limit", "5m"], ["--outdir=x"]]
)
def test_what_the_job_decides_cannot_be_given(job, arguments):
    code, log, errors = job("-c", "x.yaml", *arguments)
    assert (code, log) == (2, [])
    assert f"error: {arguments[0]}: " in errors


def test_outside_of_slurm_the_script_says_so(job):
    code, log, errors = job(SLURM_JOB_ID="")
    assert code != 0
    assert log == []
    assert "this script is for sbatch" in errors


def test_without_mlpf_the_job_says_what_to_do(job, tmp_path):
    (tmp_path / "bin" / "mlpf").unlink()
    path = f"{tmp_path / 'bin'}:/usr/bin:/bin"
    if shutil.which("mlpf", path=path):
        pytest.skip("mlpf is installed for the whole system")
    code, _, errors = job(PATH=path)
    assert code == 2
    assert "activate the environment" in errors


def test_sbatch_reads_what_the_job_relies_on(repo_root):
    lines = (repo_root / "scripts" / "slurm" / "train.sbatch").read_text(encoding="utf-8").splitlines()
    before_code = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    for directive in ("--signal=B:USR1@120", "--requeue", "--open-mode=append"):
        assert f"#SBATCH {directive}" in before_code


def test_the_copy_that_slurm_runs_finds_what_the_script_shares(job, repo_root, tmp_path):
    script = repo_root / "scripts" / "slurm" / "train.sbatch"
    copy = shutil.copy(script, tmp_path / "slurm_script")
    code, log, _ = job(script=copy, SUBMITTED=str(script))
    assert (code, log) == (0, ["scontrol show job -o 17", f"mlpf train -c x.yaml -o {job.dir}"])
