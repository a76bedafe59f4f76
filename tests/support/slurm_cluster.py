"""A real Slurm with two virtual nodes of one core, ``n1`` and ``n2``, for tests."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.support.slurm_daemons import CONFIGURATION_FILE, LOG_FOLDER, NODES

# Generous: the machine may have two cores and other things to do.
PATIENCE = 300.0
_DAEMONS = ("munged", "slurmctld", "slurmd")
_ENDED = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
)
_ENDED += ("TIMEOUT",)


def why_not() -> str | None:
    """Return why no Slurm can run here, None if one can."""
    missing = [name for name in _DAEMONS if shutil.which(name) is None]
    if missing:
        return f"no Slurm on this machine: {', '.join(missing)} (apt-get install slurm-wlm munge)"
    return None if os.geteuid() == 0 else "Slurm's daemons start as root only"


@dataclass(frozen=True)
class Row:
    """A line of ``squeue``: a job, or a task of an array that runs.

    Attributes:
        job: as squeue writes it, ``12`` or ``12_3``.
        name: of the job.
        state: such as ``PENDING``.
        reason: why it waits, such as ``BeginTime``; ``None`` of a job that does not wait.
        nodes: such as ``n[1-2]``, empty if it does not run.
        partition: such as ``debug``.
    """

    job: str
    name: str
    state: str
    reason: str
    nodes: str
    partition: str


class SlurmCluster:
    """The daemons and the commands to talk to them; use as a context.

    Attributes:
        folder: of the daemons; removed at the end.
        environment: variables under which programs find this Slurm.
    """

    def __init__(self) -> None:
        # The path of a socket is in it, and has to be short.
        self.folder = Path(tempfile.mkdtemp(prefix="mlpf_slurm_"))
        self.folder.chmod(0o755)
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))
        }
        self.environment = clean | {"SLURM_CONF": str(self.folder / CONFIGURATION_FILE)}
        self._daemons: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "SlurmCluster":
        self._daemons = subprocess.Popen(
            [sys.executable, "-m", "tests.support.slurm_daemons", str(self.folder)],
            cwd=Path(__file__).resolve().parents[2],
            env=self.environment,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            self.wait_until_idle()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the daemons and all jobs, and remove the folder."""
        if self._daemons is not None:
            assert self._daemons.stdin is not None
            self._daemons.stdin.close()
            self._daemons.wait()
            self._daemons = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def command(self, *words: str, check: bool = True, **options) -> subprocess.CompletedProcess[str]:
        """Run a program, such as one of Slurm, and return what it said; ``options`` go to subprocess."""
        done = subprocess.run(
            words,
            **({"env": self.environment, "capture_output": True, "text": True, "check": False} | options),
        )
        assert done.returncode == 0 or not check, f"{' '.join(words)}: {done.stderr or done.stdout}"
        return done

    def sbatch(
        self, script: Path | str, *options: str, arguments: Sequence[str] = (), environment=None, cwd=None
    ) -> str:
        """Submit a script, a file or its text, and return the number of the job.

        Args:
            script: file, or text that begins with ``#!``.
            options: of sbatch.
            arguments: of the script.
            environment: further variables of the job.
            cwd: working directory of the job.
        """
        text = script if isinstance(script, str) else None
        words = [
            "sbatch",
            "--parsable",
            *options,
            *([] if text else [str(script)]),
            *(() if text else arguments),
        ]
        assert not (text and arguments), "a script that is a text cannot have arguments"
        done = self.command(*words, input=text, cwd=cwd, env=self.environment | (environment or {}))
        return done.stdout.strip().split(";")[0]

    def squeue(self, *options: str) -> list[Row]:
        """Return the jobs that have not ended, each task of an array in its own row."""
        rows = self.command("squeue", "-h", "-r", "-o", "%i|%j|%T|%r|%N|%P", *options).stdout.splitlines()
        return [Row(*line.split("|")) for line in rows]

    def job(self, job: str) -> dict[str, str]:
        """Return what Slurm knows about a job, also after its end: JobState, ExitCode, Restarts, ..."""
        words = self.command("scontrol", "show", "job", "-o", job).stdout.split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def state(self, job: str) -> str:
        """Return the state of a job, such as ``RUNNING``."""
        return self.job(job)["JobState"]

    def wait(self, job: str, timeout: float = PATIENCE) -> dict[str, str]:
        """Wait until a job has ended, also if its nodes still tidy up; return what Slurm knows about it."""
        self.wait_for(lambda: self.state(job) in _ENDED, f"the end of job {job}", timeout)
        return self.job(job)

    def wait_for_state(self, job: str, state: str, timeout: float = PATIENCE) -> None:
        """Wait until a job is in a state, such as ``RUNNING``."""
        self.wait_for(lambda: self.state(job) == state, f"state {state} of job {job}", timeout)

    def wait_for(self, condition, what: str, timeout: float = PATIENCE) -> None:
        """Wait until ``condition()`` is true; fail with the state of the queue after ``timeout`` seconds."""
        limit = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > limit:
                queue = self.command("scontrol", "show", "job", "-o", check=False).stdout
                raise AssertionError(f"waited {timeout:.0f} s for {what}; jobs:\n{queue}\n{self.logs()}")
            time.sleep(0.2)

    def start_now(self, job: str) -> None:
        """Let a job that was requeued start in two seconds instead of waiting.

        A credential made within the second in which the job was requeued is refused: the job would fail.
        """
        self.command("scontrol", "update", f"JobId={job}", "StartTime=now+2")

    def down(self, node: str) -> None:
        """Take a node away; its jobs end or go back into the queue."""
        self.command("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")

    def resume(self, node: str) -> None:
        """Give a node back."""
        self.command("scontrol", "update", f"NodeName={node}", "State=RESUME")

    def node_states(self) -> dict[str, str]:
        """Return the state of each node, such as ``idle``, ``alloc``, ``down``, ``comp``."""
        lines = self.command("sinfo", "-h", "-N", "-o", "%N %t", check=False).stdout.splitlines()
        return dict(line.split() for line in lines)

    def cancel_all(self) -> None:
        """Cancel all jobs, give back all nodes, wait until these are idle."""
        for row in self.squeue():
            self.command("scancel", row.job, check=False)
        for node, state in self.node_states().items():
            if state.startswith(("down", "drain")):
                self.resume(node)
        self.wait_until_idle()

    def wait_until_idle(self, timeout: float = PATIENCE) -> None:
        """Wait until both nodes are idle."""
        wanted = dict.fromkeys(NODES, "idle")
        self.wait_for(lambda: self._running() and self.node_states() == wanted, "two idle nodes", timeout)

    def logs(self, num_lines: int = 15) -> str:
        """Return the ends of the logs of the daemons."""
        files = sorted((self.folder / LOG_FOLDER).glob("*"))
        return "\n".join(
            f"--- {file.name}\n"
            + "\n".join(file.read_text(errors="replace", encoding="utf-8").splitlines()[-num_lines:])
            for file in files
        )

    def _running(self) -> bool:
        """Return whether Slurm has its configuration; fail if the daemons are gone."""
        assert self._daemons is not None
        assert self._daemons.poll() is None, f"the daemons of Slurm ended\n{self.logs()}"
        return Path(self.environment["SLURM_CONF"]).exists()
