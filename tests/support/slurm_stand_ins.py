"""Programs that take the place of those of Slurm: they start local processes and note their arguments."""

import sys
from pathlib import Path

# As the real one: passes signals on to its tasks, waits for all of them, ends with the highest exit code.
SRUN = f"""\
#!{sys.executable}
import os, signal, subprocess, sys

words = sys.argv[1:]
with open(os.environ["LOG"], "a") as log:
    log.write("srun " + " ".join(words[: words.index("bash")]) + "\\n")
tasks = int(words[words.index("--ntasks") + 1])
command = words[words.index("bash") :]
blocked = {{signal.SIGUSR1, signal.SIGTERM}}
signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
children = [
    subprocess.Popen(
        command,
        env=os.environ | {{"SLURM_PROCID": str(i), "SLURM_NODEID": str(i), "SLURM_NTASKS": str(tasks)}},
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked),
    )
    for i in range(tasks)
]

def forward(number, frame):
    for child in children:
        child.send_signal(number)

for number in blocked:
    signal.signal(number, forward)
signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
codes = [child.wait() for child in children]
sys.exit(max(code if code >= 0 else 128 - code for code in codes))
"""
SCONTROL = """\
#!/usr/bin/env bash
echo "scontrol $*" >> "$LOG"
if [[ "$*" == "show job"* ]]; then
    echo "JobId=17 JobName=x Requeue=1 Command=${SUBMITTED:-(null)} WorkDir=/somewhere"
fi
exit "${SCONTROL_CODE:-0}"
"""


def install(folder: Path, programs: dict[str, str]) -> Path:
    """Write programs (name -> text) into a folder, which belongs in front of PATH; return the folder."""
    folder.mkdir(exist_ok=True)
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder
