"""Read a table of trainings from YAML or CSV: one row per training, with the keys that it changes."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mlpf.config.documents import MAX_VALUES, num_values
from mlpf.config.loading import parse_value
from mlpf.errors import ConfigError

NAME_KEY = "name"


@dataclass(frozen=True)
class Row:
    """Keys that one training changes; with several seeds, one training per seed.

    Attributes:
        name: unique in the table; empty = no table.
        values: dotted key -> value.
        where: file and line, for errors.
    """

    name: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    where: str = ""


def read_rows(path: Path) -> list[Row]:
    """Read a table: a CSV file with dotted keys as its header, or a YAML list of mappings.

    The key or column ``name`` names a row; rows without one are ``row_1``, ``row_2``, ... by position. A cell
    of a CSV file is read as YAML, like the value of ``--set``; an empty one changes nothing.

    Raises:
        ConfigError: every problem, one per line, each with file and line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"--table {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--table {path}: cannot be read as text ({error})") from None
    problems: list[str] = []
    read = _csv_rows if path.suffix.lower() == ".csv" else _yaml_rows
    rows = []
    for number, (line, data) in enumerate(read(path, text, problems), start=1):
        where = f"{path}:{line}"
        name = data.pop(NAME_KEY, None)
        rows.append(Row(f"row_{number}" if name is None else str(name), data, where))
    if not rows and not problems:
        problems.append(f"{path}: no rows; give one training per row, such as `- {{setup.lr: 1.0e-3}}`")
    if problems:
        raise ConfigError("\n".join(problems))
    return rows


def _csv_rows(path: Path, text: str, problems: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line and values of every row."""
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        header = [cell.strip() for cell in next(reader, [])]
        if not all(header):
            problems.append(f"{path}:1  a column without a key; expected dotted keys, e.g. name,setup.lr")
        twice = sorted({key for key in header if key and header.count(key) > 1})
        problems += [f"{path}:1  {key}: column given twice" for key in twice]
        if problems:
            return
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                problems.append(
                    f"{path}:{reader.line_num}  {len(cells)} cells, the header has {len(header)}; put a cell "
                    'with a comma in double quotes: "[1, 2]"'
                )
                continue
            yield reader.line_num, _csv_values(header, cells, f"{path}:{reader.line_num}", problems)
    except csv.Error as error:
        problems.append(f"{path}:{reader.line_num}  not valid CSV: {error}")


def _csv_values(header: list[str], cells: list[str], where: str, problems: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, cell in zip(header, cells, strict=True):
        if not cell.strip():
            continue
        if key == NAME_KEY:
            values[key] = cell.strip()
            continue
        try:
            values[key] = parse_value(cell)
        except ValueError:
            problems.append(f"{where}  {key}: the value {cell!r:.60} is not valid YAML")
    return values


def _yaml_rows(path: Path, text: str, problems: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line and values of every row."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if not isinstance(node, yaml.SequenceNode):
            problems.append(f"{path}:1  expected a list of mappings, such as `- {{setup.lr: 1.0e-3}}`")
            return
        for item in node.value:
            line = item.start_mark.line + 1
            if not isinstance(item, yaml.MappingNode):
                problems.append(f"{path}:{line}  expected a mapping, such as `- {{setup.lr: 1.0e-3}}`")
                continue
            if num_values(item, {}) > MAX_VALUES:
                problems.append(
                    f"{path}:{line}  more than {MAX_VALUES} values with all aliases (*name) expanded"
                )
                continue
            yield line, _yaml_values(item, path, problems)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problems.append(f"{where}  not valid YAML: {getattr(error, 'problem', None) or error}")
    except RecursionError:
        problems.append(f"{path}  nested too deeply; a row has dotted keys")


def _yaml_values(row: yaml.MappingNode, path: Path, problems: list[str]) -> dict[str, Any]:
    loader = yaml.SafeLoader("")
    values: dict[str, Any] = {}
    for key_node, value_node in row.value:
        key, where = str(loader.construct_object(key_node)), f"{path}:{key_node.start_mark.line + 1}"
        if key in values:
            problems.append(f"{where}  {key}: key given twice")
        if key == NAME_KEY and not (isinstance(value_node, yaml.ScalarNode) and value_node.value):
            problems.append(f"{where}  {NAME_KEY}: expected text")
        if key == NAME_KEY:
            values[key] = value_node.value
            continue
        value = loader.construct_object(value_node, deep=True)
        plain = isinstance(value, str) and value_node.style is None
        values[key] = parse_value(value) if plain else value
    return values
