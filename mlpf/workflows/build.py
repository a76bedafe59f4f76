"""Parquet files -> an array_record dataset with train, valid and test splits."""

import importlib.util
import io
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.table import Table

from mlpf.data.builder import DEFAULT_FRACTIONS, recipe, split_files
from mlpf.data.sources import expand_inputs
from mlpf.errors import DataError, OutputExists

RECIPES = Path(__file__).resolve().parents[2] / "datasets"


@dataclass(frozen=True)
class BuildSummary:
    """A finished dataset.

    Attributes:
        path: folder of the version.
        events: split -> number of events.
        reused: it was there already, made from the same inputs.
        wall_seconds: time of this run.
    """

    path: Path
    events: dict[str, int]
    reused: bool
    wall_seconds: float


def _load_recipe(dataset: str) -> tuple[type[Any], str]:
    """Return the builder class of ``<recipe>/<config>`` and the config name.

    Raises:
        DataError: no recipes beside the package, or no such recipe or config.
    """
    name, _, config = dataset.partition("/")
    if not RECIPES.is_dir():
        raise DataError(
            f"{dataset}: no recipes at {RECIPES}, mlpf is installed without them; "
            "clone the repository and install it with pip install -e ."
        )
    known = sorted(p.parent.name for p in RECIPES.glob("*/*_dataset_builder.py"))
    if name not in known:
        raise DataError(f"{dataset}: no recipe {name!r}; recipes are {', '.join(known)}")
    module = _import_file(f"{name}_dataset_builder", RECIPES / name / f"{name}_dataset_builder.py")
    configs = [c.name for c in module.Builder.BUILDER_CONFIGS]
    if config not in configs:
        raise DataError(f"{dataset}: {name} has no {config!r}; give {name}/ and one of {', '.join(configs)}")
    return module.Builder, config


def _import_file(name: str, path: Path) -> ModuleType:
    """Import a recipe once: TFDS refuses to register a name twice."""
    if name in sys.modules:
        return sys.modules[name]
    from etils import epath

    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise DataError(f"{path}: cannot be imported as a recipe")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    # Where README and citation of the recipe are; TFDS guesses wrongly for a module outside a package.
    module.Builder.pkg_dir_path = epath.Path(path.parent)
    return module


def _finished(path: Path) -> tuple[dict[str, Any], dict[str, int]] | None:
    """Return metadata and events per split of a finished version, None if there is none."""
    try:
        info = json.loads((path / "dataset_info.json").read_text())
        metadata = json.loads((path / "metadata.json").read_text())
        splits = {s["name"]: sum(int(n) for n in s["shardLengths"]) for s in info["splits"]}
    except (OSError, ValueError, KeyError):
        return None
    return metadata, splits


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Describe in words the first entry in which two recipes differ, empty if none does."""
    for key, wanted in new.items():
        found = old.get(key)
        if found == wanted:
            continue
        if key != "source_files":
            return f"{key} was {found}, is {wanted}"
        before = {f["file"]: f for f in found or []}
        after = {f["file"]: f for f in wanted}
        gone, added = sorted(before.keys() - after.keys()), sorted(after.keys() - before.keys())
        changed = sorted(name for name in before.keys() & after.keys() if before[name] != after[name])
        for what, names in (("removed", gone), ("added", added), ("changed", changed)):
            if names:
                return f"{len(names)} input file(s) {what}, e.g. {names[0]}"
        return "the order of the input files changed"
    return ""


def run(
    dataset: str,
    data_dir: Path,
    inputs: Sequence[str | Path],
    *,
    overwrite: bool = False,
    split_seed: int = 0,
    split_fractions: Sequence[float] = DEFAULT_FRACTIONS,
) -> BuildSummary:
    """Build one dataset, or find that it was built from the same inputs before.

    Args:
        dataset: recipe and config, e.g. ``clic_edm4hep/ttbar``.
        data_dir: the dataset goes to ``<data_dir>/<recipe>/<config>/<version>``.
        inputs: parquet files of ``mlpf postprocess``, directories or globs.
        overwrite: replace a finished version made from other inputs.
        split_seed: seed of the split by file name.
        split_fractions: share of train, valid, test; a split with fraction 0 is left out.

    Raises:
        DataError: unknown dataset, inputs that cannot be used, a split without events, or no space.
        OutputExists: a finished version was made from other inputs or arguments.
    """
    start = time.perf_counter()
    console = Console()
    builder_class, config = _load_recipe(dataset)
    files = expand_inputs(inputs, ".parquet")
    wanted = recipe(files, split_seed, split_fractions, builder_class.SCHEMA)
    split_files(files, split_seed, split_fractions)  # fails now rather than after half of the work
    folder = Path(data_dir) / builder_class.name / config
    final = folder / str(builder_class.VERSION)

    finished = _finished(final)
    if finished and not overwrite:
        difference = _difference(finished[0], wanted)
        if difference:
            raise OutputExists(
                f"{final}: built before from something else ({difference}); use --overwrite to replace it"
            )
        console.print(f"{final} was built from the same inputs before: reused", markup=False, highlight=False)
        summary = BuildSummary(final, finished[1], True, time.perf_counter() - start)
    else:
        try:
            with console.status(f"build {dataset} from {len(files)} files"):
                _build(builder_class, config, files, folder, final, split_seed, split_fractions)
        except (OSError, RuntimeError) as error:  # the writer of array_record raises the latter
            raise DataError(
                f"{final}: cannot be written ({error}); free space or choose another --data-dir"
            ) from error
        done = _finished(final)
        if done is None:
            raise DataError(f"{final}: vanished while it was built; is another mlpf build running?")
        summary = BuildSummary(final, done[1], False, time.perf_counter() - start)
    console.print(_table(dataset, summary))
    return summary


def _build(
    builder_class: type[Any],
    config: str,
    files: Sequence[Path],
    folder: Path,
    final: Path,
    split_seed: int,
    split_fractions: Sequence[float],
) -> None:
    """Build beside the final folder and rename: the version exists completely or not at all."""
    import tensorflow_datasets as tfds

    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("incomplete.*"):
        shutil.rmtree(stale, ignore_errors=True)
    work = folder / f"incomplete.{os.getpid()}"
    tfds.disable_progress_bar()
    try:
        builder = builder_class(
            config=config, data_dir=work, inputs=files, split_seed=split_seed, split_fractions=split_fractions
        )
        # TFDS talks of downloads and of the temporary folder; neither helps.
        with redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_dir=work / "downloads")
        built = work / builder_class.name / config / final.name
        if final.exists():
            final.replace(work / "replaced")
        built.replace(final)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _table(dataset: str, summary: BuildSummary) -> Table:
    table = Table(dataset, "events")
    for name, count in summary.events.items():
        table.add_row(name, str(count))
    total = sum(summary.events.values())
    table.add_row("all", str(total))
    if not summary.reused and summary.wall_seconds > 0:
        table.add_row("events per second", f"{total / summary.wall_seconds:.0f}")
    table.add_row("written to", str(summary.path))
    return table
