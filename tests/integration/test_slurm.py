"""The job of a training on a real Slurm; a small program takes the place of the training and ends as told."""

import os
import shutil
import subprocess
import time

import pytest

# CODES says how each start ends: with an exit code, or by a signal (wait).
MLPF = """\
#!/usr/bin/env bash
start="${SLURM_RESTART_COUNT:-0}" run_dir="" previous=""
for word in "$@"; do
    if [[ "$previous" == -o || "$previous" == --resume ]]; then run_dir="$word"; fi
    previous="$word"
done
echo "mlpf $*" >> "$run_dir.log"
stop() {
    echo "got $1" >> "$run_dir.log"
    echo '{"state": "stopped"}' > "$run_dir/status.json"
    exit 75
}
trap 'stop USR1' USR1
trap 'stop TERM' TERM
mkdir -p "$run_dir/checkpoints"
echo kept > "$run_dir/config.resolved.yaml"
if [[ -n "${SAVES:-}" ]]; then echo '{}' > "$run_dir/checkpoints/latest.json"; fi
codes="CODES${SLURM_ARRAY_TASK_ID:-}"
read -r -a codes <<< "${!codes}"
if [[ "${codes[start]}" == wait ]]; then
    touch "$run_dir.waits"
    while :; do sleep 0.1; done
fi
exit "${codes[start]}"
"""


@pytest.fixture
def script(repo_root):
    return repo_root / "scripts" / "slurm" / "train.sbatch"


@pytest.fixture
def submit(slurm, script, tmp_path):
    """Submit the job of a training that ends with the given codes, one per start; return its number."""
    program = tmp_path / "bin" / "mlpf"
    program.parent.mkdir()
    program.write_text(MLPF, encoding="utf-8")
    program.chmod(0o755)
    resources = ("--cpus-per-task=1", "--gpus-per-node=0", "--time=30", "--output=out")

    def run(*options, arguments=("-c", "x.yaml"), **variables):
        path = f"{program.parent}:{os.environ['PATH']}"
        environment = {"RUN_DIR": str(tmp_path / "run"), "PATH": path, **variables}
        return slurm.sbatch(
            script, *resources, *options, arguments=arguments, environment=environment, cwd=tmp_path
        )

    return run


def finish(slurm, job, restarts=0):
    """Let a job start as often as said without a pause, and return how it ended."""
    for number in range(1, restarts + 1):
        slurm.wait_for(
            lambda n=number: slurm.job(job)["Restarts"] == str(n), f"requeue {number} of job {job}"
        )
        slurm.wait_for_state(job, "PENDING")
        slurm.start_now(job)
    ended = slurm.wait(job)
    assert ended["Restarts"] == str(restarts)
    return ended["JobState"], ended["ExitCode"]


def notes(tmp_path, name="run"):
    return (tmp_path / f"{name}.log").read_text(encoding="utf-8").splitlines()


def starts(tmp_path, name="run"):
    """How the training was called, without the limit of time, which depends on the clock."""
    return [line.split(" --time-limit")[0] for line in notes(tmp_path, name)]


def test_a_training_that_finishes_ends_the_job(slurm, submit, tmp_path):
    job = submit(arguments=("-c", "x.yaml", "--ntrain", "9"), CODES="0")
    assert finish(slurm, job) == ("COMPLETED", "0:0")
    assert starts(tmp_path) == [f"mlpf train -c x.yaml --ntrain 9 -o {tmp_path}/run --num-cpus 1"]


@pytest.mark.parametrize("code", ["2", "137"])
def test_a_training_that_failed_ends_the_job_with_its_code(slurm, submit, tmp_path, code):
    assert finish(slurm, submit(CODES=code)) == ("FAILED", f"{code}:0")
    assert f"training ended with exit code {code}" in (tmp_path / "out").read_text(encoding="utf-8")


def test_a_training_that_stopped_is_resumed_with_what_its_directory_does_not_hold(slurm, submit, tmp_path):
    job = submit(
        arguments=("-c", "x.yaml", "--set", "setup.lr=1", "-g", "--num-cpus", "3"), CODES="75 0", SAVES="yes"
    )
    assert finish(slurm, job, restarts=1) == ("COMPLETED", "0:0")
    assert starts(tmp_path) == [
        f"mlpf train -c x.yaml --set setup.lr=1 -o {tmp_path}/run -g --num-cpus 3",
        f"mlpf train --resume {tmp_path}/run -g --num-cpus 3",
    ]


def test_a_run_without_a_checkpoint_starts_again_beside_what_it_left(slurm, submit, tmp_path):
    assert finish(slurm, submit(CODES="75 0"), restarts=1) == ("COMPLETED", "0:0")
    assert len(set(starts(tmp_path))) == 1  # twice the same
    (aside,) = tmp_path.glob("run.without_checkpoint.*/")
    assert (aside / "config.resolved.yaml").read_text(encoding="utf-8") == "kept\n"


def test_tasks_of_an_array_have_their_directories_and_are_requeued_alone(slurm, submit, tmp_path):
    arguments = ("-c", "x.yaml", "--seed", "{task}")
    job = submit("--array=3,5", arguments=arguments, CODES3="75 0", CODES5="0", SAVES="yes")
    assert finish(slurm, f"{job}_3", restarts=1) == ("COMPLETED", "0:0")
    assert finish(slurm, f"{job}_5") == ("COMPLETED", "0:0")
    assert f"--seed 5 -o {tmp_path}/run/5 --num" in starts(tmp_path, "run/5")[0]
    first, second = starts(tmp_path, "run/3")
    assert f"--seed 3 -o {tmp_path}/run/3 --num" in first
    assert f"--resume {tmp_path}/run/3 --num" in second


def test_the_number_of_requeues_has_a_limit(slurm, submit, tmp_path):
    job = submit(CODES="75 75", MAX_REQUEUES="1", SAVES="yes")
    assert finish(slurm, job, restarts=1) == ("FAILED", "75:0")
    assert "requeued 1 times already: giving up" in (tmp_path / "out").read_text(encoding="utf-8")


def test_a_requeue_that_slurm_refuses_is_an_error(slurm, submit, tmp_path):
    assert finish(slurm, submit("--no-requeue", CODES="75")) == ("FAILED", "75:0")
    assert "error: scontrol requeue failed" in (tmp_path / "out").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "end_after", "expected"),
    [
        ((), None, 20),  # as the queue says
        (("--time=10",), None, 1),
        ((), 3660, 51),  # newer Slurm says it in a variable
    ],
)
def test_training_is_told_to_stop_before_the_job_ends(slurm, submit, tmp_path, options, end_after, expected):
    end = {} if end_after is None else {"SLURM_JOB_END_TIME": str(int(time.time()) + end_after)}
    finish(slurm, submit(*options, CODES="0", STOP_MARGIN="10", **end))
    minutes = int(notes(tmp_path)[0].split("--time-limit ")[1].removesuffix("m"))
    assert max(expected - 5, 1) <= minutes <= expected  # less the time until the script looked at the clock


def wait_for_start(slurm, tmp_path):
    slurm.wait_for((tmp_path / "run.waits").exists, "the start of the training")


def test_the_warning_of_slurm_reaches_the_training_which_is_requeued(slurm, submit, tmp_path):
    job = submit(CODES="wait 0", SAVES="yes")
    wait_for_start(slurm, tmp_path)
    slurm.command("scancel", "--batch", "--signal=USR1", job)
    assert finish(slurm, job, restarts=1) == ("COMPLETED", "0:0")
    assert starts(tmp_path)[1] == "got USR1"


@pytest.mark.slow
def test_slurm_warns_before_the_time_limit(slurm, submit, tmp_path):
    job = submit("--time=2", CODES="wait 0", SAVES="yes")  # the limit is as long as the warning is early
    assert finish(slurm, job, restarts=1) == ("COMPLETED", "0:0")
    assert starts(tmp_path)[1] == "got USR1"


def test_scancel_stops_the_training_and_requeues_nothing(slurm, submit, tmp_path):
    job = submit(CODES="wait")
    wait_for_start(slurm, tmp_path)
    slurm.command("scancel", job)
    assert finish(slurm, job)[0] == "CANCELLED"
    slurm.wait_until_idle()
    assert "got TERM" in starts(tmp_path)
    assert f"not requeued; to continue: RUN_DIR={tmp_path}/run" in (tmp_path / "out").read_text(
        encoding="utf-8"
    )


def test_without_mlpf_the_job_says_what_to_do(slurm, script, tmp_path):
    path = "/usr/bin:/bin"
    if shutil.which("mlpf", path=path):
        pytest.skip("mlpf is installed for the whole system")
    options = ("--cpus-per-task=1", "--gpus-per-node=0", "--output=out")
    job = slurm.sbatch(script, *options, arguments=["-c", "x.yaml"], environment={"PATH": path}, cwd=tmp_path)
    assert finish(slurm, job) == ("FAILED", "2:0")
    assert "activate the environment" in (tmp_path / "out").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "arguments", [["-o", "x"], ["--resume", "x"], ["--time-limit", "5m"], ["--outdir=x"]]
)
def test_what_the_job_decides_cannot_be_given(script, arguments):
    done = run_by_hand(script, *arguments, SLURM_JOB_ID="17")
    assert done.returncode == 2
    assert f"error: {arguments[0]}: " in done.stderr


def test_outside_of_slurm_the_script_says_so(script):
    done = run_by_hand(script)
    assert done.returncode != 0
    assert "this script is for sbatch" in done.stderr


def run_by_hand(script, *arguments, **variables):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    return subprocess.run(
        ["bash", script, "-c", "x.yaml", *arguments], env=clean | variables, capture_output=True, text=True
    )


def test_sbatch_reads_what_the_job_relies_on(script):
    lines = script.read_text(encoding="utf-8").splitlines()
    before_code = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    for directive in ("--signal=B:USR1@120", "--requeue", "--open-mode=append"):
        assert f"#SBATCH {directive}" in before_code
