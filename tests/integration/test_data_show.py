import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from mlpf.cli import main
from mlpf.errors import DataError
from mlpf.physics.features import CLUSTER_FEATURES, PARTICLE_COLUMNS
from mlpf.workflows import data_show, postprocess
from tests.integration.test_cli import HEAVY, modules_loaded_by
from tests.support.datasets import write_dataset
from tests.support.delphes_files import simple_delphes, write_delphes
from tests.support.edm4hep_files import HandEvent, simple_event, write_edm4hep
from tests.support.fake_split import fake_event


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def views(monkeypatch):
    """What would be drawn; the drawing itself is tested in test_event_display."""
    drawn = []

    def remember(view):
        drawn.append(view)
        return Figure(figsize=(1, 1))

    monkeypatch.setattr(data_show, "event_display", remember)
    return drawn


@pytest.fixture
def root_file(tmp_path):
    # the second event is empty and left out, so event 1 is the third one
    return write_edm4hep(tmp_path / "reco_1.root", [simple_event(10.0), HandEvent(), simple_event(20.0)])


def cluster_energies(view):
    return view.elements["cluster"][:, CLUSTER_FEATURES.index("energy")].tolist()


def particle_energies(view, name):
    return view.particles[name][:, PARTICLE_COLUMNS.index("energy")].tolist()


def test_event_of_an_edm4hep_file(root_file, tmp_path, views, capsys):
    figure = data_show.run(root_file, 1, output=tmp_path / "new" / "event.png")
    assert figure.read_bytes().startswith(b"\x89PNG")
    (view,) = views
    assert view.title == "reco_1, event 1 (reco_1_2)"
    assert (len(view.elements["track"]), cluster_energies(view)) == (1, pytest.approx([12.0, 10.0]))
    assert particle_energies(view, "cand") == pytest.approx([20.0, 10.0], rel=1e-4)
    assert particle_energies(view, "gen") == pytest.approx([20.0, 10.05], rel=1e-3)
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "photon 1, 10.0 1, 10.0 1, 10.0" in out
    assert "clusters 2, 22.0" in out


def test_parquet_and_hits_show_the_same_event(root_file, tmp_path, views):
    postprocess.run([root_file], tmp_path / "parquet")
    data_show.run(root_file, 0, output=tmp_path / "a.pdf")
    data_show.run(tmp_path / "parquet" / "reco_1.parquet", 0, output=tmp_path / "b.svg")
    data_show.run(root_file, 0, elements="hits", output=tmp_path / "c.png")
    first, second, hits = views
    for name in ("track", "cluster"):
        np.testing.assert_array_equal(first.elements[name], second.elements[name])
    assert hits.schema.name == "clic_hits"
    np.testing.assert_array_equal(hits.particles["gen"], first.particles["gen"])
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    assert b"<svg" in (tmp_path / "b.svg").read_bytes()


def test_event_of_a_dataset(tmp_path, views, monkeypatch, rng):
    splits = {name: [fake_event(rng, 8, f"{name}_{i}") for i in range(3)] for name in ("train", "test")}
    version = write_dataset(tmp_path, splits)
    monkeypatch.chdir(tmp_path)
    assert data_show.run(version, 2, split="test").name == "events_1.5.0_event2.png"
    (view,) = views
    assert "(test_" in view.title
    assert view.gen_name == "targets"
    assert {name: len(rows) for name, rows in view.elements.items()} == {"track": 4, "cluster": 4}
    only_test = write_dataset(tmp_path / "only", {"test": splits["test"]})
    data_show.run(only_test, 2)
    assert "(test_" in views[-1].title
    with pytest.raises(DataError, match="no event 3, split 'test' has 3"):
        data_show.run(version, 3, split="test")
    with pytest.raises(DataError, match="no split 'valid'"):
        data_show.run(version, 0, split="valid")


def test_event_of_delphes(tmp_path, views):
    path = write_delphes(tmp_path / "d.root", [simple_delphes(), simple_delphes(20.0)])
    data_show.run(path, 1, output=tmp_path / "d.png")
    assert views[0].schema.name == "delphes"
    assert len(views[0].elements["track"]) > 0
    assert views[0].gen_name == "targets"


def test_edm4hep_file_that_lacks_collections_says_what_it_has(tmp_path, capsys, views):
    path = write_edm4hep(
        tmp_path / "reco.root", [simple_event()], drop=("PandoraClusters", "PandoraClusters#1")
    )
    with pytest.raises(DataError, match="cannot be drawn, missing PandoraClusters"):
        data_show.run(path, 0, output=tmp_path / "e.png")
    out = capsys.readouterr().out
    assert "events: 1" in out
    assert "SiTracks_Refitted" in out
    assert views == []
    assert not (tmp_path / "e.png").exists()


def test_wrong_arguments_say_what_to_give(root_file, tmp_path, views):
    with pytest.raises(DataError, match="no event 2, it has 2 usable ones"):
        data_show.run(root_file, 2, output=tmp_path / "e.png")
    with pytest.raises(DataError, match=r"unknown format '\.txt'"):
        data_show.run(root_file, 0, output=tmp_path / "e.txt")
    with pytest.raises(DataError, match="no such file"):
        data_show.run(tmp_path / "nothing.root", 0)
    with pytest.raises(DataError, match="no prepared dataset"):
        data_show.run(tmp_path, 0)


def test_options_that_would_do_nothing_are_refused(root_file, tmp_path, views, rng):
    postprocess.run([root_file], tmp_path / "parquet")
    delphes = write_delphes(tmp_path / "d.root", [simple_delphes()])
    version = write_dataset(tmp_path, {"train": [fake_event(rng, 8, "e_0")]})
    for path, options, message in (
        (root_file, {"split": "train"}, "only a dataset folder has splits; drop --split train"),
        (
            tmp_path / "parquet" / "reco_1.parquet",
            {"elements": "hits"},
            "a parquet file has.*drop --elements",
        ),
        (version, {"elements": "clusters"}, "a dataset has was chosen.*drop --elements"),
        (delphes, {"elements": "clusters"}, "tracks and towers only; drop --elements"),
    ):
        with pytest.raises(DataError, match=message):
            data_show.run(path, 0, output=tmp_path / "e.png", **options)
    assert views == []


def test_command_draws(root_file, tmp_path, monkeypatch):
    figure = tmp_path / "e.png"
    monkeypatch.setattr(sys, "argv", ["mlpf", "data", "show", str(root_file), "-e", "1", "-o", str(figure)])
    main()
    assert figure.stat().st_size > 20000


@pytest.mark.parametrize("command", ["check", "show"])
def test_help_loads_nothing_heavy(command):
    assert modules_loaded_by("data", command, "--help").isdisjoint(HEAVY)
