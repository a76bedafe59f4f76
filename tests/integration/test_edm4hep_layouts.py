"""The same events in every layout of EDM4HEP, and files that podio itself wrote, where those are at hand."""

from dataclasses import fields

import numpy as np
import pytest
import uproot
from click.testing import CliRunner

from mlpf.cli import cli
from mlpf.data.edm4hep import describe, read_events
from mlpf.data.preparation import prepare_file
from mlpf.data.tables import Relation, Table
from mlpf.errors import DataError, OutputExists
from mlpf.simulation.edm4hep_layouts import LAYOUT_NAMES
from mlpf.simulation.edm4hep_writer import Provenance, read_provenance
from mlpf.workflows import simulate

SAMPLE = "single_pi"
NEW_LAYOUTS = [name for name in LAYOUT_NAMES if name != "old"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same twelve events in each layout, written in chunks of five."""
    from mlpf.simulation import edm4hep_writer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edm4hep_writer, "EVENTS_PER_CHUNK", 5)
        return {
            name: simulate.run(SAMPLE, 12, tmp_path_factory.mktemp(name), layout=name)[0]
            for name in LAYOUT_NAMES
        }


def arrays_of(raw) -> dict[str, np.ndarray]:
    """Every array of a chunk."""
    out = {"number": raw.number}
    for field in fields(raw):
        value = getattr(raw, field.name)
        if isinstance(value, Table):
            out |= {f"{field.name}.{name}": column for name, column in value.columns.items()}
            out[f"{field.name} offsets"] = value.offsets
        elif isinstance(value, Relation):
            out |= {f"{field.name}.{end}": getattr(value, end) for end in ("source", "target", "weight")}
    return out | {f"bad {reason}": bad for reason, bad in raw.bad.items()}


@pytest.mark.parametrize("layout", NEW_LAYOUTS)
@pytest.mark.parametrize("chunk_events", [7, 200])
def test_events_are_equal_bit_by_bit(files, layout, chunk_events):
    chunks = zip(
        read_events(files["old"], chunk_events), read_events(files[layout], chunk_events), strict=True
    )
    for old, new in chunks:
        one, other = arrays_of(old), arrays_of(new)
        assert one.keys() == other.keys()
        assert one["hits.x"].size > 0
        assert [
            n for n in one if one[n].dtype != other[n].dtype or one[n].tobytes() != other[n].tobytes()
        ] == []
        assert +old.counters == +new.counters


@pytest.mark.parametrize("layout", NEW_LAYOUTS)
def test_what_training_sees_is_equal(files, layout):
    old, new = prepare_file(files["old"]), prepare_file(files[layout])
    assert len(old) == 12
    for name, jagged in old.jagged.items():
        assert jagged.values.tobytes() == new.jagged[name].values.tobytes(), name
        assert jagged.offsets.tolist() == new.jagged[name].offsets.tolist(), name


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
def test_the_provenance_is_in_every_layout(files, layout):
    assert read_provenance(files[layout]) == Provenance(SAMPLE, 1, 0, 12, layout)


def test_leaves_have_the_types_of_their_time(files):
    def type_of(layout, leaf):
        with uproot.open(files[layout]) as file:
            return str(file["events"][leaf].array().type.content).split(" * ")[-1]

    assert type_of("old", "MCParticles.momentum.x") == "float32"
    assert type_of("old", "PandoraClusters#1.collectionID") == "int32"
    for layout in NEW_LAYOUTS:
        assert type_of(layout, "MCParticles.momentum.x") == "float64"
        assert type_of(layout, "_PandoraClusters_hits.collectionID") == "uint32"
        assert type_of(layout, "SiTracks_Refitted_dQdx.dQdx.type") == "int16"


def test_each_layout_is_recognised(files):
    told = {name: describe(path) for name, path in files.items()}
    assert {name: d.layout for name, d in told.items()} == {
        "old": "TTree, relations by number (podio 0.16 and older)",
        "new": "TTree, relations by name (podio 0.17 and newer)",
        "rntuple": "RNTuple, relations by name (podio 0.17 and newer)",
    }
    assert told["old"].id_table == "metadata/m_names"
    assert told["rntuple"].id_table == "podio_metadata/events___idTable/m_names"
    assert {d.missing for d in told.values()} == {()}
    assert {d.num_events for d in told.values()} == {12}


def test_a_file_of_another_layout_is_not_taken_for_the_same(tmp_path):
    simulate.run(SAMPLE, 1, tmp_path)
    with pytest.raises(OutputExists, match=r"layout old.*asked for .*layout rntuple.*--overwrite"):
        simulate.run(SAMPLE, 1, tmp_path, layout="rntuple")


def test_the_command_writes_the_layout_asked_for(tmp_path):
    command = ["simulate", SAMPLE, "-n", "1", "-o", str(tmp_path), "--layout", "new"]
    result = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert read_provenance(tmp_path / "reco_single_pi_1.root").layout == "new"


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
@pytest.mark.parametrize("fraction", [0.02, 0.5, 0.98])
def test_a_truncated_file_has_no_provenance_and_no_events(files, tmp_path, layout, fraction):
    content = files[layout].read_bytes()
    path = tmp_path / "cut.root"
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(DataError, match=r"^\S*cut\.root: [^\n]*$"):
        list(read_events(path))
    with pytest.raises(DataError, match=r"cut\.root: not a complete file written by `mlpf simulate` [^\n]*$"):
        read_provenance(path)


@pytest.mark.parametrize(
    ("name", "layout", "num_events", "id_table", "tracks"),
    [
        ("podio_0.13_fcc_spring2021", "number", 100, "metadata/CollectionIDs/m_names", ["EFlowTrack"]),
        ("podio_1.1_p8_ee_WW_ecm240", "name", 10, "hashes of the names", ["EFlowTrack"]),
    ],
)
def test_files_of_podio_are_understood_and_what_they_lack_is_listed(
    repo_root, name, layout, num_events, id_table, tracks
):
    path = repo_root.parent / "shared" / "data" / f"{name}.root"
    if not path.is_file():
        pytest.skip("files of podio are not at hand")
    found = describe(path)
    assert f"relations by {layout}" in found.layout
    assert (found.num_events, found.id_table) == (num_events, id_table)
    assert found.look_alikes["particles"] == ["Particle"]
    assert found.look_alikes["clusters"] == ["EFlowNeutralHadron", "EFlowPhoton"]
    assert found.look_alikes["tracks"] == tracks
    with pytest.raises(DataError, match=r"missing MCParticles, .*PandoraClusters, .*; found .*EFlowTrack"):
        list(read_events(path))
