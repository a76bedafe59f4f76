"""Stands in for ``mlpf hypertune trial``: how it ends is read from ``fake.json`` beside DIR, by run.

``python -m tests.support.fake_trial hypertune trial DIR RUN --epochs N --num-cpus K``
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from mlpf.config.loading import load_config
from mlpf.files.atomic import atomic_write


def main(directory, run, epochs, num_cpus):
    directory, epochs = Path(directory), int(epochs)
    run_dir = directory / "runs" / run
    run_dir.mkdir(exist_ok=True)
    plans = json.loads((directory.parent / "fake.json").read_text(encoding="utf-8"))
    plan = plans.get(run, plans.get("*", {}))
    with (directory / "starts.txt").open("a") as starts:
        starts.write(f"{run} {epochs} {num_cpus} {os.environ.get('KERAS_BACKEND')} {os.getpid()}\n")
    config = load_config(directory / "runs" / f"{run}.yaml")
    signal.signal(signal.SIGTERM, lambda *_: leave(run_dir, "stopped", 75))
    if plan.get("stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (run_dir / "stubborn").touch()
    if plan.get("busy"):
        with (run_dir / "busy").open("a+") as busy:
            busy.write("x")
            if busy.tell() <= plan["busy"]:
                leave(run_dir, "stopped", 4)
    if plan.get("code"):
        sys.stdout.write("the reason\n")
        sys.stdout.flush()
        os._exit(plan["code"])
    if plan.get("fail_once") and not (run_dir / "failed_once").exists():
        (run_dir / "failed_once").touch()
        sys.stdout.write("something broke\n")
        sys.stdout.flush()
        if plan["fail_once"] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        sys.exit(1)
    history = (
        json.loads((run_dir / "history.json").read_text(encoding="utf-8"))
        if (run_dir / "history.json").exists()
        else []
    )
    for epoch in range(len(history) + 1, epochs + 1):
        time.sleep(plan.get("seconds", 0.0))
        with (directory / "trained.txt").open("a") as trained:
            trained.write(f"{run} {epoch}\n")
        history.append({"epoch": epoch, "val_loss": 10 * config.setup.lr + 1 / epoch})
        with atomic_write(run_dir / "history.json") as part:
            part.write_text(json.dumps(history), encoding="utf-8")
        (run_dir / "checkpoints").mkdir(exist_ok=True)
        with atomic_write(run_dir / "checkpoints" / "latest.json") as part:
            part.write_text(json.dumps({"folder": f"epoch_{epoch}"}), encoding="utf-8")
    if plan.get("lost_history"):
        (run_dir / "history.json").unlink()
    if plan.get("kind"):
        leave(run_dir, "failed", 3, kind=plan["kind"], reason="it is too large")
    leave(run_dir, "completed", 0, num_parameters=1000, inference_ms=None)


def leave(run_dir, state, code, **more):
    with atomic_write(run_dir.with_name(f"{run_dir.name}.outcome.json")) as part:
        part.write_text(json.dumps({"state": state, **more}), encoding="utf-8")
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[3], sys.argv[4], sys.argv[6], sys.argv[8])
