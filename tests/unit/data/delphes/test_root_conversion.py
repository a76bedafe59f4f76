import numpy as np

from mlpf.data.conversion import BAD_NUMBERS
from mlpf.data.delphes.reader import BAD_LENGTHS
from mlpf.data.delphes.truth import DELPHES_TRUTH_VERSION
from mlpf.physics.schemas import SCHEMAS
from tests.support.conversions import converted
from tests.support.delphes_files import HandDelphes, simple_delphes, write_delphes


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
