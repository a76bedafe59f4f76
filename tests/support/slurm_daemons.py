"""The daemons of a Slurm with two virtual nodes on this machine; they end with the process that started them.

``python -m tests.support.slurm_daemons FOLDER`` writes the configuration into FOLDER, starts the daemons and
waits until its standard input is closed: by its parent, or by the kernel when the parent is gone. It ends
everything that it or the daemons started, jobs included, and removes FOLDER.
"""

import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import psutil

NODES = ("n1", "n2")
CONFIGURATION_FILE = "slurm.conf"
LOG_FOLDER = "log"
# Children whose parent has ended become children of the process that asked for it (see `man prctl`).
_PR_SET_CHILD_SUBREAPER = 36

# %n: with one spool folder for both nodes jobs would hang in COMPLETING.
_CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits until its credential has expired, two minutes by default.
AuthInfo=socket={folder}/munge.socket,cred_expire=15
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdLogFile={folder}/log/slurmd.%n.log
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/log/slurmctld.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
# A node that a test takes away stays away until the test gives it back.
ReturnToService=0
JobRequeue=1
MinJobAge=3600
# The machine may be slow and loaded.
MessageTimeout=100
SlurmdTimeout=300
# The nodes are what is said here, whatever the machine is.
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=4000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=4000 State=UNKNOWN
PartitionName=debug Nodes=n1,n2 Default=YES MaxTime=60 State=UP
"""


def free_ports(count: int) -> list[int]:
    """Return numbers of ports that nobody uses now, and that no connection gets by chance."""
    ports: list[int] = []
    with ExitStack() as stack:
        while len(ports) < count:
            port = random.randrange(20000, 32000)  # Linux gives connections ports from 32768 on
            try:
                stack.enter_context(socket.socket()).bind(("", port))
            except OSError:
                continue
            ports.append(port)
    return ports


def write_configuration(folder: Path) -> Path:
    """Write the files that the daemons read; return that of Slurm."""
    for name in (LOG_FOLDER, "state"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    path = folder / CONFIGURATION_FILE
    host = socket.gethostname().split(".")[0]
    path.write_text(
        _CONFIGURATION.format(folder=folder, host=host, ports=free_ports(1 + len(NODES))), encoding="utf-8"
    )
    return path


def daemon_commands(folder: Path) -> dict[str, list[str]]:
    """Return what starts each daemon, in the foreground."""
    munged = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket"]
    munged += [f"--{name}-file={folder}/munge.{name}" for name in ("key", "log", "pid", "seed")]
    return {
        "munged": munged,
        "slurmctld": ["slurmctld", "-D"],
        **{f"slurmd.{node}": ["slurmd", "-D", "-N", node] for node in NODES},
    }


def end_descendants() -> None:
    """Kill all processes below this one, and those that they start meanwhile."""
    while children := psutil.Process().children(recursive=True):
        for child in children:
            try:
                child.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(children, timeout=10)


def main(folder: Path) -> None:
    """Run the daemons until standard input is closed."""
    # Ctrl-C goes to all processes of a terminal; this one has to outlive the others to tidy up.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    environment = os.environ | {"SLURM_CONF": str(write_configuration(folder))}
    try:
        for name, command in daemon_commands(folder).items():
            with (folder / LOG_FOLDER / f"{name}.out").open("wb") as output:
                subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    preexec_fn=_default_signals,
                )
            while name == "munged" and not (folder / "munge.socket").exists():
                time.sleep(0.05)
        sys.stdin.buffer.read()
    finally:
        end_descendants()
        shutil.rmtree(folder, ignore_errors=True)


def _default_signals() -> None:
    """Undo in a child what this process ignores."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
