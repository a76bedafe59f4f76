"""Which file is read how, and what a file of no known format provokes."""

import bz2

import numpy as np
import pytest
import uproot

from mlpf.data.delphes.conversions import DelphesConversion, PickleConversion
from mlpf.data.edm4hep.conversion import Edm4hepConversion
from mlpf.data.formats import FORMATS, SUFFIXES, open_conversion
from mlpf.errors import DataError
from tests.support.delphes_files import published_event, simple_delphes, write_delphes, write_pickle
from tests.support.edm4hep_files import simple_event, write_edm4hep


def write(kind, folder):
    if kind == "edm4hep":
        return write_edm4hep(folder / "a.root", [simple_event()])
    if kind == "renamed":
        return write_edm4hep(folder / "a.root.copy", [simple_event()])
    if kind == "delphes":
        return write_delphes(folder / "a.root", [simple_delphes()])
    path = write_pickle(folder / "a.pkl", [published_event(ygen=np.zeros((2, 7)), kinds=(2, 1))])
    if kind == "pickle":
        return path
    packed = folder / "a.pkl.bz2"
    packed.write_bytes(bz2.compress(path.read_bytes()))
    return packed


@pytest.mark.parametrize(
    ("kind", "conversion", "schemas"),
    [
        ("edm4hep", Edm4hepConversion, {"clusters": "clic", "hits": "clic_hits"}),
        ("renamed", Edm4hepConversion, {"clusters": "clic", "hits": "clic_hits"}),
        ("delphes", DelphesConversion, {"clusters": "delphes"}),
        ("pickle", PickleConversion, {"clusters": "delphes"}),
        ("packed", PickleConversion, {"clusters": "delphes"}),
    ],
)
def test_the_content_of_a_file_decides(tmp_path, kind, conversion, schemas):
    path = write(kind, tmp_path)
    for elements in ("clusters", "hits"):
        if elements in schemas:
            with open_conversion(path, elements) as found:
                assert type(found) is conversion
                assert found.schema.name == schemas[elements]
                assert sum(len(events) for events in found.chunks()) == 1
            continue
        with pytest.raises(DataError, match=r"has tracks and towers, no hits; drop --elements$"):
            open_conversion(path, elements).__enter__()


def test_formats_differ_in_name_and_every_suffix_is_searched_for():
    assert len({known.name for known in FORMATS}) == len(FORMATS)
    assert SUFFIXES == (".root", ".pkl", ".pkl.bz2")


def test_a_root_file_of_something_else_lists_what_it_has(tmp_path):
    with uproot.recreate(tmp_path / "a.root") as file:
        file["other"] = {"x": np.zeros(3)}
        file["metadata"] = {"x": np.zeros(3)}
    with pytest.raises(
        DataError, match=r"a\.root: no file of EDM4HEP or Delphes or .*, found metadata, other; give"
    ):
        open_conversion(tmp_path / "a.root").__enter__()


@pytest.mark.parametrize("name", ["gone.root", "gone.pkl"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(DataError, match=rf"{name}: no such file"):
        open_conversion(tmp_path / name).__enter__()
