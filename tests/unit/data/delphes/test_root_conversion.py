import numpy as np

from mlpf.data.delphes.conversion import EMPTY_EVENT, NOT_FINITE, SCHEMA
from mlpf.data.delphes.reader import BAD_LENGTHS
from mlpf.data.delphes.root_conversion import DelphesPreparation
from mlpf.data.delphes.truth import DELPHES_TRUTH_VERSION
from mlpf.data.events import concatenate
from tests.support.delphes_files import HandDelphes, simple_delphes, write_delphes


def test_a_file_becomes_events_of_tracks_and_towers(tmp_path):
    preparation = DelphesPreparation(
        write_delphes(tmp_path / "a.root", [simple_delphes(), simple_delphes(20.0)])
    )
    (events,) = preparation.chunks()
    events.check("here")
    assert events.schema is SCHEMA
    assert events.scalars["event"].tolist() == [0, 1]
    assert events.jagged["ygen_track"].values[:, 2].tolist() == [10.0, 20.0]
    assert preparation.metadata["truth_version"] == DELPHES_TRUTH_VERSION
    assert preparation.metadata["events_read"] == 2


def test_events_that_cannot_be_used_are_left_out_and_counted(tmp_path):
    wrong, broken = simple_delphes(), simple_delphes()
    wrong.towers[0]["Particles_size"] = 5
    broken.tracks[0]["PT"] = np.nan
    beam = simple_delphes()
    beam.tracks[0]["Eta"] = 999.9  # its momentum overflows
    events = [simple_delphes(), wrong, HandDelphes(), broken, beam, simple_delphes()]
    preparation = DelphesPreparation(write_delphes(tmp_path / "a.root", events))
    kept = concatenate(list(preparation.chunks()), {}, SCHEMA)
    kept.check("here")
    assert kept.scalars["event"].tolist() == [0, 5]
    assert preparation.metadata["skipped"] == {BAD_LENGTHS: 1, EMPTY_EVENT: 1, NOT_FINITE: 2}


def test_what_is_unusual_is_counted(tmp_path):
    event = simple_delphes()
    event.track(0)
    preparation = DelphesPreparation(write_delphes(tmp_path / "a.root", [event, event]))
    list(preparation.chunks())
    assert preparation.metadata["counters"] == {"null references": 2, "tracks without particle": 2}
