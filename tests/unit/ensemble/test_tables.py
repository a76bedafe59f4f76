"""What the terminal shows of an ensemble."""

import io
import json

import pytest
from rich.console import Console

from mlpf.ensemble.results import MemberResult, Spread
from mlpf.ensemble.state import STATES_FOLDER, MemberFiles, MemberState
from mlpf.ensemble.tables import LiveTable, result_table, spread_table
from tests.support.fake_training import tiny_config


def text(table):
    console = Console(file=io.StringIO(), width=150)
    console.print(table)
    return console.file.getvalue()


class Scene:
    """An ensemble of three trainings."""

    def __init__(self, folder, terminal):
        self.folder, self.given = folder, []
        (folder / STATES_FOLDER).mkdir()
        self.states = {name: MemberState() for name in ("a", "b", "c")}
        self.console = Console(file=io.StringIO(), width=150, force_terminal=terminal)
        configs = dict.fromkeys(self.states, tiny_config())
        self.live = LiveTable(folder, configs, self.states, lambda: self.given, self.console)

    def history(self, name, *values):
        path = MemberFiles(self.folder, name).history
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps([{"epoch": i, "val_loss": v} for i, v in enumerate(values, start=1)]), encoding="utf-8"
        )

    def said(self):
        return self.console.file.getvalue()


def test_a_line_for_each_change(tmp_path):
    scene = Scene(tmp_path, False)
    scene.live.update()
    scene.given = ["a", "b"]
    scene.live.update()
    scene.history("a", 3.0, 2.5)
    scene.live.update()  # an epoch is no change
    scene.states["a"], scene.given = MemberState("completed"), ["b", "c"]
    scene.states["b"].fail("nan", "why")
    scene.given = ["c"]
    scene.live.update()
    scene.live.close()
    assert scene.said().splitlines() == [
        "completed 0/3  running 0  waiting 3  failed 0",
        "completed 0/3  running 2  waiting 1  failed 0",
        "completed 1/3  running 1  waiting 0  failed 1 (1 nan)  best val_loss 2.5 (a)",
    ]


def test_the_table_of_a_terminal(tmp_path):
    scene = Scene(tmp_path, True)
    scene.given = ["a", "b"]
    scene.history("a", 3.0, 2.5, 2.75)
    MemberState("running", slot="node-4", seconds=65.0).write(MemberFiles(tmp_path, "a"))
    scene.live.update()
    scene.live.close()
    said = scene.said()
    row = next(line for line in said.splitlines() if "node-4" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == ["a", "node-4", "3/4", "2.75", "2.5", "0:01:05"]
    assert "(waits for one)" in said


def test_long_names_are_not_cut_off():
    table = spread_table([Spread("", "val_jet_matched_fraction" * 4, 3, 3.0, 1.0, 0.5)])
    console = Console(file=io.StringIO(), width=60)
    console.print(table)
    assert "…" not in console.file.getvalue()


def result(name, **fields):
    values = {
        "row": "", "seed": 7, "state": "completed", "kind": "", "reason": "", "epochs": 3, "num_epochs": 4,
        "monitor": "val_loss", "best": 0.123456789, "best_epoch": 2, "seconds": 61.0, "attempts": 1,
        "crashes": 0, "slot": "h-0", "values": {}, "metrics": {},
    }  # fmt: skip
    return MemberResult(name=name, **(values | fields))


def cells(table, name):
    line = next(line for line in text(table).splitlines() if f" {name} " in line)
    return [cell.strip() for cell in line.split("│")[1:-1]]


def test_results():
    failed = {"state": "failed", "kind": "nan", "best": None, "best_epoch": None, "attempts": 3}
    table = result_table([result("a"), result("b", values={"setup.lr": 0.1, "s": "x"}, **failed)])
    assert cells(table, "a") == ["a", "7", "", "3/4", "0.12346", "2", "0:01:01", "completed"]
    assert cells(table, "b") == [
        "b", "7", "setup.lr=0.1, s=x", "3/4", "-", "-", "0:01:01", "failed: nan (3 attempts)",
    ]  # fmt: skip
    assert "changes" not in text(result_table([result("a")]))


@pytest.mark.parametrize(("row", "first"), [("", []), ("x", ["x"])])
def test_spread(row, first):
    table = spread_table(
        [Spread(row, "val_loss", 3, 3.0, 2.6458, 1.5275), Spread(row, "loss", 1, 2.0, None, None)]
    )
    assert cells(table, "val_loss") == [*first, "val_loss", "3", "3 ± 1.5", "2.6"]
    assert cells(table, "loss") == [*first, "loss", "1", "2", "-"]
