import bz2
import pickle

import numpy as np
import pytest
import uproot

from mlpf.errors import DataError
from mlpf.physics.features import PARTICLE_COLUMNS
from mlpf.simulation.delphes import writer as delphes_writer
from mlpf.simulation.delphes.simulate import simulate_event
from mlpf.simulation.delphes.writer import DelphesProvenance, published_form, read_provenance, write_events
from tests.support.conversions import assert_same_events, converted
from tests.support.proton_collisions import FakeGenerator

PROVENANCE = DelphesProvenance("delphes_qcd", 3, 100, 5, 7.5)
FILES = ("a.root", "a.pkl.bz2")


@pytest.fixture(scope="module")
def events():
    return [simulate_event(FakeGenerator(600), number) for number in range(5)]


@pytest.fixture(scope="module")
def folder(events, tmp_path_factory):
    path = tmp_path_factory.mktemp("written")
    for name in FILES:
        write_events(path / name, events, PROVENANCE)
    return path


@pytest.fixture(scope="module")
def prepared(folder):
    result = {}
    for name in FILES:
        result[name] = converted(folder / name)
        assert result[name].metadata["skipped"] == {}
    return result


def test_both_formats_read_as_the_same_events(prepared):
    root, pickled = prepared["a.root"], prepared["a.pkl.bz2"]
    assert len(root) == 5
    assert all(len(table) > 300 for table in root.tables.values())
    assert_same_events(pickled, root, rtol=1e-6)


def test_the_root_file_holds_what_was_simulated(events, folder, monkeypatch):
    monkeypatch.setattr(delphes_writer, "EVENTS_PER_CHUNK", 2)
    path = folder / "b.root"
    write_events(path, events, PROVENANCE)
    with uproot.open(path) as file:
        tree = file["Delphes"]
        for branch, table in (("Track", "tracks"), ("Tower", "towers"), ("PileUpMix", "particles")):
            written = tree[f"{branch}.Eta"].array()
            for found, event in zip(written, events, strict=True):
                np.testing.assert_array_equal(found, getattr(event, table)["eta"])
        ids = tree["PileUpMix.fUniqueID"].array()
        references = tree["Track.Particle"].array()
        for found, unique, event in zip(references, ids, events, strict=True):
            np.testing.assert_array_equal(found, unique[event.track_particle])


def test_the_pickle_has_the_published_form(folder, prepared):
    content = pickle.loads(bz2.decompress((folder / "a.pkl.bz2").read_bytes()))  # noqa: S301 - our own
    assert list(content) == ["X", "ygen", "ycand"]
    assert {array.dtype.str for arrays in content.values() for array in arrays} == {"<f8"}
    assert {key: arrays[0].shape[1] for key, arrays in content.items()} == {"X": 12, "ygen": 7, "ycand": 7}
    column = {name: PARTICLE_COLUMNS.index(name) for name in PARTICLE_COLUMNS.names}
    num_leptons = 0
    for x, ygen, ycand in zip(*content.values(), strict=True):
        assert (np.diff(x[:, 0]) <= 0).all()  # tracks (2) first, then towers (1)
        neutral, charged = np.isin(ycand[:, 0], (2, 3)), np.isin(ycand[:, 0], (1, 4, 5))
        assert (ycand[neutral, column["pt"]] == 0).all()
        assert (ycand[neutral, column["energy"]] > 0).all()
        assert (ycand[charged, column["energy"]] == 0).all()
        assert (ycand[charged, column["pt"]] > 0).all()
        # Leptons of targets are turned round; x holds the charge of tracks.
        tracks = x[:, 0] == 2
        leptons, hadrons = tracks & np.isin(ygen[:, 0], (4, 5)), tracks & (ygen[:, 0] == 1)
        num_leptons += leptons.sum()
        assert (ygen[leptons, column["charge"]] == -x[leptons, 9]).all()
        assert (ygen[hadrons, column["charge"]] == x[hadrons, 9]).all()
    assert num_leptons > 5


def test_protocol_and_imports_are_those_of_the_published_files(folder):
    content = bz2.decompress((folder / "a.pkl.bz2").read_bytes())
    assert content[:2] == b"\x80\x03"
    assert content.count(b"_reconstruct") == 1


def test_published_form_gives_one_row_per_element(events):
    form = published_form(events[0])
    assert {len(rows) for rows in form.values()} == {len(events[0].tracks) + len(events[0].towers)}


@pytest.mark.parametrize("name", FILES)
def test_provenance_comes_back(folder, name):
    assert read_provenance(folder / name) == PROVENANCE


@pytest.mark.parametrize("name", FILES)
def test_a_file_without_provenance_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(DataError, match="not a file written by `mlpf simulate`"):
        read_provenance(tmp_path / name)


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_left_of_a_file_that_fails(events, tmp_path, name):
    def failing():
        yield events[0]
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_events(tmp_path / name, failing(), PROVENANCE)
    with pytest.raises(ValueError, match="no events"):
        write_events(tmp_path / name, [], PROVENANCE)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_pickle_is_told_by_its_checksum(folder, tmp_path):
    for path in folder.glob("a.pkl*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    damaged = tmp_path / "a.pkl.bz2"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="has md5"):
        converted(damaged)
