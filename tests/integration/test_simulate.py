"""Files of simulated events: reproducible, resumable, complete or absent."""

import errno
import os
from contextlib import contextmanager

import awkward as ak
import numpy as np
import pytest
import uproot

from mlpf.engine.opening import Placement
from mlpf.errors import DataError, MLPFError, OutputExists
from mlpf.files.locking import locked
from mlpf.physics.samples import CLIC_SAMPLES
from mlpf.simulation.clic import edm4hep_writer
from mlpf.simulation.clic.edm4hep_writer import Provenance, read_provenance
from mlpf.simulation.clic.event_data import HIT_COLLECTIONS
from mlpf.workflows import simulate

# A gun needs no Pythia, and its showers exercise every stage.
SAMPLE = "single_pi"


def content(paths):
    """Every leaf of all events, files joined."""
    trees = [uproot.open(path)["events"] for path in paths]
    return {name: ak.concatenate([t[name].array() for t in trees]) for name in trees[0].keys()}  # noqa: SIM118


def visible(folder):
    return [path.name for path in folder.iterdir() if not path.name.startswith(".")]


def assert_same_events(one, other):
    one, other = content(one), content(other)
    assert one.keys() == other.keys()
    assert [name for name in one if not ak.array_equal(one[name], other[name])] == []


@pytest.fixture(scope="module")
def ten_events(tmp_path_factory):
    return simulate.run(SAMPLE, 10, tmp_path_factory.mktemp("ten"), events_per_file=10)


def test_file_is_named_after_the_published_sample(ten_events):
    assert [path.name for path in ten_events] == ["reco_single_pi_1.root"]
    assert visible(ten_events[0].parent) == ["reco_single_pi_1.root"]


def test_same_events_whatever_the_workers_and_the_file_size(ten_events, tmp_path):
    paths = simulate.run(SAMPLE, 10, tmp_path, events_per_file=5, placement=Placement(2))
    assert [path.name for path in paths] == ["reco_single_pi_1.root", "reco_single_pi_2.root"]
    assert_same_events(ten_events, paths)


def test_events_can_be_made_alone(ten_events, tmp_path):
    paths = simulate.run(SAMPLE, 1, tmp_path, first_event=7)
    alone, all_ = content(paths), content(ten_events)
    assert [name for name in alone if not ak.array_equal(alone[name], all_[name][7:8])] == []


def test_other_seed_gives_other_events(ten_events, tmp_path):
    paths = simulate.run(SAMPLE, 10, tmp_path, seed=2)
    name = "MCParticles.momentum.x"
    assert not ak.array_equal(content(paths)[name], content(ten_events)[name])


def test_references_stay_inside_their_collections(ten_events):
    leaves = content(ten_events)
    hits = sum(leaves[f"n_{name}"] for name in ("ECALBarrel", "ECALEndcap", "HCALBarrel", "HCALEndcap"))
    assert ak.sum(hits) > 0
    for name, leaf, relation in (
        ("PandoraClusters", "hits", "PandoraClusters#1"),
        ("MergedRecoParticles", "clusters", "MergedRecoParticles#0"),
        ("MergedRecoParticles", "tracks", "MergedRecoParticles#1"),
        ("SiTracks_Refitted", "trackStates", "SiTracks_1"),
    ):
        used = leaves[f"{name}.{leaf}_end"] - leaves[f"{name}.{leaf}_begin"]
        assert ak.sum(used, axis=1).to_list() == leaves[f"n_{relation}"].to_list()
    for link, target in (
        ("MergedRecoParticles#0", "PandoraClusters"),
        ("MergedRecoParticles#1", "SiTracks_Refitted"),
        ("SiTracksMCTruthLink#1", "MCParticles"),
        ("CalohitMCTruthLink#1", "MCParticles"),
    ):
        index = leaves[f"{link}.index"]
        assert ak.all(index >= 0)
        assert ak.all(index < leaves[f"n_{target}"])


def test_complete_files_are_kept(tmp_path):
    first = simulate.run(SAMPLE, 4, tmp_path, events_per_file=2)
    first[1].unlink()
    before = first[0].stat().st_mtime_ns
    again = simulate.run(SAMPLE, 4, tmp_path, events_per_file=2)
    assert again == first
    assert first[0].stat().st_mtime_ns == before
    assert first[1].exists()


def test_file_with_other_events_is_not_replaced(tmp_path):
    simulate.run(SAMPLE, 2, tmp_path)
    with pytest.raises(
        OutputExists, match=r"events 0 to 1 of seed 1, asked for .* 0 to 2 of seed 1.*--overwrite"
    ):
        simulate.run(SAMPLE, 3, tmp_path)
    (path,) = simulate.run(SAMPLE, 3, tmp_path, overwrite=True)
    assert read_provenance(path) == Provenance(SAMPLE, 1, 0, 3)


def test_granularity_is_part_of_what_a_file_is(ten_events, tmp_path):
    (path,) = simulate.run(SAMPLE, 2, tmp_path, granularity="hits")
    assert read_provenance(path) == Provenance(SAMPLE, 1, 0, 2, granularity="hits")
    with pytest.raises(OutputExists, match=r"hits\).*asked for .*clusters\).*--overwrite"):
        simulate.run(SAMPLE, 2, tmp_path)
    hits, clusters = content([path]), content(ten_events)
    # Generator and tracker see the same: only the calorimeter has other cells.
    for name in ("MCParticles.momentum.x", "SiTracks_1.omega"):
        assert ak.array_equal(hits[name], clusters[name][:2])
    for name in ("ECALBarrel", "HCALBarrel"):
        assert ak.sum(hits[f"n_{name}"]) > 2 * ak.sum(clusters[f"n_{name}"][:2])


@pytest.mark.parametrize("sample", [name for name, sample in CLIC_SAMPLES.items() if sample.is_gun])
def test_every_gun_fires_at_fine_cells(sample, tmp_path):
    paths = simulate.run(sample, 3, tmp_path, granularity="hits")
    leaves = content(paths)
    assert ak.all(leaves["n_MCParticles"] > 0)
    assert ak.sum([ak.sum(leaves[f"n_{name}"]) for name in HIT_COLLECTIONS]) > 0


def test_foreign_file_is_not_replaced(tmp_path):
    (tmp_path / "reco_single_pi_1.root").write_bytes(b"not a ROOT file")
    with pytest.raises(DataError, match=r"reco_single_pi_1\.root.*mlpf simulate"):
        simulate.run(SAMPLE, 1, tmp_path)


def test_unknown_sample_suggests_one(tmp_path):
    with pytest.raises(MLPFError, match=r"'ttbr'.*did you mean 'ttbar'"):
        simulate.run("ttbr", 1, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("written", [0, 2])
def test_full_disk_leaves_nothing(tmp_path, monkeypatch, written):
    calls = []
    original = edm4hep_writer._jagged

    def fail(*args):
        calls.append(args)
        if len(calls) > written:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*args)

    monkeypatch.setattr(edm4hep_writer, "_jagged", fail)
    with pytest.raises(MLPFError, match="No space left on device"):
        simulate.run(SAMPLE, 2, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [simulate.LOCK_FILE]


def test_a_second_process_on_the_same_output_is_refused(tmp_path):
    with (
        locked(tmp_path / simulate.LOCK_FILE, "held"),
        pytest.raises(OutputExists, match=f"{tmp_path}: process {os.getpid()} on .* is at work there"),
    ):
        simulate.run(SAMPLE, 1, tmp_path, seed=2)
    assert visible(tmp_path) == []


def test_the_loser_of_a_race_sees_the_events_of_the_winner(tmp_path, monkeypatch):
    """What is there is looked at under the lock, so that nobody replaces what came meanwhile."""

    @contextmanager
    def late(path, what):
        with monkeypatch.context() as undisturbed:
            undisturbed.setattr(simulate, "locked", locked)
            simulate.run(SAMPLE, 1, tmp_path, seed=2)
        with locked(path, what):
            yield

    monkeypatch.setattr(simulate, "locked", late)
    with pytest.raises(OutputExists, match=r"holds .* of seed 2, asked for .* of seed 1"):
        simulate.run(SAMPLE, 1, tmp_path, seed=1)
    assert read_provenance(tmp_path / "reco_single_pi_1.root").seed == 2


def test_parts_of_a_killed_run_are_removed(tmp_path):
    own, other = tmp_path / ".reco_single_pi_1.root.99.part", tmp_path / ".reco_other_1.root.99.part"
    own.touch()
    other.touch()
    simulate.run(SAMPLE, 1, tmp_path)
    assert not own.exists()
    assert other.exists()


def test_an_output_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MLPFError, match=r"file: not usable as output directory .*; choose another"):
        simulate.run(SAMPLE, 1, tmp_path / "file")


def test_values_are_finite(ten_events):
    for name, values in content(ten_events).items():
        assert np.isfinite(ak.to_numpy(ak.flatten(values, axis=None))).all(), name
