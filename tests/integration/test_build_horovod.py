"""The recipe that builds Horovod: what it hands to pip, and which targets of the Makefile need it."""

import os
import subprocess

import pytest

# Stands in for the Python of a virtual environment: notes what it is asked for, fails as often as told to.
STAND_IN = """\
#!/usr/bin/env bash
if [[ "$1" == "-" ]]; then
    echo "check" >> "$LOG"
    failures="$(cat "$FAILURES")"
    if ((failures > 0)); then echo $((failures - 1)) > "$FAILURES"; exit 1; fi
    exit 0
fi
echo "$*" >> "$LOG"
if [[ "$*" == *horovod==* ]]; then env | grep -E '^(HOROVOD_|MAKEFLAGS)' | sort >> "$LOG"; fi
exit 0
"""


@pytest.fixture
def build(repo_root, tmp_path):
    def run(failures=0, **settings):
        venv = tmp_path / "venv"
        (venv / "bin").mkdir(parents=True)
        python = venv / "bin" / "python"
        python.write_text(STAND_IN, encoding="utf-8")
        python.chmod(0o755)
        (tmp_path / "failures").write_text(str(failures), encoding="utf-8")
        clean = {k: v for k, v in os.environ.items() if not k.startswith("HOROVOD_")}
        notes = {"LOG": str(tmp_path / "log"), "FAILURES": str(tmp_path / "failures")}
        done = subprocess.run(
            [repo_root / "scripts" / "build_horovod.sh", venv],
            env=clean | notes | settings,
            capture_output=True,
            text=True,
        )
        return done, (tmp_path / "log").read_text(encoding="utf-8").splitlines()

    return run


def test_default_build_is_for_cpus_over_gloo_and_may_use_a_cached_wheel(build):
    done, log = build()
    assert done.returncode == 0, done.stderr
    for setting in ("WITH_TENSORFLOW", "WITH_GLOO", "WITHOUT_MPI", "WITHOUT_PYTORCH", "WITHOUT_MXNET"):
        assert f"HOROVOD_{setting}=1" in log
    (install,) = [line for line in log if "horovod==0.28.1" in line]
    assert "--no-build-isolation" in install
    assert "--no-cache-dir" not in install
    # What the build needs is there before it starts; the result is tried.
    assert log.index(install) > 0
    assert log.count("check") == 1
    assert log[-1] == "-m pip check"


def test_settings_of_the_user_stay_and_make_a_fresh_build(build):
    done, log = build(HOROVOD_GPU_OPERATIONS="NCCL", HOROVOD_WITH_MPI="1", HOROVOD_CMAKE="/opt/cmake")
    assert done.returncode == 0, done.stderr
    assert {"HOROVOD_GPU_OPERATIONS=NCCL", "HOROVOD_WITH_MPI=1", "HOROVOD_CMAKE=/opt/cmake"} <= set(log)
    assert "HOROVOD_WITHOUT_MPI=1" not in log
    (install,) = [line for line in log if "horovod==0.28.1" in line]
    assert "--no-cache-dir" in install


def test_a_cached_wheel_for_another_tensorflow_is_built_again(build):
    done, log = build(failures=1)
    assert done.returncode == 0, done.stderr
    assert ["--no-cache-dir" in line for line in log if "horovod==0.28.1" in line] == [False, True]
    assert "does not fit this TensorFlow" in done.stdout


def test_a_build_that_does_not_work_fails(build):
    done, _ = build(failures=3)
    assert done.returncode != 0


@pytest.mark.parametrize(("target", "needed"), [("test", True), ("demo", False), ("horovod", True)])
def test_the_tests_need_horovod_and_the_demo_does_not(repo_root, tmp_path, target, needed):
    command = ["make", "--dry-run", target, f"VENV={tmp_path}"]
    done = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, check=True)
    assert ("build_horovod.sh" in done.stdout) == needed
