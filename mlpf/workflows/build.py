"""Parquet files -> an array_record dataset with train, valid and test splits, by one process or many."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from mlpf.config.detector import recorded_detector
from mlpf.data.dataset.blocks import (
    Block,
    BlockReport,
    BuildPlan,
    plan_blocks,
    read_report,
    write_block,
    write_description,
)
from mlpf.data.dataset.examples import ElementDatasetBuilder, recipe
from mlpf.data.dataset.recipes import find_recipe, own_sample
from mlpf.data.dataset.splitting import DEFAULT_FRACTIONS
from mlpf.data.input_files import expand_inputs
from mlpf.engine.jobs import run_jobs
from mlpf.engine.opening import ENGINE_FOLDER, HERE, Placement, engine_for
from mlpf.errors import DataError, OutputExists, OutputNotWritable
from mlpf.files.atomic import atomic_write
from mlpf.files.locking import Shard, locked, remove_stale_parts


@dataclass(frozen=True)
class BuildSummary:
    """A finished dataset, or the part of a shard.

    Attributes:
        path: folder of the version.
        events: split -> number of events.
        reused: a dataset from the same inputs existed already.
        wall_seconds: time of this run.
        new_events: events that this run wrote; the others existed before.
        shard: the part, None = all.
    """

    path: Path
    events: dict[str, int]
    reused: bool
    wall_seconds: float
    new_events: int = 0
    shard: Shard | None = None


def _finished(path: Path) -> tuple[dict[str, Any], dict[str, int]] | None:
    """Return metadata and events per split of a finished version, None if there is none."""
    try:
        info = json.loads((path / "dataset_info.json").read_text(encoding="utf-8"))
        metadata = dict(json.loads((path / "metadata.json").read_text(encoding="utf-8")))
        splits = {s["name"]: sum(int(n) for n in s["shardLengths"]) for s in info["splits"]}
        sources = {str(entry["file"]) for entry in metadata["source_files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (metadata, splits) if sources else None


# Entries that older datasets do not have.
_BEFORE = {"split_by": "file"}


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Describe the first difference of two recipes; empty if there is none."""
    for key, wanted in new.items():
        if key == "detector":
            if difference := _other_detector(old, new):
                return difference
            continue
        found = old.get(key, _BEFORE.get(key))
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


def _other_detector(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Describe the first difference of the detectors of two recipes, empty if there is none."""
    before = recorded_detector(old, "metadata.json")
    return before.difference(recorded_detector(new, "the inputs"), "there", "in the new inputs")


class _Work:
    """The folder of an incomplete dataset beside the final folder; it belongs to one plan.

    Attributes:
        plan: all blocks.
        dataset: name of the recipe.
        data: the folder that is renamed to the final one.
        final: the final folder.
        engine: folder of files of the engine of a cluster.
    """

    def __init__(self, final: Path, plan: BuildPlan, dataset: str) -> None:
        self.plan = plan
        self.final = final
        self._path = final.with_name(f"incomplete.{final.name}.{plan.digest}")
        self.dataset = dataset
        self.data = self._path / "data"
        self.engine = self._path / ENGINE_FOLDER
        self._reports = self._path / "blocks"
        self._jobs = self._path / "jobs"

    def prepare(self, shard: Shard | None) -> None:
        """Make the folders; remove incomplete files of ended processes."""
        for folder in (self.data, self._reports, self._jobs):
            folder.mkdir(parents=True, exist_ok=True)
        if shard is not None:
            with atomic_write(self._jobs / f"{shard.index}-of-{shard.count}.json") as part:
                part.write_text(json.dumps({"count": shard.count}), encoding="utf-8")
        targets = [self._targets(block) for block in self.blocks(shard)]
        remove_stale_parts(self.data, {path.name for path, _ in targets})
        remove_stale_parts(self._reports, {report.name for _, report in targets})

    def blocks(self, shard: Shard | None) -> list[Block]:
        """Return the blocks of a job."""
        return shard.of(self.plan.blocks) if shard else list(self.plan.blocks)

    def count(self, shard: Shard | None) -> dict[str, int]:
        """Return the events of a job, by split."""
        events: Counter[str] = Counter()
        for block in self.blocks(shard):
            events[block.split] += block.num_events
        return dict(events)

    def report(self, block: Block) -> BlockReport | None:
        """Return the report of a block, None if the block is not complete."""
        path, report = self._targets(block)
        return read_report(report, path, block)

    def job(self, block: Block) -> tuple[Any, ...]:
        """Return the arguments of ``write_block``."""
        path, report = self._targets(block)
        return block, self.plan.seed, path, report

    def _targets(self, block: Block) -> tuple[Path, Path]:
        name = block.file_name(self.dataset)
        return self.data / name, self._reports / f"{name}.json"

    def require_blocks(self) -> list[BlockReport]:
        """Return the reports of all blocks.

        Raises:
            DataError: blocks are missing; names the jobs to run, if any job ran before.
        """
        reports = {i: self.report(block) for i, block in enumerate(self.plan.blocks)}
        missing = [i for i, report in reports.items() if report is None]
        if not missing:
            return [report for report in reports.values() if report is not None]
        counts = {json.loads(path.read_text(encoding="utf-8"))["count"] for path in self._jobs.glob("*.json")}
        if len(counts) == 1:
            (count,) = counts
            jobs = ", ".join(f"{i}/{count}" for i in sorted({i % count + 1 for i in missing}))
            raise DataError(
                f"{self.final}: shard(s) {jobs} are not finished; run mlpf build with --shard for each, "
                "then --merge"
            )
        others = sorted(p.name for p in self._path.parent.glob(f"incomplete.{self.final.name}.*"))
        begun = f"{len(missing)} of {len(reports)} blocks are missing"
        if not counts:
            begun = "no shard was built from these inputs with this seed and these fractions"
            begun += f", only {', '.join(others)} from something else" if others else ""
        raise DataError(f"{self.final}: {begun}; run mlpf build with --shard 1/n to n/n and the same inputs")

    def publish(self) -> None:
        """Rename the data to their final name; replaces an older version."""
        remove_stale_parts(self.data, {block.file_name(self.dataset) for block in self.plan.blocks})
        if self.final.exists():
            replaced = self._path / "replaced"
            shutil.rmtree(replaced, ignore_errors=True)
            self.final.replace(replaced)
        self.data.replace(self.final)

    def remove(self) -> None:
        """Remove the incomplete folder of this plan."""
        shutil.rmtree(self._path, ignore_errors=True)

    def remove_all(self) -> None:
        """Remove the incomplete folders of all plans, also of killed runs; needs the exclusive lock."""
        for path in self._path.parent.glob(f"incomplete.{self.final.name}.*"):
            shutil.rmtree(path, ignore_errors=True)


def run(
    dataset: str,
    data_dir: Path,
    inputs: Sequence[str | Path],
    *,
    overwrite: bool = False,
    split_seed: int = 0,
    split_fractions: Sequence[float] = DEFAULT_FRACTIONS,
    placement: Placement = HERE,
    shard: Shard | None = None,
    merge: bool = False,
) -> BuildSummary:
    """Build one dataset, or a shard of it, or find an existing one from the same inputs.

    Finished blocks of an interrupted run are used. ``placement`` and shards do not change the result.

    Args:
        dataset: recipe and sample, e.g. ``clic_edm4hep/ttbar``; any other name is a sample of the user.
        data_dir: the dataset goes to ``<data_dir>/<recipe>/<sample>/<version>``.
        inputs: parquet files of ``mlpf postprocess``, directories or globs.
        overwrite: replace a version made from other inputs, or any file or folder with its name.
        split_seed: seed of the split and of the order of events.
        split_fractions: fractions of train, valid, test; a split with fraction 0 is left out.
        placement: place of the processes that write the blocks.
        shard: write the blocks of this job only; all jobs get the same other arguments.
        merge: join the blocks of the shards.

    Raises:
        DataError: unknown dataset, unusable inputs, a split without events, missing shards, or no space.
        OutputExists: what has its name was made from something else, or another process is at work.
        MLPFError: worker processes were killed, or the site cannot be used.
    """
    start, console = time.perf_counter(), Console()
    builder_class, config = find_recipe(dataset)
    files = expand_inputs(inputs, (".parquet",))
    plan = plan_blocks(files, split_seed, split_fractions, builder_class.SCHEMA)
    final = Path(data_dir) / builder_class.name / config / str(builder_class.VERSION)
    _announce(dataset, plan, console)
    work = _Work(final, plan, builder_class.name)
    seen, finished = _stamp(final), None if overwrite else _finished_before(final, plan)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with locked(final.with_name(f".{final.name}.lock"), str(final), shard):
            if not overwrite and _stamp(final) != seen:  # another process was at work before the lock
                finished = _finished_before(final, plan)
            writes_blocks = finished is None and not merge
            new_events = _write_blocks(work, shard, placement, console) if writes_blocks else 0
            if shard is None:
                _finish(work, builder_class, config, is_finished=finished is not None)
    except OSError as error:
        problem = f"{final}: cannot be written ({error}); free space or choose another --data-dir"
        raise DataError(problem) from error
    events = work.count(shard) if finished is None else finished
    summary = BuildSummary(
        final, events, finished is not None, time.perf_counter() - start, new_events, shard
    )
    console.print(_table(dataset, summary))
    return summary


def _announce(dataset: str, plan: BuildPlan, console: Console) -> None:
    """Print facts that may surprise the user: a sample that no recipe lists, a split by event."""
    for line in (own_sample(dataset), plan.partition.describe() if plan.partition.by == "event" else None):
        if line:
            console.print(line, highlight=False, soft_wrap=True)


def _stamp(final: Path) -> tuple[int, ...]:
    """Return a mark of a version that changes when another process makes or replaces it."""
    try:
        found = final.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns


def _finished_before(final: Path, plan: BuildPlan) -> dict[str, int] | None:
    """Return the events per split of a finished version, None if there is none.

    Raises:
        OutputExists: it has other inputs, or the folder is no finished dataset.
    """
    finished = _finished(final)
    if finished is None:
        # A killed run does not leave such a folder, because a version is renamed when it is complete.
        if final.exists():
            raise OutputExists(
                f"{final} is there and is no finished dataset; move it away or use --overwrite to replace it"
            )
        return None
    description = plan.description
    wanted = recipe(plan.files, plan.seed, description["split_fractions"], plan.schema)
    difference = _difference(finished[0], wanted)
    if difference:
        raise OutputExists(
            f"{final}: built before from something else ({difference}); use --overwrite to replace it"
        )
    return finished[1]


def _write_blocks(work: _Work, shard: Shard | None, placement: Placement, console: Console) -> int:
    """Write the missing blocks of a job; return the number of written events."""
    work.prepare(shard)
    blocks = [block for block in work.blocks(shard) if work.report(block) is None]
    # Large blocks first: at the end a large one would keep workers waiting.
    blocks.sort(key=lambda block: -block.num_events)
    names = [block.file_name(work.dataset) for block in blocks]
    jobs = [work.job(block) for block in blocks]
    try:
        with engine_for(placement, work.engine, len(jobs)) as engine:
            done = run_jobs(engine, write_block, jobs, names)
            return sum(
                track(done, "build", total=len(jobs), console=console, disable=not console.is_terminal)
            )
    except DataError as error:
        # After a repair the input belongs to another plan, so this folder is useless.
        if shard is None and not isinstance(error, OutputNotWritable):
            work.remove()
        raise


def _finish(
    work: _Work, builder_class: type[ElementDatasetBuilder], config: str, *, is_finished: bool
) -> None:
    """Make one dataset of the finished blocks, unless that was done before; remove the blocks."""
    if not is_finished:
        reports = work.require_blocks()
        builder = builder_class(config=config, data_dir=work.data / "unused")
        write_description(builder.info, work.plan, reports, work.data)
        work.publish()
    work.remove_all()


def _table(dataset: str, summary: BuildSummary) -> Table:
    what = f"{dataset}, shard {summary.shard}" if summary.shard else dataset
    table = Table(what, "events")
    for name, count in summary.events.items():
        table.add_row(name, str(count))
    total = sum(summary.events.values())
    table.add_row("all", str(total))
    if summary.reused:
        table.add_row("reused", "built from the same inputs before")
    elif summary.wall_seconds > 0:
        table.add_row("written now", str(summary.new_events))
        table.add_row("events per second", f"{summary.new_events / summary.wall_seconds:.0f}")
    if summary.shard:
        table.add_row("next", "when all shards are there: the same command with --merge")
    else:
        table.add_row("written to", str(summary.path))
    return table
