"""Options that several commands share."""

import functools
import math
import re
from pathlib import Path
from typing import Any

import click

from mlpf.files.locking import Shard

PATH = click.Path(path_type=Path)
# Largest seed and event number: generators and files hold them as 32-bit integers with sign.
MAX_INT32 = 2**31 - 1
# No array has more jobs, and Python refuses to read very long numbers.
_MAX_DIGITS = 9
_UNITS = (86400, 3600, 60, 1)  # seconds of a day, hour, minute, second
_MAX_SECONDS = 10**9


config_option = functools.partial(click.option, "-c", "--config", type=PATH, metavar="NAME|FILE.yaml")
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a configuration key; repeatable."
)
run_dir_option = click.option(
    "-t", "--train-dir", "run_dir", type=PATH, required=True, help="Run directory of a training."
)
weights_option = click.option(
    "-w", "--weights", default="best", show_default=True, help="Checkpoint: best, latest, or a directory."
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace existing outputs.")
data_dir_option = click.option("--data-dir", type=PATH, help="Directory of all datasets.")


def _find_detector(_context: click.Context, _option: click.Parameter, given: str | None) -> Any:
    """Read the description that a user means."""
    if given is None:
        return None
    from mlpf.config.detector import find_detector

    return find_detector(given)


detector_option = click.option(
    "--detector",
    metavar="NAME|FILE.yaml",
    callback=_find_detector,
    help="What EDM4HEP events are measured with, default clic (docs/detector.md).",
)


def refuse_options_before_a_command(context: click.Context) -> None:
    """Refuse options of a group in front of one of its commands, where they have no effect.

    Raises:
        click.UsageError: there are such options.
    """
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if context.get_parameter_source(parameter.name or "") is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(f"{given[0]} is no option of {context.invoked_subcommand}; leave it out")


def configuration_file(given: Path | None, directory: Path, resume: bool, what: str) -> Path:
    """Return the path of the configuration: the given one, or that of the directory that is resumed.

    Args:
        given: value of ``-c``.
        directory: directory of ``what``.
        resume: continue in the directory.
        what: for the message, such as ``search``.

    Raises:
        click.UsageError: there is neither.
    """
    if given is not None:
        return given
    if not resume:
        raise click.UsageError(f"give -c CONFIG for a new {what}, or --resume")
    from mlpf.files.run_directory import RESOLVED_CONFIG

    if not (directory / RESOLVED_CONFIG).is_file():
        raise click.UsageError(f"{directory}: nothing to resume, no {RESOLVED_CONFIG} in it")
    return directory / RESOLVED_CONFIG


class Fractions(click.ParamType):
    """Three comma-separated fractions that sum to one."""

    name = "TRAIN,VALID,TEST"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse ``0.8,0.1,0.1``."""
        if isinstance(value, tuple):
            return value
        try:
            parts = tuple(float(p) for p in value.split(","))
        except ValueError:
            parts = ()
        if len(parts) != 3 or not all(0 <= p <= 1 for p in parts) or abs(sum(parts) - 1) > 1e-6:
            self.fail(f"{value!r}: expected three fractions that sum to 1, e.g. 0.8,0.1,0.1", param, ctx)
        return parts


class FiniteRange(click.FloatRange):
    """A range of numbers without NaN and infinity; click's own comparisons accept NaN."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse a finite number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r}: expected a finite number", param, ctx)
        return number


class Duration(click.ParamType):
    """A time such as ``55m``, ``1h30m``, ``90s``, or ``01:30:00``; in seconds."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse a time above 0."""
        if isinstance(value, float):
            return value
        units = re.fullmatch(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", value)
        clock = re.fullmatch(r"(?:(\d{1,9})-)?(\d{1,9}):(\d\d):(\d\d)", value)
        match = units or clock
        seconds = (
            sum(int(n or 0) * unit for n, unit in zip(match.groups(), _UNITS, strict=True)) if match else 0
        )
        if not 0 < seconds <= _MAX_SECONDS:
            self.fail(f"{value!r}: expected a time such as 55m, 1h30m, 90s or 01:30:00", param, ctx)
        return float(seconds)


class ShardOf(click.ParamType):
    """One job of an array: 1-based number and size of the array."""

    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse ``2/10``."""
        if isinstance(value, Shard):
            return value
        index, _, count = value.partition("/")
        plain = index.isdecimal() and count.isdecimal() and max(len(index), len(count)) <= _MAX_DIGITS
        if not (plain and 1 <= int(index) <= int(count)):
            self.fail(f"{value!r}: expected I/N with 1 <= I <= N, e.g. 2/10", param, ctx)
        return Shard(int(index), int(count))


shard_option = click.option(
    "--shard", type=ShardOf(), help="Job I of N: do one part of the work; all parts may run at the same time."
)
