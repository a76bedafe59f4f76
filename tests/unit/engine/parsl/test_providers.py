import os
import signal
import subprocess
import time

import psutil
import pytest
from parsl.launchers import SingleNodeLauncher

from mlpf.engine.parsl import providers as parsl_providers
from mlpf.engine.parsl.providers import LocalGroups, Slurm


class Answers(Slurm):
    """Slurm with given answers of its programs."""

    answer = (0, "Submitted batch job 7", "")

    def execute_wait(self, cmd, *_):
        self.asked = cmd
        return self.answer


@pytest.fixture
def slurm(tmp_path):
    provider = Answers(cores_per_node=1)
    provider.script_dir = str(tmp_path)
    assert provider.submit("true", 1, "job") == "7"
    return provider


class TestSlurm:
    @pytest.mark.parametrize(
        ("line", "state"),
        [
            ("7 PD", "PENDING"),
            ("7 CF", "PENDING"),
            ("7 R", "RUNNING"),
            ("7 CG", "RUNNING"),
            ("7 TO", "COMPLETED"),
            ("7 NF", "COMPLETED"),
        ],
    )
    def test_state(self, slurm, line, state):
        slurm.answer = (0, f"6 R\n{line}\n71 R\n", "")
        assert [status.status_name for status in slurm.status(["7"])] == [state]
        assert f"--user={os.getuid()}" in slurm.asked

    def test_job_that_slurm_has_forgotten_has_ended(self, slurm):
        slurm.answer = (0, "6 R\n", "")
        assert slurm.status(["7"])[0].terminal

    def test_controller_that_does_not_answer_changes_nothing(self, slurm):
        slurm.answer = (0, "7 R\n", "")
        slurm.status(["7"])
        slurm.answer = (1, "", "slurm_load_jobs error: Unable to contact slurm controller")
        assert slurm.status(["7"])[0].status_name == "RUNNING"

    def test_end_is_final(self, slurm):
        slurm.answer = (0, "", "")
        slurm.status(["7"])
        slurm.answer = (0, "7 R\n", "")
        assert slurm.status(["7"])[0].terminal


class TestLocalGroups:
    @pytest.fixture
    def start(self, tmp_path):
        provider = LocalGroups(launcher=SingleNodeLauncher(debug=False))
        provider.script_dir = str(tmp_path)

        def start(command):
            job = provider.submit(command, 1, "job")
            return provider, job

        return start

    def wait_for(self, path):
        while not path.exists() or not path.read_text(encoding="utf-8").endswith("\n"):
            time.sleep(0.02)
        return int(path.read_text(encoding="utf-8"))

    @pytest.mark.parametrize("trap", ["", "trap '' TERM;"])
    def test_cancel_ends_all_processes(self, start, tmp_path, trap, monkeypatch):
        monkeypatch.setattr(parsl_providers, "_END_SECONDS", 0.5)
        ours = tmp_path / "pid"
        provider, job = start(f'bash -c "{trap} echo \\$\\$ > {ours}; while :; do sleep 1; done"')
        process = self.wait_for(ours)
        assert not provider.status([job])[0].terminal
        assert provider.cancel([job]) == [True]
        assert not psutil.pid_exists(process) or psutil.Process(process).status() == psutil.STATUS_ZOMBIE
        assert provider.status([job])[0].terminal

    def test_cancel_of_what_has_ended(self, start):
        provider, job = start("true")
        while not provider.status([job])[0].terminal:
            time.sleep(0.05)
        assert provider.cancel([job]) == [True]

    def test_others_are_left_alone(self, start):
        other = subprocess.Popen(["sleep", "60"], start_new_session=True)
        provider, job = start("sleep 60")
        provider.cancel([job])
        assert other.poll() is None
        other.send_signal(signal.SIGKILL)
        other.wait()
