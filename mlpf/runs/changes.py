"""What a run that goes on has changed since it began, what it may change, and what it may not."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mlpf.config.differences import changed_keys
from mlpf.config.loading import load_config
from mlpf.config.schema import Config
from mlpf.errors import CheckpointError, ConfigError
from mlpf.files.run_directory import CheckpointFolder, RunDirectory

Limits = Mapping[str, int | None]

# Keys that can make a checkpoint unfit. A star stands for any name.
DETECTOR = ("dataset.detector.*",)
NETWORK = ("parameters.*", "dataset.*")
OPTIMIZER = (
    "setup.optimizer",
    "setup.ema",
    "setup.gradient_accumulation_steps",
    "setup.dtype",
    "setup.trainable",
    *NETWORK,
)
BATCHES = ("--*", "train_test_datasets.*", "datasets.*", "batching.*", "setup.seed", *NETWORK)
RANDOM_NUMBERS = ("parameters.*", "loss.*")

_MAY = (
    "with --resume may change: epochs, learning rate, schedule, loss, callbacks; after a whole epoch also "
    "datasets, --ntrain, seed, batch sizes and dropout. May not: what gives network or optimizer other "
    "weights (dataset, widths and layers in parameters, setup.optimizer, ema, trainable, "
    "gradient_accumulation_steps, float16). "
    "For these begin a new run from the weights of this one: mlpf train -c CONFIG -w {run_dir} --partial"
)


@dataclass(frozen=True)
class Changes:
    """What differs from the checkpoint where a run goes on.

    Attributes:
        run_dir: run directory.
        checkpoint: name of that checkpoint.
        keys: key or option -> ``old -> new``.
        place_of: says where the new value of a key is given.
        earlier: checkpoint -> lines of what was changed when the run went on there, in order.
    """

    run_dir: Path
    checkpoint: str = ""
    keys: dict[str, str] = field(default_factory=dict)
    place_of: Callable[[str], str] = str
    earlier: dict[str, list[str]] = field(default_factory=dict)

    def record(self) -> dict[str, list[str]]:
        """Return checkpoint -> lines of all changes since the run began."""
        now = {self.checkpoint: [f"{key}: {change}" for key, change in self.keys.items()]}
        return {**self.earlier, **(now if self.keys else {})}

    def lines(self) -> list[str]:
        """Return one line for each change since the run began."""
        return [f"changed after {where}: {line}" for where, lines in self.record().items() for line in lines]

    def not_kept(self) -> str:
        """Return what to add to a message that nothing is left to train; empty if nothing has changed."""
        if not self.keys:
            return ""
        return f". Not used and not kept: {', '.join(self.keys)}; give the changes with the longer training"

    @contextmanager
    def explained(self, keys: Sequence[str]) -> Iterator[None]:
        """Name the first change that can be the reason why a checkpoint does not fit.

        Args:
            keys: patterns of keys that can be.

        Raises:
            CheckpointError: that of the block, with the change, and what may change.
        """
        try:
            yield
        except CheckpointError as error:
            reasons = [key for key in self.keys if any(fnmatchcase(key, pattern) for pattern in keys)]
            if not reasons:
                raise
            first, *others = reasons
            also = f" (changed too: {', '.join(others[:5])})" if others else ""
            where = first if first.startswith("--") else f"{self.place_of(first)}  {first}"
            may = _MAY.format(run_dir=self.run_dir)
            raise CheckpointError(f"{where}: {self.keys[first]}{also}; {error}\n{may}") from error


def find_changes(
    run_dir: Path, checkpoint: Path, config: Config, limits: Limits, place_of: Callable[[str], str]
) -> Changes:
    """Compare a configuration with that of the checkpoint where a run goes on.

    Args:
        run_dir: run directory.
        checkpoint: its folder.
        config: of now.
        limits: most events, ``ntrain`` and ``ntest`` of now.
        place_of: says where the value of a key is given.
    """
    keys = {}
    for path in (CheckpointFolder(checkpoint).config, RunDirectory(run_dir).config):
        try:
            keys = changed_keys(load_config(path), config)
            break
        except ConfigError:
            continue  # of an older version, damaged or lost: whether the checkpoint fits is found out anyway
    environment = _environment(run_dir)
    before = environment.get("limits")
    for name, value in limits.items():
        old = before.get(name) if isinstance(before, dict) else value
        if old != value:
            keys[f"--{name}"] = f"{'all' if old is None else old} -> {'all' if value is None else value}"
    earlier = environment.get("changes")
    if not isinstance(earlier, dict):
        earlier = {}
    earlier = {name: lines for name, lines in earlier.items() if name != checkpoint.name}
    return Changes(run_dir, checkpoint.name, keys, place_of, earlier)


def recorded_limits(run_dir: Path) -> dict[str, int | None]:
    """Return the event limits that a run to be resumed was started with."""
    limits = _environment(run_dir).get("limits")
    return limits if isinstance(limits, dict) else {}


def _environment(run_dir: Path) -> dict[str, Any]:
    """Return what is recorded about a run; empty if it was written by hand, or lost."""
    try:
        content = json.loads(RunDirectory(run_dir).environment.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
