import pytest

from mlpf.plotting.search.report import (
    build_search_report,
    cost_rows,
    failed_rows,
    gain_text,
    summary_rows,
    trial_rows,
)
from mlpf.search.results.tables import as_json, collect
from mlpf.search.state import read_search
from tests.support.search_directories import FakeSearch


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = FakeSearch().confirm().write(tmp_path_factory.mktemp("searches") / "search")
    return as_json(collect(read_search(folder)))


def mean(value, error, n):
    return {"mean": value, "error": error, "n": n}


def test_gain_has_error_share_and_number_of_pairs():
    gain = {"gain": mean(0.2, 0.0577, 3), "relative": mean(0.1818, 0.0484, 3)}
    assert gain_text(gain) == "0.200 ± 0.058 = (18.2 ± 4.8) %, n = 3"
    gain = {"gain": mean(0.2, None, 1), "relative": mean(0.1818, None, 1)}
    assert gain_text(gain) == "0.2 = (18.18) %, one pair, no error"
    gain = {"gain": mean(None, None, 0), "relative": mean(None, None, 0)}
    assert gain_text(gain) == "unknown: no seed with which both trainings completed"


def test_summary_counts_trials_and_cost(results):
    best = next(row for row in results["trials"] if row["trial_id"] == results["best"])
    rows = dict(summary_rows(results, best, "val_loss"))

    assert rows["search"] == "finished"
    assert rows["configurations"] == "27"
    assert rows["trials"] == "34 completed, 3 failed"
    assert rows["confirming trainings"] == "9 completed"
    assert rows["failures"] == "1 nan, 1 memory, 1 crash"
    assert f"{best['objective']:.6g}" in rows["best val_loss"]
    # 24 x 1 + 8 x 2 + 2 x 6 of the search, 9 x 9 of the confirmation
    assert rows["cost"].endswith("133 epochs")
    assert "core-hours" in rows["cost"]


def test_a_search_that_has_nothing_says_so():
    none = dict.fromkeys(("completed", "failed", "unfinished", "confirm"), 0)
    empty = {
        "trials": [], "finished": False, "problem": "5 trials in a row failed", "gains": [],
        "cost": {"gpu_hours": none, "core_hours": none, "epochs": none},
    }  # fmt: skip
    rows = dict(summary_rows(empty, None, "val_loss"))
    assert rows["gave up"] == "5 trials in a row failed"
    assert rows["best"] == "none yet: no trial has completed"
    assert rows["cost"] == "0 epochs"


def test_costs_add_up():
    groups = ("completed", "failed", "unfinished", "confirm")
    numbers = dict(zip(groups, (1.0, 0.5, 0.25, 2.0), strict=True))
    rows = cost_rows(
        {"gpu_hours": numbers, "core_hours": dict.fromkeys(groups, 0), "epochs": dict.fromkeys(groups, 3)}
    )
    assert rows[0] == ["completed trials", "1.000", "-", "3"]
    assert rows[-1] == ["total", "3.750", "-", "12"]


def test_tables_of_trials_have_values_and_reasons(results):
    rows = results["trials"]
    header, searched = trial_rows([row for row in rows if row["purpose"] == "search"])
    keys = ["lr", "num_graph_layers_id", "bin_size", "optimizer", "use_normalizer", "weight_decay"]
    assert sorted(header[-6:]) == sorted(keys)
    column = {name: [row[header.index(name)] for row in searched] for name in keys}
    # where the condition of a key does not hold it has no value
    assert {a for a, b in zip(column["optimizer"], column["weight_decay"], strict=True) if b != "-"} == {
        "adamw"
    }
    header, failed = failed_rows([row for row in rows if row["status"] == "failed"])
    kinds = [row[header.index("kind")] for row in failed]
    assert kinds == ["nan", "memory", "crash"]


def test_page_escapes_what_trials_said(results):
    page = build_search_report("MLPF search: <x>", [["best", "<1>"]], results, [], [], ["<note>"], [])
    for text in ("MLPF search: &lt;x&gt;", "&lt;1&gt;", "&lt;b&gt;there&lt;/b&gt;", "&lt;note&gt;"):
        assert text in page
    assert "<b>there" not in page
    assert "Importance" not in page
