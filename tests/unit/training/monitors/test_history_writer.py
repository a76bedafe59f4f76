import json

from mlpf.training.monitors.history_writer import HistoryWriter


def test_the_file_holds_every_epoch(tmp_path):
    writer = HistoryWriter(tmp_path / "history.json")
    writer([{"epoch": 1, "loss": 2.0}])
    writer([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}])
    assert json.loads((tmp_path / "history.json").read_text(encoding="utf-8")) == [
        {"epoch": 1, "loss": 2.0},
        {"epoch": 2, "loss": 1.0},
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["history.json"]
