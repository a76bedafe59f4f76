"""Files of events -> parquet files: what is made, kept, made again, refused."""

import bz2

import numpy as np
import pytest

from mlpf.data.edm4hep.conversion import Edm4hepConversion
from mlpf.data.events import EventsWriter, read_metadata
from mlpf.engine.opening import Placement
from mlpf.errors import DataError, OutputExists
from mlpf.workflows import build, postprocess
from tests.support.delphes_files import published_event, simple_delphes, write_delphes, write_pickle
from tests.support.edm4hep_files import simple_event, write_edm4hep
from tests.support.parquet_files import as_other_format

NAME = "clic_edm4hep/ttbar"
FRACTIONS = (0.4, 0.3, 0.3)
SEED = 9
NUM_FILES = 6


def test_postprocess_reuses_finished_files_and_skips_bad_ones(tmp_path):
    root, output = tmp_path / "root", tmp_path / "out"
    root.mkdir()
    write_edm4hep(root / "good.root", [simple_event()])
    (root / "bad.root").write_bytes(b"no ROOT file at all" * 50)
    first = postprocess.run([root], output)
    assert (first.num_events, first.num_failed, first.num_reused) == (1, 1, 0)
    assert [p.name for p in output.glob("[!.]*")] == ["good.parquet"]
    assert postprocess.run([root / "*.root"], output).num_reused == 1
    assert postprocess.run([root], output, overwrite=True).num_reused == 0


def test_outputs_of_changed_files_and_of_older_rules_are_made_again(tmp_path, monkeypatch):
    root = tmp_path / "a.root"
    arguments = ([root], tmp_path / "out")
    written = tmp_path / "out" / "a.parquet"
    write_edm4hep(root, [simple_event()])
    postprocess.run(*arguments)
    checksum = read_metadata(written)["source_blake2b"]
    content = root.read_bytes()
    root.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # of the same size
    assert postprocess.run(*arguments).num_reused == 0
    assert read_metadata(written)["source_blake2b"] != checksum
    assert postprocess.run(*arguments).num_reused == 1
    write_edm4hep(root, [simple_event(), simple_event(20.0)])
    assert postprocess.run(*arguments).num_events == 2
    monkeypatch.setattr(Edm4hepConversion, "truth_version", "9.9.9")
    assert postprocess.run(*arguments).num_reused == 0
    assert read_metadata(written)["truth_version"] == "9.9.9"


def test_outputs_of_an_older_format_are_said_and_made_again(tmp_path, capsys):
    write_edm4hep(tmp_path / "a.root", [simple_event()])
    arguments = ([tmp_path / "a.root"], tmp_path / "out")
    written = tmp_path / "out" / "a.parquet"
    postprocess.run(*arguments)
    content = written.read_bytes()
    for version in (1, 2):
        as_other_format(written, version)
        with pytest.raises(DataError, match=rf"written by an older version \(format {version}, expected 3\)"):
            build.run(NAME, tmp_path / "data", [written])
        capsys.readouterr()
        assert postprocess.run(*arguments).num_reused == 0
        said = f"made again, written by an older version (format {version}, expected 3): 1 outputs"
        assert said in capsys.readouterr().out
        assert written.read_bytes() == content
        as_other_format(written, version)
        with pytest.raises(OutputExists, match=r"holds events of clic, asked for clic_hits; .*--overwrite"):
            postprocess.run(*arguments, elements="hits")
        other = write_edm4hep(tmp_path / "b.root", [simple_event()])
        written.rename(written.with_name("b.parquet"))
        with pytest.raises(OutputExists, match=r"was made from a\.root, not from b\.root"):
            postprocess.run([other], tmp_path / "out")
        (tmp_path / "out" / "b.parquet").rename(written)
    as_other_format(written, 4)
    with pytest.raises(OutputExists, match=r"a newer version \(format 4, expected 3\).*--overwrite"):
        postprocess.run(*arguments)


def test_outputs_without_a_checksum_are_made_again(tmp_path, monkeypatch):
    write_edm4hep(tmp_path / "a.root", [simple_event()])
    finish = EventsWriter.finish
    with monkeypatch.context() as before:
        before.setattr(
            EventsWriter,
            "finish",
            lambda self, found: finish(self, {k: v for k, v in found.items() if k != "source_blake2b"}),
        )
        postprocess.run([tmp_path / "a.root"], tmp_path / "out")
    assert postprocess.run([tmp_path / "a.root"], tmp_path / "out").num_reused == 0
    assert postprocess.run([tmp_path / "a.root"], tmp_path / "out").num_reused == 1


def test_outputs_that_are_something_else_are_replaced_with_overwrite_only(tmp_path):
    write_edm4hep(tmp_path / "a.root", [simple_event()])
    arguments = ([tmp_path / "a.root"], tmp_path / "out")
    written = tmp_path / "out" / "a.parquet"
    postprocess.run(*arguments, elements="hits")
    made = written.read_bytes()
    other = write_edm4hep(tmp_path / "other.root", [simple_event()])
    postprocess.run([other], tmp_path / "other")
    for content, message in (
        (made, "a.parquet holds events of clic_hits, asked for clic or delphes"),
        (made[:-100], "a.parquet is there and is no complete output"),
        (b"my notes", "a.parquet is there and is no complete output"),
        ((tmp_path / "other" / "other.parquet").read_bytes(), "was made from other.root, not from a.root"),
    ):
        written.write_bytes(content)
        with pytest.raises(OutputExists, match=f"{message}.*--overwrite"):
            postprocess.run(*arguments)
        assert written.read_bytes() == content
    assert postprocess.run(*arguments, overwrite=True).num_events == 1
    assert postprocess.run(*arguments).num_reused == 1


def test_the_content_of_a_file_decides_how_it_is_read(tmp_path):
    root, output = tmp_path / "root", tmp_path / "out"
    root.mkdir()
    write_edm4hep(root / "a.root", [simple_event()])
    write_delphes(root / "b.root", [simple_delphes(), simple_delphes(20.0)])
    pickled = write_pickle(tmp_path / "c.pkl", [published_event(ygen=np.zeros((2, 7)), kinds=(2, 1))])
    (root / "c.1.pkl.bz2").write_bytes(bz2.compress(pickled.read_bytes()))
    assert postprocess.run([root], output).num_failed == 0
    schemas = {path.name: read_metadata(path)["schema"] for path in output.glob("*.parquet")}
    assert schemas == {"a.parquet": "clic", "b.parquet": "delphes", "c.1.parquet": "delphes"}
    assert postprocess.run([root], output).num_reused == 3
    hits = postprocess.run([root], tmp_path / "hits", elements="hits")
    assert [bool(f.error) for f in hits.files] == [False, True, True]
    assert "has tracks and towers, no hits; drop --elements" in hits.files[1].error
    (root / "a.pkl").touch()
    with pytest.raises(DataError, match="have the same base name"):
        postprocess.run([root], output)


def test_parts_of_a_killed_run_are_removed_and_those_of_other_jobs_are_not(tmp_path):
    write_edm4hep(tmp_path / "a.root", [simple_event()])
    output = tmp_path / "out"
    output.mkdir()
    own, other = output / ".a.parquet.99.part", output / ".b.parquet.99.part"
    own.touch()
    other.touch()
    postprocess.run([tmp_path / "a.root"], output)
    assert not own.exists()
    assert other.exists()


def test_postprocess_fails_only_when_every_file_does(tmp_path):
    (tmp_path / "bad.root").write_bytes(b"no ROOT file at all" * 50)
    with pytest.raises(DataError, match="none of 2 files could be used"):
        postprocess.run([tmp_path / "bad.root", tmp_path / "gone.root"], tmp_path / "out")
    with pytest.raises(DataError, match=r"no \.root or \.pkl or \.pkl\.bz2 file there"):
        postprocess.run([tmp_path / "*.nothing"], tmp_path / "out")


def test_two_processes_give_what_one_gives(tmp_path):
    for i in range(2):
        write_edm4hep(tmp_path / f"f{i}.root", [simple_event(10.0 + i)])
    postprocess.run([tmp_path], tmp_path / "one")
    postprocess.run([tmp_path], tmp_path / "two", placement=Placement(2))
    written = sorted((tmp_path / "one").glob("*.parquet"))
    assert len(written) == 2
    for path in written:
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
