"""The trainings of an ensemble: every row of a table with every seed."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlpf.config.differences import differences
from mlpf.config.schema import Config
from mlpf.config.search.trial_values import base_data, refusal, validated
from mlpf.ensemble.table import Row
from mlpf.errors import CheckpointError, ConfigError
from mlpf.files.atomic import write_json
from mlpf.files.run_directory import ENSEMBLE_FILE

SEED_KEY = "setup.seed"

MAX_MEMBERS = 10_000
_LARGEST_SEED = 2**32 - 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_RANGE = re.compile(r"(\d{1,10})(?::(\d{1,10}))?")


@dataclass(frozen=True)
class Member:
    """One training of an ensemble.

    Attributes:
        name: name of its run directory, unique.
        row: name of its row of the table; empty without a table.
        values: dotted key -> value that differs from the configuration file, including the seed.
        where: file and line, for errors.
    """

    name: str
    row: str
    values: Mapping[str, Any]
    where: str = ""

    def config(self, base: Config) -> Config:
        """Return the whole configuration.

        Args:
            base: the configuration of the file and the command line.

        Raises:
            ConfigError: one line for each problem.
        """
        where = f"{self.where}  {self.name}" if self.where else self.name
        try:
            found = validated(base_data(base), self.values)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
        if isinstance(found, Config):
            return found
        raise ConfigError("\n".join(refusal(problem, where) for problem in found))


@dataclass(frozen=True)
class Plan:
    """The rows, seeds and limits of an ensemble; contents of ``ensemble.json``.

    Attributes:
        rows: rows of the table; without a table, one row without name and values.
        seeds: each row is trained with each of them; empty = only with the seed of its configuration.
        ntrain: maximum of training events per dataset; None = all.
        ntest: maximum of validation events; None = as configured.
        devices: GPUs of a training; 1 is one GPU or the CPU.
    """

    rows: Sequence[Row]
    seeds: Sequence[int] = ()
    ntrain: int | None = None
    ntest: int | None = None
    devices: int = 1

    def members(self) -> list[Member]:
        """Return the trainings, row by row.

        Raises:
            ConfigError: too many trainings, invalid or repeated names, or two sources of the seed.
        """
        count = len(self.rows) * max(len(self.seeds), 1)
        if count > MAX_MEMBERS:
            raise ConfigError(f"{count} trainings; at most {MAX_MEMBERS} are possible: split the ensemble")
        members = [member for row in self.rows for member in self._of_row(row)]
        problems = [problem for row in self.rows if (problem := self._problem(row))]
        first: dict[str, Member] = {}
        for member in members:
            # Some file systems do not distinguish capital letters.
            other = first.setdefault(member.name.casefold(), member)
            if other is not member:
                problems.append(f"{member.where}  name {member.name}: given before, {other.where}")
        if problems:
            raise ConfigError("\n".join(problems))
        return members

    def _of_row(self, row: Row) -> Iterator[Member]:
        if not self.seeds:
            yield Member(row.name, row.name, row.values, row.where)
        for seed in self.seeds:
            name = f"{row.name}_seed_{seed}" if row.name else f"seed_{seed}"
            yield Member(name, row.name, {**row.values, SEED_KEY: seed}, row.where)

    def _problem(self, row: Row) -> str:
        if row.name and not _NAME.fullmatch(row.name):
            return f"{row.where}  name {row.name!r:.60}: expected letters, digits, '.', '_' and '-'"
        if self.seeds and SEED_KEY in row.values:
            return f"{row.where}  {SEED_KEY}: --seeds sets it too; leave out one of them"
        return ""

    def arguments(self) -> list[str]:
        """Return the limits of events as options of a training."""
        given = {"--ntrain": self.ntrain, "--ntest": self.ntest}
        return [text for name, value in given.items() if value is not None for text in (name, str(value))]

    def write(self, directory: Path) -> None:
        """Write the plan into the directory of an ensemble, whole and synced."""
        write_json(directory / ENSEMBLE_FILE, asdict(self))


def read_plan(directory: Path) -> Plan:
    """Return the plan of the ensemble in ``directory``.

    Raises:
        CheckpointError: missing or damaged.
    """
    path = directory / ENSEMBLE_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        rows = [Row(str(row["name"]), dict(row["values"]), str(row["where"])) for row in data["rows"]]
        return Plan(rows, data["seeds"], data["ntrain"], data["ntest"], data["devices"])
    except FileNotFoundError:
        raise CheckpointError(f"{directory}: no ensemble of trainings, no {ENSEMBLE_FILE} in it") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: damaged ({error}); start the ensemble again in another directory"
        ) from None


def parse_seeds(text: str) -> list[int]:
    """Read ``1:20`` (both ends included), ``1,2,5``, or a mixture.

    Raises:
        ValueError: says what is wrong.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if not match:
            raise ValueError(f"{part.strip()!r:.60}: expected a seed such as 3 or a range such as 1:20")
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last:
            raise ValueError(f"{part.strip()}: the first seed is above the last")
        if last > _LARGEST_SEED:
            raise ValueError(f"{part.strip()}: seeds go up to {_LARGEST_SEED}")
        if len(seeds) + last - first + 1 > MAX_MEMBERS:
            raise ValueError(f"more than {MAX_MEMBERS} seeds")
        seeds += range(first, last + 1)
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1}) if len(set(seeds)) < len(seeds) else []
    if twice:
        raise ValueError(f"seed {twice[0]} is given twice")
    return seeds


def configurations(members: Sequence[Member], base: Config) -> dict[str, Config]:
    """Return name -> configuration of all members.

    Raises:
        ConfigError: the problems of all of them, one line each.
    """
    configs: dict[str, Config] = {}
    problems: dict[str, None] = {}
    for member in members:
        try:
            configs[member.name] = member.config(base)
        except ConfigError as error:
            problems |= dict.fromkeys(str(error).splitlines())
    if problems:
        raise ConfigError("\n".join(problems))
    return configs


def changes(old: tuple[Config, Plan], new: tuple[Config, Plan]) -> list[str]:
    """Return the changes with which an ensemble cannot be resumed, as ``what: old -> new``.

    New rows and seeds are allowed.

    Args:
        old: configuration and plan of the ensemble.
        new: configuration and plan that are given now.
    """
    (old_config, before), (new_config, now) = old, new
    lines = differences(old_config, new_config)
    for option in ("ntrain", "ntest"):
        a, b = getattr(before, option), getattr(now, option)
        if a != b:
            lines.append(f"--{option}: {a or 'all'} -> {b or 'all'}")
    if before.devices != now.devices:
        lines.append(f"--gpus-per-training: {before.devices} -> {now.devices}")
    known = {member.name: member for member in now.members()}
    for member in before.members():
        if member.name not in known:
            lines.append(f"training {member.name}: (given) -> (none)")
            continue
        a, b = member.values, known[member.name].values
        for key in dict.fromkeys([*a, *b]):
            if key not in a or key not in b or a[key] != b[key]:
                lines.append(f"training {member.name}: {key}: {_text(a, key)} -> {_text(b, key)}")
    return lines


def _text(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key]) if key in values else "(none)"
