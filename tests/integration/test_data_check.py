import errno
import re
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from mlpf.cli import main
from mlpf.data.dataset.folder import find_dataset
from mlpf.errors import DataError, OutputNotWritable
from mlpf.physics.features import PARTICLE_COLUMNS, TARGETS, TRACK_FEATURES
from mlpf.physics.schemas import SCHEMAS
from mlpf.workflows import data_check
from tests.support.datasets import write_dataset
from tests.support.fake_split import fake_event

NUM_EVENTS = {"train": 12, "test": 5}


def make_events(split, gen=True):
    rng = np.random.default_rng(len(split))
    events = [fake_event(rng, 6 + i, f"{split}_{i}") for i in range(NUM_EVENTS[split])]
    for event in events if gen else ():
        particles = event["ygen"][:, : len(PARTICLE_COLUMNS)].copy()
        particles[:, PARTICLE_COLUMNS.index("energy")] *= 2
        event["gen_particles"] = particles
    return events


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def no_figures(monkeypatch):
    """Figures take most of the time; remember which tables would be drawn."""
    drawn = []

    def remember(checks, binning, output, console):
        drawn.extend(binning)
        return []

    monkeypatch.setattr(data_check, "_draw", remember)
    return drawn


@pytest.fixture
def splits():
    return {split: make_events(split) for split in NUM_EVENTS}


def plain(text):
    return " ".join(re.sub(r"[│┃]", " ", text).split())


def test_good_dataset_is_counted_and_drawn(splits, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(data_check, "CHUNK", 5)
    # what is in a figure is tested in test_columns; to draw it takes seconds
    monkeypatch.setattr(data_check, "column_distributions", lambda *_: Figure(figsize=(1, 1)))
    version = write_dataset(tmp_path, splits)
    summary = data_check.run(version)
    assert summary.num_events == NUM_EVENTS
    assert summary.findings == ()
    assert [p.name for p in summary.figures] == [
        "tracks.png",
        "clusters.png",
        "targets.png",
        "candidates.png",
        "gen_particles.png",
    ]
    assert all(p.parent == version / "check" and p.stat().st_size > 100 for p in summary.figures)
    out = plain(capsys.readouterr().out)
    assert "events 12 5" in out
    assert "elements per event 6 / 11.5 / 17 6 / 8.0 / 10" in out
    assert "ygen 0.500 (0.500, 0.500, 0.500) 0.500" in out
    assert "gen_particles 1.000" not in out


def test_published_dataset_is_checked_against_its_targets(splits, tmp_path, capsys, no_figures):
    for events in splits.values():
        for event in events:
            del event["gen_particles"]
    version = write_dataset(tmp_path, splits, published=True)
    summary = data_check.run(version.parent, tmp_path / "figures")
    assert summary.num_events == NUM_EVENTS  # nothing is held out of train
    assert no_figures == ["tracks", "clusters", "targets", "candidates"]
    out = plain(capsys.readouterr().out)
    assert "energy / energy of ygen" in out
    assert "ycand 1.000 (1.000, 1.000, 1.000)" in out


@pytest.mark.parametrize(
    ("schema", "metadata", "drawn"),
    [
        ("clic_hits", {}, ["tracks", "hits"]),
        ("delphes", {"schema": "delphes"}, ["tracks", "towers"]),
    ],
)
def test_sets_of_hits_and_of_delphes(tmp_path, no_figures, capsys, rng, schema, metadata, drawn):
    kinds = SCHEMAS[schema].kinds
    events = []
    for i in range(4):
        event = fake_event(rng, 8, f"e_{i}")
        x = rng.normal(0, 1, (8, SCHEMAS[schema].num_features)).astype(np.float32)
        x[:, 0] = [kinds[0].elemtype] * 3 + [kinds[1].elemtype] * 5
        # published sets of hits have no rank of the jet
        cut = {name: event[name][:, :-1] if not metadata else event[name] for name in ("ygen", "ycand")}
        events.append({**event, "X": x, **cut})
    version = write_dataset(tmp_path, {"train": events}, published=not metadata, metadata=metadata)
    assert find_dataset(version).schema.name == schema
    summary = data_check.run(version, tmp_path / "figures")
    assert summary.num_events == {"train": 4}
    assert summary.findings == ()
    assert no_figures == [*drawn, "targets", "candidates"]
    assert f"{drawn[1]} per event 5 / 5.0 / 5" in plain(capsys.readouterr().out)


def test_faults_are_named_with_their_place(splits, tmp_path, capsys, no_figures):
    splits["test"][3]["X"][0, TRACK_FEATURES.index("cos_phi")] = np.nan
    splits["test"][1]["ygen"][0, TARGETS.index("cls")] = 17
    splits["test"][2] = {**splits["train"][7]}
    version = write_dataset(tmp_path, splits)
    with pytest.raises(DataError, match=r"1\.5\.0: 4 problem\(s\), e\.g\. "):
        data_check.run(version, tmp_path / "figures")
    lines = re.sub(r"event \d+", "event", capsys.readouterr().out).splitlines()
    assert [line for line in lines if line.startswith("problem")] == [
        "problem: X of tracks: cos_phi is NaN or infinite: 1 x (test event (test_3))",
        "problem: ygen: class is not 0 to 5: 1 x (test event (test_1))",
        "problem: the same name in two splits: 1 x (train event (train_7) = test event (train_7))",
        "problem: the same content in two splits: 1 x (train event (train_7) = test event (train_7))",
    ]


def test_one_damaged_record_is_counted_and_the_others_are_read(
    splits, tmp_path, capsys, monkeypatch, no_figures
):
    version = write_dataset(tmp_path, splits)
    fetch = data_check.PreparedSplit.fetch

    def damaged(self, indices, fields=("X", "ygen")):
        if self.split == "train" and 3 in list(indices):
            raise DataError("damaged")
        return fetch(self, indices, fields)

    monkeypatch.setattr(data_check.PreparedSplit, "fetch", damaged)
    with pytest.raises(DataError, match=r"record cannot be read: 1 x \(train event 3\)"):
        data_check.run(version, tmp_path / "figures")
    assert "events 11 5" in plain(capsys.readouterr().out)


def test_folders_that_are_no_dataset_say_what_to_give(splits, tmp_path):
    with pytest.raises(DataError, match="no prepared dataset"):
        find_dataset(tmp_path)
    version = write_dataset(tmp_path, splits, published=True)
    assert find_dataset(version.parent).path == version
    assert find_dataset(version).schema.name == "clic"
    (version.parent / "1.6.0").mkdir()
    (version.parent / "1.6.0" / "dataset_info.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=r"has versions 1\.5\.0, 1\.6\.0"):
        find_dataset(version.parent)
    with pytest.raises(DataError, match="damaged"):
        find_dataset(version.parent / "1.6.0")
    (version.parent / "1.6.0" / "dataset_info.json").write_text('{"splits": []}', encoding="utf-8")
    with pytest.raises(DataError, match="lists no splits"):
        find_dataset(version.parent / "1.6.0")
    features = version / "features.json"
    features.write_text(features.read_text(encoding="utf-8").replace('"17"', '"18"'), encoding="utf-8")
    with pytest.raises(DataError, match=r"X has 18 columns, expected .*clic 17"):
        find_dataset(version)


def test_a_dataset_without_room_for_figures_is_checked_all_the_same(splits, tmp_path, capsys, no_figures):
    version = write_dataset(tmp_path, splits)
    (version / "check").touch()
    summary = data_check.run(version)
    assert (summary.num_events, summary.figures) == (NUM_EVENTS, ())
    assert no_figures == []
    out = capsys.readouterr().out
    assert f"{version}/check: cannot be written (File exists): no figures; give a directory" in out
    assert "events 12 5" in plain(out)


def test_an_unusable_directory_for_figures_is_refused_before_reading(splits, tmp_path, monkeypatch):
    version = write_dataset(tmp_path, splits)
    monkeypatch.setattr(data_check, "_sample", lambda *_: pytest.fail("events were read"))
    with pytest.raises(OutputNotWritable, match=r"check: cannot be written \(Not a directory\).*with -o"):
        data_check.run(version, version / "dataset_info.json" / "check")


def test_tables_and_findings_are_printed_before_figures_fail(splits, tmp_path, capsys, monkeypatch):
    splits["train"][0]["ygen"][0, TARGETS.index("energy")] = np.inf
    version = write_dataset(tmp_path, splits)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    monkeypatch.setattr(data_check, "column_distributions", lambda *_: Figure(figsize=(1, 1)))
    with pytest.raises(
        OutputNotWritable, match=r"tracks\.png: cannot be written \(No space left on device\)"
    ):
        data_check.run(version, tmp_path / "figures")
    out = plain(capsys.readouterr().out)
    assert "events 12 5" in out
    assert "problem: ygen: energy is NaN or infinite" in out
    assert list((tmp_path / "figures").iterdir()) == []


def test_command_ends_with_one_line(splits, tmp_path, capsys, monkeypatch, no_figures):
    splits["train"][0]["ygen"][0, TARGETS.index("energy")] = np.inf
    version = write_dataset(tmp_path, splits)
    monkeypatch.setattr(sys, "argv", ["mlpf", "data", "check", str(version), "-o", str(tmp_path / "c")])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {version}: 1 problem(s), e.g. ygen: energy is NaN or infinite: 1 x (")
