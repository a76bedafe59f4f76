"""Stand-ins for chief and worker of a search: a program that does as it is told, without keras-tuner.

Takes the command lines of ``mlpf hypertune chief`` and ``worker``. What each process does at its first,
second, ... start stands in ``ORDERS`` of its environment as JSON, name -> list of words; the last word holds
for all later starts. Every start is a line in ``DIR/starts-<name>.txt``: process id, cores, GPUs, options.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

ORDERS = "FAKE_SEARCH_ORDERS"


def main():
    from mlpf.lifeline import Lifeline, end_with_parent

    end_with_parent()
    kind, directory = sys.argv[2], Path(sys.argv[3])
    options = dict(zip(sys.argv[4::2], sys.argv[5::2], strict=True))
    name = options.get("--id", "chief")
    orders = json.loads(os.environ[ORDERS])
    words = orders.get(name, ["serve"] if kind == "chief" else ["work"])
    file = directory / f"starts-{name}.txt"
    count = len(file.read_text().splitlines()) if file.exists() else 0
    seen = {"pid": os.getpid(), "cpus": sorted(os.sched_getaffinity(0)), "options": options}
    seen["gpus"] = os.environ.get("CUDA_VISIBLE_DEVICES")
    with file.open("a") as stream:
        stream.write(json.dumps(seen) + "\n")
    word = words[min(count, len(words) - 1)]
    if word == "crash":
        sys.stdout.write(f"{name}: something went wrong\n")
        sys.exit(1)
    if word == "refuse":
        sys.stdout.write(f"error: {name} cannot do that\n")
        sys.exit(2)
    (chief if kind == "chief" else worker)(name, word, directory, options, orders, Lifeline)


def chief(name, word, directory, options, orders, _lifeline):
    port = int(options["--port"]) or 40000 + os.getpid() % 1000
    write(directory / "chief.json", {"address": "127.0.0.1", "port": port, "token": "x", "pid": os.getpid()})
    while word != "die" and len(list(directory.glob("done-*"))) < orders["expected"]:
        time.sleep(0.02)
    if word == "die":
        wait_for(directory / "die")
        sys.exit(1)
    status = orders.get("status", "completed")
    records = {
        p.name: {"trial_id": p.name, "run": p.name, "status": status} for p in directory.glob("done-*")
    }
    write(
        directory / "oracle.json",
        {"records": records, "finished": True, "problem": orders.get("problem", "")},
    )


def worker(name, word, directory, _options, _orders, lifeline):
    if word == "child":
        import subprocess

        line = lifeline()
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(directory / f"child-{name}")],
            pass_fds=line.pass_fds,
            env={**os.environ, **line.environment},
        )
        assert child.pid
    if word in ("work", "child"):
        signal.signal(signal.SIGTERM, lambda *_: leave(directory / f"saved-{name}"))
    if word in ("stubborn", "linger"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if word in ("finish", "linger"):
        (directory / f"done-{name}").touch()
        wait_for(directory / "oracle.json")
        if word == "finish":
            return
    (directory / f"ready-{name}").touch()
    while True:
        time.sleep(0.02)


# A trial: on the lifeline of its worker.
CHILD = """
import os, sys, time
from pathlib import Path
from mlpf.lifeline import end_with_parent
assert end_with_parent()
Path(sys.argv[1] + ".part").write_text(str(os.getpid()))
os.rename(sys.argv[1] + ".part", sys.argv[1])
while True:
    time.sleep(1)
"""


def leave(path):
    path.touch()
    sys.exit(75)


def wait_for(path):
    while not path.exists():
        time.sleep(0.02)


def write(path, data):
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(data))
    part.replace(path)
