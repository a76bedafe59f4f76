import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from mlpf.search import live
from mlpf.search.live import LiveTable
from mlpf.search.state import ORACLE_FILE, TrialRecord
from mlpf.search.trial_files import TrialFiles
from tests.support.search_directories import (
    START,
    completed,
    confirmation,
    epoch_record,
    search_config,
    write_history,
    write_search,
)


class Clock:
    """A clock that stands still until it is told."""

    now = START

    def __call__(self):
        return self.now


def running(trial_id="0001", **fields):
    fields = {
        "run": trial_id,
        "status": "running",
        "worker": "node1-0",
        "epochs": 9,
        "started": START,
    } | fields
    return TrialRecord(trial_id, **fields)


def watch(folder, terminal=False):
    """A table with what it has printed."""
    output, clock = io.StringIO(), Clock()
    console = Console(file=output, force_terminal=terminal, width=120, color_system=None)
    return LiveTable(folder, console, clock), output, clock


def test_lines_come_when_something_changed(tmp_path):
    write_search(tmp_path, [running()], finished=False)
    table, output, clock = watch(tmp_path)
    for _ in range(3):
        table.update()
        clock.now += 1
    assert len(output.getvalue().splitlines()) == 1

    failed = TrialRecord("0002", "0002", status="failed", failure_kind="nan")
    trials = [completed("0001", 0.25, seconds=720.0, devices=5, metrics={"trained_epochs": 9}), failed]
    write_search(tmp_path, trials, finished=False)
    table.update()
    table.close()
    _, line = output.getvalue().splitlines()
    for text in (
        "configurations 2/27", "completed 1", "running 0", "failed 1 (1 nan)",
        "best 0.25 (run 0001, 9 epochs)", "core-hours 1.00", "epochs 9", "elapsed 0:00:03",
    ):  # fmt: skip
        assert text in line


def test_terminals_show_who_trains_what_and_how_far_it_is(tmp_path):
    trials = [running(rung=1), running("0002", worker="node2-0", on_gpu=True, devices=2)]
    write_search(tmp_path, trials, {"0001": [epoch_record(e, 0.5 / e) for e in (1, 2)]}, finished=False)
    TrialFiles(tmp_path, "0002").cost.write_text(json.dumps({"0002": 3600.0}), encoding="utf-8")
    for trial_id, worker in (("0001", "node1-0"), ("0002", "node2-0")):
        place = {"trial_id": trial_id, "worker": worker, "since": START}
        TrialFiles(tmp_path, trial_id).worker.write_text(json.dumps(place), encoding="utf-8")
    table, output, clock = watch(tmp_path, terminal=True)
    clock.now += 65
    table.update()
    table.close()
    text = output.getvalue()
    rows = {line.split()[1]: line.split() for line in text.splitlines() if "│ node" in line}

    assert rows["node1-0"][1::2] == ["node1-0", "0001", "0001", "1", "2/9", "0.25", "0:01:05"]
    assert rows["node2-0"][1::2] == ["node2-0", "0002", "0002", "0", "0/9", "-", "0:01:05"]
    assert "GPU-hours" in text
    assert "2.00" in text


def test_epochs_of_running_trials_advance_without_the_chief(tmp_path):
    write_search(tmp_path, [running()], {"0001": [epoch_record(1, 1.0)]}, finished=False)
    table, output, _ = watch(tmp_path, terminal=True)
    table.update()
    write_history(tmp_path, "0001", [epoch_record(e, 1.0) for e in (1, 2, 3)])
    table.update()
    table.close()

    assert "1/9" in output.getvalue()
    assert "3/9" in output.getvalue()


def test_confirmation_is_counted(tmp_path):
    write_search(tmp_path, [completed("0000", 1.0), confirmation("0000", 2, 1.0)], finished=False)
    table, output, _ = watch(tmp_path)
    table.update()
    # the best and the default configuration, three seeds each
    assert "confirmed 1/6" in output.getvalue()
    assert "configurations 1/27" in output.getvalue()


def test_hyperband_decides_the_number_of_configurations_itself(tmp_path):
    write_search(tmp_path, [running()], config=search_config(algorithm="hyperband"), finished=False)
    table, output, _ = watch(tmp_path)
    table.update()
    assert "configurations 1  " in output.getvalue()


def test_a_search_that_gives_up_says_why(tmp_path):
    write_search(tmp_path, [], problem="5 trials in a row failed, the last: [/no]")
    table, output, _ = watch(tmp_path)
    table.update()
    assert "gives up 5 trials in a row failed, the last: [/no]" in output.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("text", ["", "{", "null", '{"records": 1}'])
def test_what_cannot_be_read_leaves_the_last_state(tmp_path, terminal, text):
    table, output, _ = watch(tmp_path / "search", terminal)
    table.update()
    assert output.getvalue() == ""

    write_search(tmp_path / "search", [running(), completed("0000", 0.25)], finished=False)
    write_history(tmp_path / "search", "0001", "[half")
    table.update()
    (tmp_path / "search" / ORACLE_FILE).write_text(text, encoding="utf-8")
    table.update()
    (tmp_path / "search" / ORACLE_FILE).unlink()
    table.close()
    assert "0.25" in output.getvalue()


def test_the_state_is_read_again_only_if_its_file_has_changed(tmp_path, monkeypatch):
    reads = []
    monkeypatch.setattr(live, "read_search", lambda d, read=live.read_search: reads.append(1) or read(d))
    write_search(tmp_path, [running()], finished=False)
    table, _, _ = watch(tmp_path)
    for _ in range(5):
        table.update()
    assert len(reads) == 1
    write_search(tmp_path, [running(), running("0002")], finished=False)
    table.update()
    assert len(reads) == 2


def test_nothing_heavy_is_imported():
    heavy = {"tensorflow", "keras", "keras_tuner", "matplotlib", "pyarrow"}
    code = f"import sys; import mlpf.search.live; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
