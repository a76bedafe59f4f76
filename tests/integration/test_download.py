import subprocess
import sys
from collections import namedtuple

import pytest

from mlpf.errors import DataError, OutputExists
from mlpf.files.locking import locked
from mlpf.workflows import download
from tests.integration.test_cli import HEAVY, modules_loaded_by
from tests.support.archive import RECORD, serve

TTBAR = [f"tev14_pythia8_ttbar_0_{i}.pkl.bz2" for i in (0, 2, 10)]
QCD = "tev14_pythia8_qcd_10_0.pkl.bz2"


@pytest.fixture
def archive():
    with serve() as archive:
        for number, name in enumerate([*TTBAR[::-1], QCD, "README.md"]):
            archive.files[name] = bytes([number]) * 2000
        yield archive


@pytest.fixture
def fetch(archive, tmp_path):
    def run(samples=("delphes_ttbar",), output=tmp_path / "out", **options):
        return download.run(samples, output, api=archive.api, sleep=lambda _: None, **options)

    return run


def files_below(folder):
    paths = [p.relative_to(folder) for p in folder.rglob("*") if p.is_file()]
    return sorted(str(p) for p in paths if p.parts[0] != download.STATE_FOLDER)


def fetched_names(archive):
    return {r[0] for r in archive.requests} - {"listing"}


def test_each_sample_goes_to_its_folder(fetch, archive, tmp_path):
    summary = fetch(("delphes_ttbar", "delphes_qcd"))
    expected = sorted([*(f"delphes_ttbar/{n}" for n in TTBAR), f"delphes_qcd/{QCD}"])
    assert files_below(tmp_path / "out") == expected
    for name in expected:
        assert (tmp_path / "out" / name).read_bytes() == archive.files[name.split("/")[1]]
    assert len(summary.fetched) == 4
    assert summary.num_bytes == 8000
    assert [r[0] for r in archive.requests].count("listing") == 1


def test_second_run_fetches_nothing(fetch, archive):
    fetch()
    archive.requests.clear()
    summary = fetch()
    assert summary.fetched == ()
    assert len(summary.reused) == 3
    assert fetched_names(archive) == set()


def test_max_files_takes_the_first_by_number(fetch, archive):
    summary = fetch(max_files=2)
    assert [p.name for p in summary.fetched] == TTBAR[:2]
    assert fetched_names(archive) == set(TTBAR[:2])


def test_one_broken_file_is_counted_and_the_others_arrive(fetch, archive, tmp_path, capsys):
    archive.faults[TTBAR[1]] = ["corrupt", "corrupt"]
    with pytest.raises(DataError, match=r"1 of 3 files failed; run the same command again"):
        fetch()
    assert files_below(tmp_path / "out") == sorted(f"delphes_ttbar/{n}" for n in (TTBAR[0], TTBAR[2]))
    assert f"failed {TTBAR[1]}: checksum" in capsys.readouterr().out
    assert [p.name for p in fetch().fetched] == [TTBAR[1]]


def test_name_that_leads_out_is_counted_and_not_written(fetch, archive, tmp_path, capsys):
    evil = "tev14_pythia8_ttbar_/../../../evil.pkl"
    archive.files[evil] = b"x"
    with pytest.raises(DataError, match="1 of 4 files failed"):
        fetch()
    assert "not a name that can be written safely" in capsys.readouterr().out
    assert not list(tmp_path.rglob("evil*"))
    assert len(files_below(tmp_path / "out")) == 3


def test_link_that_leads_out_is_not_followed(fetch, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "delphes_ttbar").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="3 of 3 files failed"):
        fetch()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_record_with_a_glob(fetch, tmp_path):
    fetch(("*.md",), record=RECORD)
    assert files_below(tmp_path / "out") == [f"record_{RECORD}/README.md"]


def test_record_without_a_glob_is_everything(fetch, archive):
    assert len(fetch((), record=RECORD).fetched) == len(archive.files)


def test_sample_from_another_record(fetch, archive, tmp_path):
    with pytest.raises(DataError, match=r"records/99: HTTP status 404"):
        fetch(record="99")
    fetch(("delphes_qcd",), record=RECORD)
    assert files_below(tmp_path / "out") == [f"delphes_qcd/{QCD}"]


def test_unknown_sample_suggests_the_nearest(fetch, archive):
    with pytest.raises(DataError, match="did you mean delphes_ttbar"):
        fetch(("delphes_tbar",))
    assert archive.requests == []


def test_sample_without_files_says_what_the_record_has(fetch, archive):
    archive.files = {"data.tar": b"x"}
    with pytest.raises(DataError, match=rf"the record has 'data.tar'; .*--record {RECORD} 'GLOB'"):
        fetch()


def test_dry_run_fetches_nothing_and_counts_what_is_there(fetch, archive, tmp_path, capsys):
    archive.faults[TTBAR[0]] = ["break", 404]
    with pytest.raises(DataError):
        fetch(max_files=1)
    fetch(("delphes_qcd",))
    archive.requests.clear()
    capsys.readouterr()
    assert fetch(("delphes_ttbar", "delphes_qcd"), dry_run=True) is None
    assert fetched_names(archive) == set()
    rows = {line.split()[1]: line.split() for line in capsys.readouterr().out.splitlines() if "kB" in line}
    assert rows[f"delphes_ttbar/{TTBAR[0]}"][3:7] == ["2.0", "kB", "│", "1.0"]
    assert rows["4"][4:9] == ["8.0", "kB", "│", "5.0", "kB"]
    assert not (tmp_path / "out" / "delphes_ttbar" / TTBAR[0]).exists()


def test_too_little_space_is_said_before_anything_is_written(fetch, archive, monkeypatch, tmp_path):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage(10**6, 0, 5999))
    with pytest.raises(DataError, match=r"6\.0 kB to fetch, 6\.0 kB free"):
        fetch()
    assert fetched_names(archive) == set()
    assert not (tmp_path / "out").exists()


def test_second_download_into_the_directory_is_refused(fetch, archive, tmp_path):
    (tmp_path / "out" / download.STATE_FOLDER).mkdir(parents=True)
    with (
        locked(tmp_path / "out" / download.STATE_FOLDER / "lock", "test"),
        pytest.raises(OutputExists, match="is at work there"),
    ):
        fetch()
    assert fetched_names(archive) == set()


def test_two_different_files_of_one_name_are_reported(fetch, archive, monkeypatch):
    twice = [archive.entry(QCD), archive.entry(QCD) | {"size": 3}]
    monkeypatch.setattr(archive, "listing", lambda: {"files": twice})
    with pytest.raises(DataError, match="1 of 2 files failed"):
        fetch(("delphes_qcd",))


def test_interrupt_begins_no_further_file(fetch, archive, monkeypatch):
    calls = []

    def interrupted(self, file, place, report):
        calls.append(file.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(download.Client, "fetch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch((), record=RECORD, workers=1)
    assert len(calls) < len(archive.files)


def test_interrupt_ends_transfers_under_way(fetch, monkeypatch):
    stopped = []

    def interrupted(self, file, place, report):
        if file.name == QCD:
            raise KeyboardInterrupt
        stopped.append(self._stop.wait(20))
        raise DataError("stopped")

    monkeypatch.setattr(download.Client, "fetch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(("delphes_ttbar", "delphes_qcd"), workers=4)
    assert stopped == [True] * 3


def mlpf(*arguments):
    command = [sys.executable, "-m", "mlpf.pipeline", "download", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_command_line_fetches_and_fails_with_one_line(archive, tmp_path):
    done = mlpf("delphes_qcd", "-o", tmp_path, "--api", archive.api, "-j", 1)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "delphes_qcd" / QCD).read_bytes() == archive.files[QCD]
    archive.faults[TTBAR[0]] = [404]
    done = mlpf("delphes_ttbar", "-o", tmp_path, "--api", archive.api)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: {tmp_path}: 1 of 3 files failed; run the same command again to fetch what is missing"
    ]


def test_command_line_lists_samples_and_asks_for_what_is_missing(tmp_path):
    done = mlpf("--list")
    assert done.returncode == 0
    assert "delphes_ttbar" in done.stdout
    assert "name a SAMPLE" in mlpf("-o", tmp_path).stderr
    assert "directory with -o" in mlpf("delphes_ttbar").stderr


def test_help_and_list_load_nothing_heavy():
    assert modules_loaded_by("download", "--help").isdisjoint(HEAVY)
    assert modules_loaded_by("download", "--list").isdisjoint(HEAVY)
