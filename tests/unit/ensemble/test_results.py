"""Rows and statistics of an ensemble, by hand."""

import json
import math

import pyarrow.parquet as pq
import pytest

from mlpf.ensemble.plan import Plan
from mlpf.ensemble.results import (
    FIXED_COLUMNS,
    MemberResult,
    best_record,
    member_result,
    member_table,
    spreads,
    write_results,
)
from mlpf.ensemble.state import MemberFiles, MemberState
from mlpf.ensemble.table import Row
from tests.support.fake_training import tiny_config


def row(name, state="completed", group="", values=None, **metrics):
    best = metrics.get("val_loss")
    return MemberResult(
        name, group, 1, state, "", "", 4, 4, "val_loss", best, 2, 10.0, 1, 0, "h-0", values or {}, metrics
    )


def test_statistics():
    found = spreads([row("a", val_loss=1.0), row("b", val_loss=2.0), row("c", val_loss=6.0)])
    (spread,) = found
    # mean 3, deviations -2, -1, 3: 14 / 2 = 7
    assert (spread.metric, spread.count, spread.mean) == ("val_loss", 3, 3.0)
    assert spread.std == pytest.approx(math.sqrt(7), abs=1e-12)
    assert spread.error == pytest.approx(math.sqrt(7 / 3), abs=1e-12)


def test_one_training_has_no_spread():
    (spread,) = spreads([row("a", val_loss=1.5)])
    assert (spread.count, spread.mean, spread.std, spread.error) == (1, 1.5, None, None)


def test_groups_and_only_completed_trainings():
    found = spreads(
        [
            row("a", group="x", val_loss=1.0, loss=5.0),
            row("b", group="x", val_loss=3.0),
            row("c", group="y", val_loss=7.0),
            row("d", state="failed", group="y", val_loss=100.0),
            row("e", state="running", group="z", val_loss=100.0),
        ]
    )
    assert [(s.row, s.metric, s.count, s.mean) for s in found] == [
        ("x", "val_loss", 2, 2.0),
        ("x", "loss", 1, 5.0),
        ("y", "val_loss", 1, 7.0),
    ]


def test_best_epoch_is_that_of_the_smallest_finite_value():
    history = [{"epoch": 1, "m": 2.0}, {"epoch": 2, "m": math.nan}, {"epoch": 3}, {"epoch": 4, "m": 1.0}]
    assert best_record(history, "m") == {"epoch": 4, "m": 1.0}
    assert best_record(history[1:3], "m") is None
    assert best_record([], "m") is None


def test_row_of_a_training(tmp_path):
    config = tiny_config(**{"setup.seed": 5, "setup.lr": 0.25})
    (member,) = Plan([Row("a", {"setup.lr": 0.25})], [5]).members()
    files = MemberFiles(tmp_path, member.name)
    files.history.parent.mkdir(parents=True)
    records = [
        {"epoch": 1, "loss": 3.0, "val_loss": 2.0, "seconds": 1.0, "val_jet_response_median": 0.9},
        {"epoch": 2, "loss": 2.5, "val_loss": 1.5, "seconds": 1.0, "val_jet_response_median": math.nan},
        {"epoch": 3, "loss": 2.0, "val_loss": 1.8, "seconds": 1.0},
    ]
    files.history.write_text(json.dumps(records), encoding="utf-8")
    state = MemberState("failed", "time", "too long", 2, 1, 0, 12.5, "h-1")
    assert member_result(member, config, files, state) == MemberResult(
        "a_seed_5", "a", 5, "failed", "time", "too long", 3, 4, "val_loss", 1.5, 2, 12.5, 2, 1, "h-1",
        {"setup.lr": 0.25}, {"loss": 2.5, "val_loss": 1.5},
    )  # fmt: skip


def test_files(tmp_path):
    results = [
        row("a", values={"setup.lr": 1, "k": [1, 2], "s": "x"}, val_loss=1.0),
        row("b", values={"setup.lr": 0.5, "k": None}, val_loss=2.0, loss=4.0),
        row("c", state="waiting"),
    ]
    write_results(tmp_path, results)
    table = pq.read_table(tmp_path / "members.parquet")
    assert table.column_names == [*FIXED_COLUMNS, "setup.lr", "k", "s", "metric.val_loss", "metric.loss"]
    assert table["setup.lr"].to_pylist() == [1.0, 0.5, None]
    assert table["k"].to_pylist() == ["[1, 2]", "null", None]
    assert table["s"].to_pylist() == ["x", None, None]
    assert table["metric.loss"].to_pylist() == [None, 4.0, None]
    content = json.loads((tmp_path / "members.json").read_text(encoding="utf-8"))
    assert [member["name"] for member in content["members"]] == ["a", "b", "c"]
    assert content["members"][0]["metrics"] == {"val_loss": 1.0}
    spread = content["spread"][0]
    assert (spread["row"], spread["metric"], spread["count"], spread["mean"]) == ("", "val_loss", 2, 1.5)
    assert (spread["std"], spread["error"]) == pytest.approx((0.5**0.5, 0.5), abs=1e-12)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["members.json", "members.parquet"]


def test_an_ensemble_without_a_result_has_a_table():
    assert member_table([row("a", state="waiting")]).num_rows == 1


def test_integers_of_more_than_64_bits_are_text():
    table = member_table([row("a", values={"k": 2**70}), row("b", values={"k": 1})])
    assert table["k"].to_pylist() == [str(2**70), "1"]
