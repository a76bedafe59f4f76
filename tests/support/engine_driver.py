"""A driver of an engine, to be killed by tests.

``python -m tests.support.engine_driver SITE.yaml NODES RUN_DIR LOG [inside]``; ``local`` in place of a site
takes the pool of this machine.
"""

import signal
import sys
from pathlib import Path

from mlpf.engine.base import Slot
from mlpf.engine.local import LocalEngine
from mlpf.engine.parsl.engine import ParslEngine
from mlpf.engine.sites import load_site
from mlpf.machine.allocation import DeviceGroup
from tests.support import engine_tasks as tasks


def main(where, nodes, run_dir, log, place="outside"):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    if where == "local":
        engine = LocalEngine([DeviceGroup()] * 2)
    else:
        inside = place == "inside"
        engine = ParslEngine(
            *(load_site(where), int(nodes)),
            run_dir=Path(run_dir),
            slot=Slot(),
            retries=1,
            inside_allocation=inside,
        )
    with engine:
        for future in [engine.submit(tasks.stay, log, 600.0) for _ in range(3)]:
            future.result()


if __name__ == "__main__":
    main(*sys.argv[1:])
