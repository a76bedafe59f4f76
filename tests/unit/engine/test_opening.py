"""Which engine a placement opens, and what it leaves."""

import pytest

from mlpf.engine import opening
from mlpf.engine.local import InProcessEngine, LocalEngine
from mlpf.engine.opening import Placement, engine_for, open_engine


class Cluster(InProcessEngine):
    """Stands for the engine of a site: it has files in its folder."""

    def __init__(self, folder):
        folder.mkdir()
        (folder / "log").touch()


@pytest.fixture
def opened(monkeypatch):
    """The placements for which the engine of a site was opened."""
    placements = []

    def open_cluster(placement, run_dir, *_):
        placements.append(placement)
        return Cluster(run_dir)

    monkeypatch.setattr(opening, "open_cluster", open_cluster)
    return placements


@pytest.mark.parametrize(("workers", "num_tasks", "slots"), [(4, 9, 4), (4, 2, 2), (4, 1, 1), (1, 9, 1)])
def test_there_are_no_more_workers_than_tasks(tmp_path, workers, num_tasks, slots):
    with engine_for(Placement(workers), tmp_path / "unused", num_tasks) as engine:
        assert engine.num_slots == slots
        assert isinstance(engine, LocalEngine if slots > 1 else InProcessEngine)
    assert not list(tmp_path.iterdir())


def test_without_tasks_nothing_starts(tmp_path, opened):
    with engine_for(Placement(site="one", nodes=3), tmp_path / "folder", 0) as engine:
        assert isinstance(engine, InProcessEngine)
    assert not opened


def test_the_folder_of_a_site_goes_when_all_went_well(tmp_path, opened):
    placement, folder = Placement(site="one", nodes=3, inside=True), tmp_path / "folder"
    with engine_for(placement, folder, 5) as engine:
        assert engine.submit(len, "abc").result() == 3
        assert (folder / "log").exists()
    assert not folder.exists()
    with pytest.raises(ValueError, match="wrong"), engine_for(placement, folder, 5):
        raise ValueError("wrong")
    assert (folder / "log").exists()
    assert [(p.site, p.nodes, p.inside) for p in opened] == [("one", 3, True)] * 2


def test_workers_have_the_cores_of_a_slot(tmp_path):
    with open_engine(Placement(2), tmp_path, slot=opening.Slot(num_cpus=3)) as engine:
        assert engine.slot.num_cpus == 3
