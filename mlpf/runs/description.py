"""What is needed to repeat a run: its configuration, and where and how it was trained."""

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mlpf.config.loading import write_resolved
from mlpf.config.schema import Config
from mlpf.files.atomic import atomic_write, read_json
from mlpf.files.run_directory import RunDirectory
from mlpf.machine import session
from mlpf.training.loop.interruption import TrainingStopped


def write_description(
    config: Config,
    run_dir: Path,
    limits: Mapping[str, int | None],
    changes: Mapping[str, list[str]] | None = None,
) -> None:
    """Write ``config.resolved.yaml`` and ``environment.json``.

    Args:
        config: the whole configuration.
        run_dir: run directory.
        limits: most events, ``ntrain`` and ``ntest``.
        changes: checkpoint -> what was changed when the run went on there.
    """
    write_resolved(config, RunDirectory(run_dir).config)
    file = RunDirectory(run_dir).environment
    earlier = read_json(file, dict).get("starts", [])
    content = {**session.environment(), "limits": dict(limits), "starts": [*earlier, _start()]}
    if changes:
        content["changes"] = dict(changes)
    with atomic_write(file) as part:
        part.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _start() -> dict[str, str]:
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return {"time": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()), "command": command}


@contextmanager
def kept_description(run_dir: Path, begun: Callable[[], bool]) -> Iterator[None]:
    """Put the description of before back where an error comes before the first step.

    A plain ``--resume`` then does not try again, for example, a batch size that does not fit into memory.

    Args:
        run_dir: run directory.
        begun: says whether a step was made.
    """
    files = [RunDirectory(run_dir).config, RunDirectory(run_dir).environment]
    before = {path: path.read_bytes() for path in files if path.is_file()}
    try:
        yield
    except TrainingStopped:
        raise  # in order, as asked
    except BaseException:
        if not begun():
            for path, content in before.items():
                with atomic_write(path) as part:
                    part.write_bytes(content)
        raise
