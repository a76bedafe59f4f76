import awkward as ak
import numpy as np
import pytest
import uproot

from mlpf.data.edm4hep.collection_ids import collection_ids, murmur3_32, positions, read_id_table
from mlpf.errors import DataError
from tests.support.edm4hep_files import IDS, simple_event, write_edm4hep


@pytest.mark.parametrize(
    ("text", "number"),
    [
        # ids of a file written by podio 1.1
        ("MCParticleCollection", 4183352422),
        ("TrackCollection", 3879596180),
        # every length modulo 4, and bytes beyond ASCII: the library mmh3
        ("", 0),
        ("a", 1009084850),
        ("abc", 3017643002),
        ("ECALBarrel", 1265367388),
        ("HCALBarrel", 124629188),
    ],
)
def test_hash(text, number):
    assert murmur3_32(text) == number


@pytest.mark.parametrize("kind", ["metadata", "idTable", "typeInfo"])
def test_each_table_gives_the_ids_of_the_events(tmp_path, kind):
    path = write_edm4hep(tmp_path / "a.root", [simple_event()], ids=kind)
    with uproot.open(path) as file:
        table, place = read_id_table(file)
    assert table == IDS
    assert "podio_metadata/events___" in place or kind == "metadata"


def test_a_file_without_table_gives_none(tmp_path):
    path = write_edm4hep(tmp_path / "a.root", [simple_event()], ids=None)
    with uproot.open(path) as file:
        assert read_id_table(file) == ({}, "")


def test_a_negative_id_is_the_same_as_its_unsigned_form(tmp_path):
    path = tmp_path / "a.root"
    with uproot.recreate(path) as file:
        file["metadata"] = {"m_names": ak.Array([["MUON"]]), "m_collectionIDs": ak.Array([[-2]])}
    with uproot.open(path) as file:
        table, _ = read_id_table(file)
    ids = collection_ids(table, ["MUON"], old_references=True, where="a")
    assert positions(np.array([-2, 2**32 - 2, 2]), ids).tolist() == [0, 0, -1]


def test_new_files_need_no_table():
    ids = collection_ids({}, ["HCALBarrel", "ECALBarrel"], old_references=False, where="a")
    assert ids == {124629188: 0, 1265367388: 1}


def test_the_table_wins_over_the_hash_and_gaps_are_filled():
    ids = collection_ids({"ECALBarrel": 7}, ["HCALBarrel", "ECALBarrel"], old_references=False, where="a")
    assert ids == {124629188: 0, 7: 1}
    assert collection_ids({"ECALBarrel": 7}, ["MUON", "ECALBarrel"], old_references=True, where="a") == {7: 1}


def test_old_files_need_a_table():
    with pytest.raises(DataError, match=r"^a\.root: no table of collection ids"):
        collection_ids({}, ["ECALBarrel"], old_references=True, where="a.root")
