import bz2
import hashlib
import pickle

import numpy as np
import pytest

from mlpf.data.conversion import BAD_NUMBERS
from mlpf.data.delphes import conversions as delphes_pickle
from mlpf.data.delphes.conversions import (
    BAD_SHAPE,
    PUBLISHED_TRUTH_VERSION,
    UNKNOWN_CLASS,
    UNKNOWN_TYPE,
    PickleConversion,
)
from mlpf.data.delphes.reader import BAD_LENGTHS
from mlpf.data.delphes.truth import DELPHES_TRUTH_VERSION
from mlpf.data.events import Events
from mlpf.data.formats import open_conversion
from mlpf.errors import DataError
from mlpf.physics.features import PARTICLE_COLUMNS
from mlpf.physics.schemas import SCHEMAS
from tests.support.conversions import assert_same_events, converted
from tests.support.delphes_files import (
    HandDelphes,
    published_event,
    simple_delphes,
    write_delphes,
    write_pickle,
)


def test_a_file_becomes_events_of_tracks_and_towers(tmp_path):
    events = converted(write_delphes(tmp_path / "a.root", [simple_delphes(), simple_delphes(20.0)]))
    events.check("here")
    assert events.schema is SCHEMAS["delphes"]
    assert events.scalars["event"].tolist() == [0, 1]
    assert events["track"]["ygen"][:, 2].tolist() == [10.0, 20.0]
    assert events.metadata["truth_version"] == DELPHES_TRUTH_VERSION
    assert events.metadata["events_read"] == 2


def test_events_that_cannot_be_used_are_left_out_and_counted(tmp_path):
    wrong, broken = simple_delphes(), simple_delphes()
    wrong.towers[0]["Particles_size"] = 5
    broken.tracks[0]["PT"] = np.nan
    beam = simple_delphes()
    beam.tracks[0]["Eta"] = 999.9  # its momentum overflows
    events = [simple_delphes(), wrong, HandDelphes(), broken, beam, simple_delphes()]
    kept = converted(write_delphes(tmp_path / "a.root", events))
    kept.check("here")
    assert kept.scalars["event"].tolist() == [0, 5]
    assert kept.metadata["skipped"] == {BAD_LENGTHS: 1, "no tracks and no towers": 1, BAD_NUMBERS: 2}


def test_what_is_unusual_is_counted(tmp_path):
    event = simple_delphes()
    event.track(0)
    events = converted(write_delphes(tmp_path / "a.root", [event, event]))
    assert events.metadata["counters"] == {"null references": 2, "tracks without particle": 2}


NONE, CHARGED, NEUTRAL, PHOTON, ELECTRON, MUON = range(6)
TRACK, TOWER = 2, 1


def row(cls, charge=0.0, pt=1.0, eta=0.0, energy=2.0):
    return [cls, charge, pt, eta, 0.6, 0.8, energy]


def good_event():
    return published_event([row(CHARGED, 1.0), row(PHOTON)], kinds=[TRACK, TOWER])


def prepare(path):
    events = converted(path)
    events.check("here")
    return events, events.metadata


def column(events, kind, field, name):
    return events[kind][field][:, PARTICLE_COLUMNS.index(name)].tolist()


def test_tracks_and_towers_are_told_apart_by_their_type(tmp_path):
    event = published_event(
        [row(MUON, 1.0), row(CHARGED, 1.0), row(PHOTON), row(NONE)], kinds=[TRACK, TRACK, TOWER, TOWER]
    )
    events, metadata = prepare(write_pickle(tmp_path / "a.pkl", [event, good_event()]))
    assert events["track"].counts.tolist() == [2, 1]
    assert events["tower"].counts.tolist() == [2, 1]
    assert events["track"]["X"][:, 1].tolist() == [1, 2, 1]
    assert events["tower"]["X"][:, 1].tolist() == [3, 4, 2]
    assert column(events, "track", "ygen", "cls") == [MUON, CHARGED, CHARGED]
    assert column(events, "tower", "ygen", "cls") == [PHOTON, NONE, PHOTON]
    assert events["tower"]["ygen"][1].tolist() == [0.0] * 7
    assert (metadata["events_read"], metadata["truth_version"]) == (2, PUBLISHED_TRUTH_VERSION)


def test_the_charge_of_leptons_is_turned_round(tmp_path):
    # Published: the sign of the PDG code, which is positive for negative leptons.
    targets = [row(ELECTRON, 1.0), row(MUON, -1.0), row(CHARGED, -1.0), row(NEUTRAL)]
    events, _ = prepare(write_pickle(tmp_path / "a.pkl", [published_event(targets)]))
    assert column(events, "track", "ygen", "charge") == [-1.0, 1.0, -1.0, 0.0]


def test_the_charge_of_candidates_is_right_already(tmp_path):
    event = published_event([row(NONE)] * 2, [row(ELECTRON, -1.0), row(CHARGED, 1.0)])
    events, _ = prepare(write_pickle(tmp_path / "a.pkl", [event]))
    assert column(events, "track", "ycand", "charge") == [-1.0, 1.0]


def test_neutral_candidates_get_their_pt(tmp_path):
    candidates = [row(PHOTON, pt=0.0, eta=2.0, energy=10.0), row(NEUTRAL, pt=0.0, eta=-1.0, energy=20.0)]
    events, _ = prepare(write_pickle(tmp_path / "a.pkl", [published_event([row(NONE)] * 2, candidates)]))
    assert column(events, "track", "ycand", "pt") == pytest.approx([10.0 / np.cosh(2.0), 20.0 / np.cosh(1.0)])
    assert column(events, "track", "ycand", "energy") == [10.0, 20.0]


def test_charged_candidates_get_their_energy(tmp_path):
    candidates = [
        row(cls, -1.0, 3.0, eta, 0.0) for cls, eta in ((CHARGED, -2.0), (ELECTRON, 2.0), (MUON, 0.0))
    ]
    events, _ = prepare(write_pickle(tmp_path / "a.pkl", [published_event([row(NONE)] * 3, candidates)]))
    assert column(events, "track", "ycand", "energy") == pytest.approx([3 * np.cosh(2), 3 * np.cosh(2), 3.0])
    assert column(events, "track", "ycand", "pt") == [3.0] * 3


def test_candidates_that_are_complete_stay(tmp_path):
    candidates = [row(PHOTON, 0.0, 4.0, 2.0, 10.0), row(CHARGED, 1.0, 4.0, 2.0, 10.0)]
    events, _ = prepare(write_pickle(tmp_path / "a.pkl", [published_event([row(NONE)] * 2, candidates)]))
    assert column(events, "track", "ycand", "pt") == [4.0, 4.0]
    assert column(events, "track", "ycand", "energy") == [10.0, 10.0]


def broken(**changes):
    return {**good_event(), **changes}


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (broken(X=np.ones((2, 11))), BAD_SHAPE),
        (broken(X=np.ones(12)), BAD_SHAPE),
        (broken(ygen=np.ones((3, 7))), BAD_SHAPE),
        (broken(ycand=np.ones((2, 8))), BAD_SHAPE),
        (broken(X=np.full((2, 12), 3.0)), UNKNOWN_TYPE),
        (broken(X=np.full((2, 12), np.nan)), UNKNOWN_TYPE),
        (broken(X=np.where(np.arange(12) == 5, np.inf, good_event()["X"])), BAD_NUMBERS),
        (broken(X=np.where(np.arange(12) == 5, 1e300, good_event()["X"])), BAD_NUMBERS),
        (broken(ygen=np.full((2, 7), 6.0)), UNKNOWN_CLASS),
        (broken(ygen=np.full((2, 7), 0.5)), UNKNOWN_CLASS),
        (broken(ycand=np.full((2, 7), np.nan)), UNKNOWN_CLASS),
        (broken(ycand=np.array([row(CHARGED, 1.0, 1.0, 800.0, 0.0)] * 2)), BAD_NUMBERS),
        (published_event(), "no tracks and no towers"),
    ],
)
def test_a_broken_event_is_left_out_and_counted(tmp_path, event, reason):
    path = write_pickle(tmp_path / "a.pkl", [good_event(), event, good_event()])
    events, metadata = prepare(path)
    assert metadata["skipped"] == {reason: 1}
    assert events.scalars["event"].tolist() == [0, 2]
    good, _ = prepare(write_pickle(tmp_path / "b.pkl", [good_event()]))
    for i in (0, 1):
        for name, table in good.tables.items():
            for key, rows in table.columns.items():
                np.testing.assert_array_equal(events.take(np.array([i]))[name][key], rows)


def test_chunks_hold_the_same_as_the_whole(tmp_path, monkeypatch):
    events = [published_event([row(CHARGED, 1.0, 1.0 + i)] * (1 + i % 3)) for i in range(7)]
    path = write_pickle(tmp_path / "a.pkl", events)
    whole, _ = prepare(path)
    monkeypatch.setattr(delphes_pickle, "CHUNK_EVENTS", 3)
    with open_conversion(path) as conversion:
        chunks = list(conversion.chunks())
    assert [chunk.scalars["event"].tolist() for chunk in chunks] == [[0, 1, 2], [3, 4, 5], [6]]
    assert_same_events(Events.concatenate(chunks), whole)


def test_compressed_files_read_the_same(tmp_path):
    plain = write_pickle(tmp_path / "a.pkl", [good_event()])
    packed = tmp_path / "a.pkl.bz2"
    packed.write_bytes(bz2.compress(plain.read_bytes()))
    packed.with_name("a.pkl.bz2.md5").write_text(
        hashlib.md5(packed.read_bytes()).hexdigest() + "  a.pkl.bz2\n", encoding="utf-8"
    )
    assert_same_events(prepare(packed)[0], prepare(plain)[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"X": [], "ygen": []}, "holds X, ygen, expected X, ygen, ycand"),
        ({}, "holds nothing, expected"),
        ({"a\n\x1b[2J": []}, r"holds a\\n\\x1b\[2J, expected"),
        (
            {"X": [np.ones((1, 12))], "ygen": [], "ycand": []},
            r"X, ygen, ycand differ in number of events \(1, 0, 0\)",
        ),
    ],
)
def test_another_layout_is_refused(tmp_path, content, message):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(content, protocol=3))
    with pytest.raises(DataError, match=message) as error:
        prepare(path)
    assert str(path) in str(error.value)


def test_the_size_limit_holds(tmp_path, monkeypatch):
    path = write_pickle(tmp_path / "a.pkl", [good_event() for _ in range(50)])
    monkeypatch.setattr(PickleConversion, "max_bytes", 5000)
    with pytest.raises(DataError, match="holds more than"):
        prepare(path)
