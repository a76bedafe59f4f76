"""Work divided over jobs: each alone, all together, and what is refused."""

import json
import os
import subprocess
import sys

import pytest
import tensorflow_datasets as tfds
from click.testing import CliRunner

from mlpf.cli import cli
from mlpf.config.data_schema import DatasetSourceConfig
from mlpf.data.dataset import blocks
from mlpf.data.dataset.recipes import RECIPES
from mlpf.data.dataset.split import open_split
from mlpf.engine.opening import Placement
from mlpf.errors import DataError, OutputExists
from mlpf.files.locking import Shard, locked
from mlpf.workflows import build, postprocess
from tests.support.edm4hep_files import simple_event, write_edm4hep
from tests.support.events import one_by_one
from tests.support.parquet_files import write_parquet

NAME = "clic_edm4hep/ttbar"
NUM_FILES = 9
SPLITS = {"split_seed": 2, "split_fractions": (0.6, 0.2, 0.2)}


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "MIN_BLOCK_BYTES", 1)


@pytest.fixture
def parquet(tmp_path):
    folder = tmp_path / "parquet"
    folder.mkdir()
    for i in range(NUM_FILES):
        write_parquet(folder / f"reco_{i}.parquet", 5)
    return folder


def content(folder):
    """Bytes of all files of the version and of the folder that it is in, but locks."""
    files = [p for p in (folder / NAME).rglob("*") if p.is_file() and ".lock" not in p.name]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def test_processes_and_shards_give_the_dataset_of_one_process(parquet, tmp_path):
    build.run(NAME, tmp_path / "one", [parquet], **SPLITS)
    build.run(NAME, tmp_path / "two", [parquet], placement=Placement(2), **SPLITS)
    written = [
        build.run(NAME, tmp_path / "jobs", [parquet], shard=Shard(i, 4), **SPLITS).new_events
        for i in (3, 1, 4, 2)
    ]
    assert sum(written) == 5 * NUM_FILES
    assert min(written) > 0
    assert not (tmp_path / "jobs" / NAME / "1.0.0").exists()
    merged = build.run(NAME, tmp_path / "jobs", [parquet], merge=True, **SPLITS)
    assert sum(merged.events.values()) == 5 * NUM_FILES
    wanted = content(tmp_path / "one")
    assert content(tmp_path / "two") == wanted
    assert content(tmp_path / "jobs") == wanted
    opened = tfds.builder_from_directory(str(merged.path))
    assert {name: split.num_examples for name, split in opened.info.splits.items()} == merged.events
    assert len(opened.info.splits["train"].shard_lengths) > 1


def test_merge_names_the_shards_that_are_missing_and_a_finished_one_is_reused(parquet, tmp_path):
    with pytest.raises(DataError, match=r"no shard was built from these inputs.*run mlpf build with --shard"):
        build.run(NAME, tmp_path, [parquet], merge=True, **SPLITS)
    build.run(NAME, tmp_path, [parquet], shard=Shard(2, 3), **SPLITS)
    with pytest.raises(DataError, match=r"shard\(s\) 1/3, 3/3 are not finished.*then --merge"):
        build.run(NAME, tmp_path, [parquet], merge=True, **SPLITS)
    assert build.run(NAME, tmp_path, [parquet], shard=Shard(2, 3), **SPLITS).new_events == 0
    with pytest.raises(DataError, match=r"no shard was built from these inputs.*only incomplete\.1\.0\.0\."):
        build.run(NAME, tmp_path, [parquet], merge=True, split_seed=7)
    # Without --shard the rest is built and merged in one go.
    last = build.run(NAME, tmp_path, [parquet], **SPLITS)
    assert 0 < last.new_events < sum(last.events.values()) == 5 * NUM_FILES
    assert build.run(NAME, tmp_path, [parquet], shard=Shard(1, 3), **SPLITS).reused
    with pytest.raises(OutputExists, match="split_seed was 2, is 7"):
        build.run(NAME, tmp_path, [parquet], shard=Shard(1, 3), split_seed=7)


def test_a_damaged_block_of_a_shard_is_made_again(parquet, tmp_path):
    build.run(NAME, tmp_path, [parquet], shard=Shard(1, 2), split_seed=7)  # given up
    (seven,) = (tmp_path / NAME).glob("incomplete.*")
    for i in (1, 2):
        build.run(NAME, tmp_path, [parquet], shard=Shard(i, 2), **SPLITS)
    first = min(tmp_path.rglob("*train.array_record-00000*"), key=lambda path: seven in path.parents)
    first.write_bytes(first.read_bytes()[:100])
    with pytest.raises(DataError, match=r"shard\(s\) 1/2 are not finished"):
        build.run(NAME, tmp_path, [parquet], merge=True, **SPLITS)
    assert build.run(NAME, tmp_path, [parquet], shard=Shard(1, 2), **SPLITS).new_events == 5
    assert len(list((tmp_path / NAME).glob("incomplete.*"))) == 2
    build.run(NAME, tmp_path, [parquet], merge=True, **SPLITS)
    assert not list((tmp_path / NAME).glob("incomplete.*"))


def test_build_and_postprocess_are_refused_where_others_work(parquet, tmp_path):
    folder = tmp_path / NAME
    folder.mkdir(parents=True)
    with locked(folder / ".1.0.0.lock", "held", Shard(1, 2)):
        with pytest.raises(OutputExists, match=rf"1\.0\.0: process {os.getpid()} on .* \(shard 1/2\) is at"):
            build.run(NAME, tmp_path, [parquet], **SPLITS)
        build.run(NAME, tmp_path, [parquet], shard=Shard(2, 2), **SPLITS)
    output = tmp_path / "out"
    output.mkdir()
    write_edm4hep(tmp_path / "a.root", [simple_event()])
    with locked(output / postprocess.LOCK_FILE, "held"):
        for shard in (None, Shard(1, 2)):
            with pytest.raises(
                OutputExists, match=f"{output}.*: process {os.getpid()} on .* is at work there"
            ):
                postprocess.run([tmp_path / "a.root"], output, shard=shard)
    assert postprocess.run([tmp_path / "a.root"], output).num_events == 1


def test_shards_of_postprocess_divide_the_files(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    for i in range(3):
        write_edm4hep(root / f"f{i}.root", [simple_event(10.0 + i)])
    for i, names in ((1, ["f0", "f2"]), (2, ["f1"])):
        summary = postprocess.run([root], tmp_path / "out", shard=Shard(i, 2))
        assert [f.source.stem for f in summary.files] == names
    assert postprocess.run([root], tmp_path / "out").num_reused == 3
    assert postprocess.run([root], tmp_path / "out", shard=Shard(5, 5)).files == ()


FULL_DISK = """
import resource, sys
from mlpf.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
main()
"""


@pytest.mark.parametrize("command", ["postprocess", "build"])
def test_a_full_disk_is_one_line(parquet, tmp_path, repo_root, command):
    """A limit on the size of files stands in for the disk: the kernel refuses to write on."""
    output = tmp_path / "out"
    if command == "postprocess":
        for i in range(3):
            write_edm4hep(tmp_path / f"f{i}.root", [simple_event(10.0 + i)])
        arguments = ["postprocess", tmp_path / "*.root", "-o", output]
    else:
        arguments = ["build", NAME, "--data-dir", output, "-i", parquet, "--split-fractions", "1,0,0"]
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, "2000", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(repo_root)},
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "cannot be written" in line
    assert "free space or choose another" in line
    assert not list(output.rglob("*.parquet"))
    assert not list(output.rglob("*array_record*"))
    assert not list(output.rglob("dataset_info.json"))


@pytest.fixture(scope="module")
def tfds_builders(repo_root):
    """What ``tfds build datasets/<recipe>`` finds: a builder may be imported once only."""
    with tfds.core.utils.add_sys_path(repo_root / "datasets"):
        return {
            name: tfds.core.community.builder_cls_from_module(f"{name}.{name}_dataset_builder")
            for name in RECIPES
        }


def test_folders_of_tfds_hold_the_recipes_of_the_package(tfds_builders, repo_root, tmp_path):
    assert {path.name for path in (repo_root / "datasets").glob("[!_.]*")} == set(RECIPES)
    for name, found in tfds_builders.items():
        assert found.name == name == RECIPES[name].name
        config = found.BUILDER_CONFIGS[0].name
        infos = [cls(config=config, data_dir=tmp_path).info for cls in (found, RECIPES[name])]
        same = [
            [i.description, i.citation, i.release_notes, dict(i.metadata), repr(i.features)] for i in infos
        ]
        assert same[0] == same[1]
        assert infos[0].description.startswith("# ")
        assert infos[0].citation.startswith("@article{pata")


def test_plain_tfds_builds_the_same_events(parquet, tmp_path, tfds_builders):
    """What ``tfds build`` calls; its order is its own."""
    builder_class = tfds_builders[NAME.split("/")[0]]
    manual = tmp_path / "manual"
    (manual / "ttbar").mkdir(parents=True)
    for path in parquet.glob("*.parquet"):
        path.rename(manual / "ttbar" / path.name)
    builder = builder_class(config="ttbar", data_dir=tmp_path / "plain", split_seed=1)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual))
    ours = build.run(NAME, tmp_path / "ours", [manual / "ttbar"], split_seed=1)
    recipes = [
        json.loads((path / "metadata.json").read_text(encoding="utf-8"))
        for path in (ours.path, tmp_path / "plain" / NAME / "1.0.0")
    ]
    assert recipes[0] == recipes[1]
    for split, number in ours.events.items():
        events = []
        for folder in ("plain", "ours"):
            opened = open_split(
                NAME, DatasetSourceConfig(version="1.0.0", data_dir=str(tmp_path / folder)), split
            )
            found = one_by_one(opened.fetch(range(opened.num_events), opened.fields))
            events.append({str(e["event"]): {k: v.tobytes() for k, v in e.items()} for e in found})
        assert events[0] == events[1]
        assert len(events[0]) == number


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["postprocess", "a.root", "-o", "out", "--shard", "3/2"],
            "expected I/N with 1 <= I <= N, e.g. 2/10",
        ),
        (["postprocess", "a.root", "-o", "out", "--shard", "0/2"], "expected I/N"),
        (["build", NAME, "-i", "out", "--shard", "2"], "expected I/N"),
        (["build", NAME, "-i", "out", "--shard", "1/2", "--merge"], "give it without --shard"),
    ],
)
def test_shards_that_cannot_be_are_refused_by_the_command_line(arguments, message):
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_the_command_line_hands_shard_and_workers_on(monkeypatch):
    calls = []
    monkeypatch.setattr(postprocess, "run", lambda *_, **options: calls.append(options))
    monkeypatch.setattr(build, "run", lambda *_, **options: calls.append(options))
    for command in (["postprocess", "a.root", "-o", "out"], ["build", NAME, "-i", "out"]):
        result = CliRunner().invoke(cli, [*command, "--shard", "2/5", "-j", "3"])
        assert result.exit_code == 0, result.output
    assert [(c["shard"], c["placement"]) for c in calls] == [(Shard(2, 5), Placement(3))] * 2
    assert calls[0]["elements"] == "clusters"
    assert not calls[1]["merge"]
