"""A dataset in blocks: each block is one array_record file, written by one process.

The events of a block depend on the input files, the seed and the fractions only. Therefore any number of
processes, or of jobs on different machines, gives a dataset with the same events in the same order.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from tensorflow_datasets.core import DatasetInfo
from tensorflow_datasets.core.splits import SplitDict, SplitInfo
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from mlpf import __version__
from mlpf.data.dataset.detectors import detector_entry
from mlpf.data.dataset.examples import common_truth_version, make_examples, source_entry
from mlpf.data.dataset.splitting import EventSelection, Partition, partition, stored_keys
from mlpf.data.events import iterate_events
from mlpf.errors import DataError, OutputNotWritable, one_line
from mlpf.files.atomic import atomic_write
from mlpf.physics.schemas import EventSchema

# Bytes of arrays that are in memory, and shuffled, together: 1400 ttbar events of tracks and clusters.
WINDOW_BYTES = 32 * 1024**2
# Blocks may be at least this large, so that starting a process is worth it ...
MIN_BLOCK_BYTES = 16 * 1024**2
# ... and larger, so that a split has at most about this many: a reader keeps each file open.
BLOCKS_PER_SPLIT = 128
# Random access needs one record per group. Level 1 writes 2.4 times as fast as the default level, and the
# files are 2 % larger.
WRITER_OPTIONS = "group_size:1,zstd:1"
_TAIL_BYTES = 64 * 1024


@dataclass(frozen=True)
class Block:
    """One array_record file of a split.

    Attributes:
        split: name of the split.
        index: position among the blocks of the split.
        count: blocks of the split.
        files: its parquet files, in order.
        num_events: number of events of these files that are in the split.
        selection: which events of the files are in the split.
    """

    split: str
    index: int
    count: int
    files: tuple[Path, ...]
    num_events: int
    selection: EventSelection

    def file_name(self, dataset: str) -> str:
        """Return the name that TFDS gives to this file of ``dataset``."""
        return f"{dataset}-{self.split}.array_record-{self.index:05d}-of-{self.count:05d}"


@dataclass(frozen=True)
class BuildPlan:
    """All blocks of a dataset, and the parameters that determine them.

    Attributes:
        schema: schema of the events.
        files: input files, sorted by name.
        blocks: split after split.
        partition: how files or events are distributed over splits.
        description: the parameters of the blocks as JSON, without checksums of whole files.
    """

    schema: EventSchema
    files: tuple[Path, ...]
    blocks: tuple[Block, ...]
    partition: Partition
    description: dict[str, Any]

    @property
    def seed(self) -> int:
        """Seed of splits and order."""
        return int(self.description["split_seed"])

    @cached_property
    def digest(self) -> str:
        """Identify the plan: equal digests mean equal datasets."""
        return _hash(json.dumps(self.description, sort_keys=True)).hex()

    def recipe(self, sources: Sequence[dict[str, str]]) -> dict[str, Any]:
        """Return the result of ``mlpf.data.dataset.examples.recipe``, from the sources of all blocks."""
        by_name = {source["file"]: source for source in sources}
        keys = ("schema", "split_seed", "split_fractions", "split_by", "truth_version", "detector")
        entries = [by_name[path.name] for path in self.files]
        known = {key: self.description[key] for key in keys if key in self.description}
        return {**known, "source_files": entries}


@dataclass(frozen=True)
class BlockReport:
    """The contents of a finished block.

    Attributes:
        num_events: records.
        num_bytes: sum of their sizes before compression.
        sources: name, source and checksum of its files.
    """

    num_events: int
    num_bytes: int
    sources: list[dict[str, str]]


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def plan_blocks(
    files: Sequence[Path], seed: int, fractions: Sequence[float], schema: EventSchema
) -> BuildPlan:
    """Divide the files over splits and blocks; looks at the end of each file, and at the numbers of events.

    The files of a split are sorted by a hash of seed and name. Neighbours form blocks.

    Raises:
        DataError: a file cannot be used, is of another schema, truth version or detector, or a split gets no
            events.
    """
    version = common_truth_version(files, schema)
    facts = {path: _facts(path) for path in files}
    parts = partition(files, seed, fractions)
    blocks: list[Block] = []
    for split, members in parts.files.items():
        selection = parts.selection(split)
        ordered = sorted(members, key=lambda path: _hash(f"{seed}:file:{path.stem}"))
        groups = _group(ordered, [facts[path]["array_bytes"] for path in ordered])
        sizes = [sum(_num_events(path, facts[path], selection) for path in group) for group in groups]
        if not sum(sizes):
            raise DataError(f"split {split!r} has no events: its {len(members)} files are empty; give others")
        blocks += [
            Block(split, i, len(groups), tuple(group), size, selection)
            for i, (group, size) in enumerate(zip(groups, sizes, strict=True))
        ]
    description = {
        "schema": schema.name,
        "split_seed": int(seed),
        "split_fractions": [float(f) for f in fractions],
        "split_by": parts.by,
        "truth_version": version,
        **detector_entry(files, schema),
        "mlpf_version": __version__,
        "rules": [WINDOW_BYTES, MIN_BLOCK_BYTES, BLOCKS_PER_SPLIT, WRITER_OPTIONS],
        "source_files": [{"file": path.name, **facts[path]} for path in files],
    }
    return BuildPlan(schema, tuple(files), tuple(blocks), parts, description)


def _facts(path: Path) -> dict[str, Any]:
    """Return numbers that describe a file without reading all of it."""
    metadata = pq.read_metadata(path)
    groups = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
    size = path.stat().st_size
    with path.open("rb") as stream:
        stream.seek(max(size - _TAIL_BYTES, 0))
        tail = hashlib.blake2b(stream.read(), digest_size=8).hexdigest()
    return {"events": metadata.num_rows, "array_bytes": sum(groups), "bytes": size, "tail": tail}


def _num_events(path: Path, facts: dict[str, Any], selection: EventSelection) -> int:
    """Return the number of events of a file in a selection."""
    if not selection.fractions:
        return int(facts["events"])
    return sum(selection.holds(key) for key in stored_keys(path))


def _group(files: Sequence[Path], sizes: Sequence[int]) -> list[list[Path]]:
    """Divide the files into groups of neighbours of about equal size, each with at least one file."""
    limit = max(MIN_BLOCK_BYTES, sum(sizes) / BLOCKS_PER_SPLIT)
    groups: list[list[Path]] = []
    filled = 0
    for path, size in zip(files, sizes, strict=True):
        if not groups or filled + size > limit:
            groups.append([])
            filled = 0
        groups[-1].append(path)
        filled += size
    return groups


def write_block(block: Block, seed: int, path: Path, report: Path) -> int:
    """Write the events of a block, and then the report that marks it as complete.

    Events are ordered by a hash of seed and key within ``WINDOW_BYTES`` of files.

    Args:
        block: what to write.
        seed: seed of the order.
        path: array_record file.
        report: JSON file of a ``BlockReport``.

    Returns:
        The number of events.

    Raises:
        DataError: an input is damaged or changed meanwhile.
        OutputNotWritable: the disk is full.
    """
    num_events = num_bytes = 0
    try:
        with atomic_write(path) as part:
            with closing(ArrayRecordWriter(str(part), WRITER_OPTIONS)) as writer:
                for examples in _windows(block.files):
                    chosen = (example for example in examples if block.selection.holds(example["event"]))
                    for example in sorted(chosen, key=lambda e: _hash(f"{seed}:{e['event']}")):
                        record = serialize(example)
                        writer.write(record)
                        num_events += 1
                        num_bytes += len(record)
            if num_events != block.num_events:
                raise DataError(
                    f"{block.files[0]} and the {len(block.files) - 1} files with it: {num_events} events "
                    f"read, expected {block.num_events}; files changed meanwhile, start again"
                )
        content = BlockReport(num_events, num_bytes, [source_entry(file) for file in block.files])
        with atomic_write(report) as part:
            part.write_text(json.dumps(asdict(content)), encoding="utf-8")
    except (OSError, RuntimeError) as error:  # the writer of array_record raises RuntimeError
        raise OutputNotWritable(
            f"{path}: cannot be written ({one_line(error)}); free space or choose another --data-dir"
        ) from error
    return num_events


def _windows(files: Sequence[Path]) -> Iterator[list[dict[str, Any]]]:
    """Yield the events of some files in parts that fit into memory."""
    window: list[dict[str, Any]] = []
    filled = 0
    for path in files:
        for events in iterate_events(path):
            if window and filled + events.num_bytes > WINDOW_BYTES:
                yield window
                window, filled = [], 0
            window += make_examples(events, path.stem)
            filled += events.num_bytes
    if window:
        yield window


def serialize(example: Mapping[str, Any]) -> bytes:
    """Return the record that TFDS would write for an event, always with the same bytes.

    TFDS needs five times as long, because it checks and copies each field several times.

    Args:
        example: matrices and ``event``, as ``make_examples`` returns them.
    """
    values = {name: v.encode() if isinstance(v, str) else v.tobytes() for name, v in example.items()}
    feature = {
        name: tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=[value]))
        for name, value in values.items()
    }
    record = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=feature))
    return record.SerializeToString(deterministic=True)


def read_report(report: Path, path: Path, block: Block) -> BlockReport | None:
    """Return the report of a complete block; None if there is no report or it does not fit.

    Args:
        report: JSON file written by ``write_block``.
        path: the block's array_record file.
        block: the expected block.
    """
    try:
        content = BlockReport(**json.loads(report.read_text(encoding="utf-8")))
        with closing(ArrayRecordReader(str(path))) as reader:
            complete = reader.num_records() == content.num_events == block.num_events
    except (OSError, RuntimeError, ValueError, TypeError):
        return None
    return content if complete else None


def write_description(
    info: DatasetInfo, plan: BuildPlan, reports: Sequence[BlockReport], folder: Path
) -> None:
    """Write features, splits and metadata, which make the blocks in ``folder`` a dataset.

    Args:
        info: description of the dataset by its recipe; gets splits and provenance.
        plan: all blocks.
        reports: one for each.
        folder: folder of the blocks.
    """
    sources = [source for report in reports for source in report.sources]
    info.metadata.update(plan.recipe(sources))
    splits: dict[str, list[BlockReport]] = {}
    for block, report in zip(plan.blocks, reports, strict=True):
        splits.setdefault(block.split, []).append(report)
    info.set_splits(
        SplitDict(
            [
                SplitInfo(
                    name=name,
                    shard_lengths=[part.num_events for part in parts],
                    num_bytes=sum(part.num_bytes for part in parts),
                )
                for name, parts in splits.items()
            ]
        )
    )
    info.write_to_directory(folder)
