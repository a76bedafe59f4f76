"""Damaged inputs of every kind: a good file, damaged in its bytes or its meaning, and what reads it.

``Case.make(folder)`` writes the input and returns the command line; every output goes below ``folder/out``.
"""

import bz2
import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from unittest.mock import patch

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.mutations import damage
from tests.support import edm4hep_files
from tests.support.configs import MINIMAL

REPO = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Case:
    """One damaged input: its name and how to make it in a folder of its own."""

    name: str
    make: Callable[[Path], list]


def _postprocess(path: Path) -> list:
    return ["postprocess", path, "-o", path.parent / "out"]


@lru_cache
def good_root(folder: Path) -> bytes:
    """A ROOT file of three events."""
    events = [edm4hep_files.simple_event(energy) for energy in (5.0, 10.0, 20.0)]
    return edm4hep_files.write_edm4hep(folder / "good.root", events).read_bytes()


def root_bytes(number: int, good: Path) -> Case:
    """A ROOT file with damaged bytes."""

    def make(folder: Path) -> list:
        (folder / "a.root").write_bytes(damage(good_root(good), number))
        return _postprocess(folder / "a.root")

    return Case(f"root-bytes-{number}", make)


def _leaf_change(rng: np.random.Generator) -> Callable[[dict], None]:
    """Return a change of one leaf: wrong values, lengths or ranges."""
    kind = rng.integers(0, 8)

    def change(leaves: dict) -> None:
        full = [(c, leaf) for c in leaves for leaf in leaves[c] if leaves[c][leaf]]
        collection, leaf = full[rng.integers(0, len(full))]
        values = leaves[collection][leaf]
        wide = leaf.endswith(("_begin", "_end"))
        huge = 2**32 - 1 if wide else 2**31 - 1
        replacement = {
            0: [huge] * len(values),
            1: [0 if wide else -7] * len(values),
            2: values[:-1],
            3: [*values, *values],
            4: list(reversed(values)),
            5: [],
        }
        if kind in replacement:
            leaves[collection][leaf] = replacement[kind]
        elif kind == 6 and "parents_begin" in leaves["MCParticles"]:  # everybody is everybody's parent
            count = len(leaves["MCParticles"]["PDG"])
            leaves["MCParticles#0"] = {
                "index": [*range(1, count), 0],
                "collectionID": [edm4hep_files.IDS["MCParticles"]] * count,
            }
            leaves["MCParticles"]["parents_begin"] = list(range(count))
            leaves["MCParticles"]["parents_end"] = list(range(1, count + 1))
            leaves["MCParticles"]["generatorStatus"] = [2] * count
        else:
            number = np.nan if rng.random() < 0.5 else np.inf
            leaves["PandoraClusters"]["energy"] = [number] * len(leaves["PandoraClusters"]["energy"])
            leaves["MCParticles"]["momentum.x"] = [number] * len(leaves["MCParticles"]["PDG"])

    return change


def root_meaning(number: int) -> Case:
    """A sound ROOT file whose content is wrong."""

    def make(folder: Path) -> list:
        rng = np.random.default_rng([1, number])
        events = [edm4hep_files.simple_event(energy) for energy in (5.0, 10.0)]
        change, kinds = _leaf_change(rng), (np.float64, np.uint64, np.int16, np.bool_)
        wrong_type, kind = number % 4 == 3, kinds[rng.integers(0, len(kinds))]
        typed, chosen = edm4hep_files._typed, rng.integers(0, 40)
        calls = iter(range(10**6))

        def other_type(leaf: str, *arguments: object) -> ak.Array:
            array = typed(leaf, *arguments)
            if next(calls) != chosen:
                return array
            return ak.values_astype(array, kind)

        with patch.object(edm4hep_files, "_typed", other_type if wrong_type else typed):
            change = None if wrong_type else change
            edm4hep_files.write_edm4hep(folder / "a.root", events, change=change)
        return _postprocess(folder / "a.root")

    return Case(f"root-meaning-{number}", make)


def _build(path: Path) -> list:
    out = path.parent / "out"
    fractions = ["--split-fractions", "1,0,0"]
    return ["build", "clic_edm4hep/ttbar", "--data-dir", out, "-i", path, *fractions]


def parquet(number: int, good: Path) -> Case:
    """A parquet file with damaged bytes, other columns, types, lengths or description."""

    def make(folder: Path) -> list:
        path = folder / "a.parquet"
        if number % 2:
            path.write_bytes(damage(good.read_bytes(), number))
            return _build(path)
        rng = np.random.default_rng([2, number])
        table = pq.read_table(good)
        metadata = dict(pq.read_metadata(good).metadata)
        column = table.column_names[rng.integers(0, table.num_columns)]
        match rng.integers(0, 6):
            case 0:
                table = table.drop_columns([column])
            case 1:
                replaced = pa.array(["x"] * len(table))
                table = table.set_column(table.column_names.index(column), column, replaced)
            case 2:
                swapped = table.column_names[::-1]
                table = table.rename_columns(swapped)
            case 3:
                table = pa.concat_tables([table, table])
            case 4:
                description = json.loads(metadata[b"mlpf"])
                key = list(description)[rng.integers(0, len(description))]
                description[key] = [None, {}, "x", -1][rng.integers(0, 4)]
                metadata[b"mlpf"] = json.dumps(description).encode()
            case _:
                metadata[b"mlpf"] = damage(metadata[b"mlpf"], number)
        pq.write_table(table.replace_schema_metadata({b"mlpf": metadata[b"mlpf"]}), path)
        return _build(path)

    return Case(f"parquet-{number}", make)


def dataset(number: int, good: Path) -> Case:
    """A dataset directory with one damaged file: records, features, metadata or info."""

    def make(folder: Path) -> list:
        version = folder / "set" / "1.0.0"
        shutil.copytree(good, version)
        files = sorted(p for p in version.iterdir() if p.is_file())
        records = [p for p in files if "array_record" in p.name]
        path = records[0] if number % 2 else files[number % len(files)]
        path.write_bytes(damage(path.read_bytes() or b"x", number))
        return ["data", "check", version, "-o", folder / "out"]

    return Case(f"dataset-{number}", make)


def _slots(node) -> list[tuple]:
    """Return (container, key) of every value below a JSON document."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [slot for key, child in children for slot in ((node, key), *_slots(child))]


def dataset_types(number: int, good: Path) -> Case:
    """A dataset directory with a value of another type in one of its JSON files."""

    def make(folder: Path) -> list:
        version = folder / "set" / "1.0.0"
        shutil.copytree(good, version)
        rng = np.random.default_rng([5, number])
        names = ("dataset_info.json", "features.json", "metadata.json")
        path = version / names[rng.integers(0, len(names))]
        document = json.loads(path.read_text(encoding="utf-8"))
        slots = _slots(document)
        container, key = slots[rng.integers(0, len(slots))]
        wrong = (None, -5, "", [], {}, 3, "x", ["-5"], 10**15)
        container[key] = wrong[rng.integers(0, len(wrong))]
        path.write_text(json.dumps(document), encoding="utf-8")
        return ["data", "check", version, "-o", folder / "out"]

    return Case(f"dataset-types-{number}", make)


class _Touch:
    """Unpickled by a careless reader, it makes a file."""

    def __init__(self, path: Path, how: int) -> None:
        self._path, self._how = path, how

    def __reduce__(self):
        import os

        if self._how == 0:
            return os.system, (f"touch {self._path}",)
        if self._how == 1:
            return eval, (f"open({str(self._path)!r}, 'w').close()",)
        return open, (str(self._path), "w")


def good_pickle(rng: np.random.Generator, events: int = 2) -> dict:
    """Arrays as the public files hold them."""
    content: dict[str, list] = {"X": [], "ygen": [], "ycand": []}
    for _ in range(events):
        n = int(rng.integers(3, 8))
        x, y = np.zeros((n, 12)), np.zeros((n, 7))
        x[:, 0] = np.sort(rng.integers(1, 3, n))[::-1]
        x[:, 1] = x[:, 5] = rng.uniform(1, 5, n)
        x[:, 4] = 1
        y[:, 0] = rng.integers(0, 6, n)
        y[:, 2] = y[:, 6] = rng.uniform(1, 5, n)
        y[:, 5] = 1
        content["X"].append(x)
        content["ygen"].append(y)
        content["ycand"].append(y.copy())
    return content


def pickled(number: int) -> Case:
    """A pickle with damaged bytes, wrong arrays, or a payload that must not run."""

    def make(folder: Path) -> list:
        rng = np.random.default_rng([3, number])
        content = good_pickle(rng)
        if number % 3 == 1:
            key = ("X", "ygen", "ycand")[rng.integers(0, 3)]
            wrong = (
                [],
                [np.zeros((3, 5))],
                [np.full((4, 12), np.nan)] * 2,
                [np.array([["a", "b"]])] * 2,
                [np.array([object()], dtype=object)] * 2,
                {"a": 1},
                None,
                [np.zeros((2, 12), np.int8)] * 2,
            )
            content[key] = wrong[rng.integers(0, len(wrong))]  # type: ignore[assignment]
        elif number % 3 == 2:
            content["X"].append(_Touch(folder / "executed", number % 9 // 3))
        data = pickle.dumps(content, protocol=int(rng.integers(3, 6)))
        if number % 3 == 0:
            data = damage(data, number)
        compressed = number % 2 == 0
        data = bz2.compress(data) if compressed else data
        if number % 12 == 0:
            data = damage(data, number, seed=5)
        path = folder / ("a.pkl.bz2" if compressed else "a.pkl")
        path.write_bytes(data)
        return _postprocess(path)

    return Case(f"pickle-{number}", make)


_YAML_PARTS = ("clic-demo.yaml", "clic.yaml")


def configuration(number: int) -> Case:
    """A YAML file with damaged characters, values or structure."""

    def make(folder: Path) -> list:
        rng = np.random.default_rng([4, number])
        name = _YAML_PARTS[number % 2]
        text = (REPO / "parameters" / name).read_text(encoding="utf-8") if number % 3 else MINIMAL
        lines = text.splitlines()
        line = int(rng.integers(0, len(lines)))
        touch = f"touch {folder / 'executed'}"
        if number == 0:  # the first is always run
            lines[line] = f"{lines[line].split(':')[0]}: !!python/object/apply:os.system [{touch!r}]"
            (folder / "a.yaml").write_text("\n".join(lines), encoding="utf-8")
            return ["config", "check", folder / "a.yaml"]
        match number % 6:
            case 0:
                data = damage(text.encode(), number)
            case 1:
                wrong = ("-1", "null", "[1, 2", f"!!python/object/apply:os.system [{touch!r}]", "1e400")
                key = lines[line].split(":")[0]
                lines[line] = f"{key}: {wrong[rng.integers(0, len(wrong))]}"
                data = "\n".join(lines).encode()
            case 2:
                data = "\n".join(lines[:line] + lines[line + 1 :]).encode()
            case 3:
                data = "\n".join([*lines, lines[line]]).encode()
            case 4:
                bomb = "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
                place = "setup: *a39\n" if number % 4 else "loss: {cls_loss: *a39}\n"
                data = f"a0: &a0 [x, x]\n{bomb}{place}{text}".encode()
            case _:
                data = text.replace(":", ": :", int(rng.integers(1, 3))).encode()
        (folder / "a.yaml").write_bytes(data)
        return ["config", "check", folder / "a.yaml"]

    return Case(f"yaml-{number}", make)
