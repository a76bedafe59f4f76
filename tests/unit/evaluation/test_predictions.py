import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlpf.errors import DataError
from mlpf.evaluation.metrics import evaluate_predictions, jet_response
from mlpf.evaluation.predictions import (
    Predictions,
    make_reference,
    read_predictions,
    with_network,
    write_predictions,
)
from mlpf.physics.schemas import SCHEMAS
from tests.support.events import dijet_events, predictions_of, prepared, rows_of


def some_predictions(number: int = 4) -> Predictions:
    events = dijet_events(number)
    predicted = rows_of(events)
    if number > 1:
        predicted[1] = predicted[1] * 0  # an event in which nothing was found
    return predictions_of("clic/dijet", events, predicted, "ee_genkt")


@pytest.mark.parametrize("number", [4, 1, 0])
def test_predictions_survive_the_round_trip(tmp_path, number):
    written = some_predictions(number)
    write_predictions(written, tmp_path / "p" / "dijet.parquet")
    read = read_predictions(tmp_path / "p" / "dijet.parquet")
    assert (read.dataset, read.gen_reference, read.jet_algorithm) == (
        written.dataset,
        written.gen_reference,
        "ee_genkt",
    )
    assert read.event == written.event
    assert read.methods == written.methods
    tables = [(written.elements, read.elements)]
    for name in ("particles", "jets", "matched_jets"):
        before, after = getattr(written, name), getattr(read, name)
        assert before.keys() == after.keys()
        tables += [(before[method], after[method]) for method in before]
    for before, after in tables:
        np.testing.assert_array_equal(after.offsets, before.offsets)
        assert list(after.columns) == list(before.columns)
        for name, values in before.columns.items():
            assert after[name].dtype == values.dtype
            np.testing.assert_allclose(after[name], values, rtol=1e-6)  # jets are float32 on disk


def test_metrics_of_the_file_are_those_of_the_memory(tmp_path):
    written = some_predictions()
    write_predictions(written, tmp_path / "dijet.parquet")
    before = evaluate_predictions(written)
    after = evaluate_predictions(read_predictions(tmp_path / "dijet.parquet"))
    assert after["classes"] == before["classes"]
    for method in before["methods"]:
        expected = before["methods"][method]["jet"]
        # jets are float32 on disk
        assert after["methods"][method]["jet"] == pytest.approx(expected, abs=1e-5, nan_ok=True)


def test_targets_are_the_reference_of_a_dataset_without_gen_particles():
    events = [{k: e[k] for k in ("X", "ygen", "ycand")} for e in dijet_events(2)]
    predictions = predictions_of("clic/dijet", events, rows_of(events), "antikt")
    assert predictions.gen_reference == "targets"
    assert predictions.methods == ("pred", "cand", "target")
    assert predictions.event == ["0", "1"]


def test_elements_are_counted_by_the_kinds_of_the_schema(tmp_path):
    # A Delphes tower has the number of a CLIC track: 6 elements of type 1, 6 of type 2 in each event.
    events = dijet_events(2)
    events[1]["X"] = events[1]["X"][:7]
    for key in ("ygen", "ycand"):
        events[1][key] = events[1][key][:7]
    predictions = predictions_of("d", events, rows_of(events), "antikt", SCHEMAS["delphes"])
    write_predictions(predictions, tmp_path / "d.parquet")
    for found in (predictions, read_predictions(tmp_path / "d.parquet")):
        counts = {name: values.tolist() for name, values in found.elements_per_event.items()}
        assert counts == {"tracks": [6, 1], "towers": [6, 6]}
    numbers = evaluate_predictions(predictions)
    assert (numbers["num_tracks"], numbers["num_towers"], numbers["num_elements"]) == (7, 12, 19)
    assert "num_clusters" not in numbers


def test_nested_columns_are_reached_by_name(tmp_path):
    write_predictions(some_predictions(), tmp_path / "dijet.parquet")
    row = pq.read_table(tmp_path / "dijet.parquet").to_pylist()[0]
    assert row["event"] == "dijet_0"
    assert len(row["particles"]["gen"]["pt"]) == 10
    assert len(row["elements"]["target"]["cls"]) == 12
    assert row["matched_jets"]["pred"] == {"gen": [0, 1], "reco": [0, 1]}


def test_the_example_of_the_documentation_plots_the_jet_response(tmp_path, monkeypatch, repo_root):
    predictions = some_predictions()
    write_predictions(predictions, tmp_path / "experiments/first/predictions/clic_edm4hep_ttbar.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    page = (repo_root / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    found = {}
    exec(example, found)
    found["plt"].close()
    expected, _, event = jet_response(predictions, "cand")
    assert len(expected) > 0
    np.testing.assert_allclose(np.concatenate(found["response"].to_list()), expected, rtol=1e-6)  # float32
    assert [len(r) for r in found["response"]] == np.bincount(event, minlength=4).tolist()
    assert (tmp_path / "jet_response.png").stat().st_size > 1000


def test_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(table, path):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(OSError, match="no space left"):
        write_predictions(some_predictions(), tmp_path / "dijet.parquet")
    assert list(tmp_path.iterdir()) == []


def test_files_that_hold_no_predictions_are_errors(tmp_path):
    with pytest.raises(DataError, match="no such file; `mlpf evaluate"):
        read_predictions(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("text", encoding="utf-8")
    with pytest.raises(DataError, match="not a readable parquet file"):
        read_predictions(tmp_path / "text.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="holds no predictions"):
        read_predictions(tmp_path / "other.parquet")


def test_files_with_short_offsets_of_before_are_read(tmp_path):
    written = some_predictions()
    write_predictions(written, tmp_path / "now.parquet")
    now = pq.read_table(tmp_path / "now.parquet")
    before = pa.Table.from_pylist(now.to_pylist()).replace_schema_metadata(now.schema.metadata)
    assert pa.types.is_list(before.schema.field("jets").type.field("gen").type.field("pt").type)
    pq.write_table(before, tmp_path / "before.parquet")
    old, new = (read_predictions(tmp_path / name) for name in ("before.parquet", "now.parquet"))
    assert evaluate_predictions(old, 20) == evaluate_predictions(new, 20)


@pytest.mark.parametrize("lost", ["event", "elements", "jets"])
def test_a_file_without_a_column_says_to_evaluate_again(tmp_path, lost):
    write_predictions(some_predictions(), tmp_path / "p.parquet")
    pq.write_table(pq.read_table(tmp_path / "p.parquet").drop_columns(lost), tmp_path / "p.parquet")
    with pytest.raises(
        DataError, match=f"other columns than `mlpf evaluate` writes .*{lost}.*; run it again"
    ):
        read_predictions(tmp_path / "p.parquet")


def test_one_reference_serves_several_networks():
    events = dijet_events(3)
    reference = make_reference("clic/dijet", prepared(events), "ee_genkt")
    assert reference.methods == ("cand", "target", "oracle", "perfect")
    good, none = (with_network(reference, f * np.concatenate(rows_of(events))) for f in (1, 0))
    assert (len(good.jets["pred"]), len(none.jets["pred"])) == (6, 0)
    assert reference.methods == ("cand", "target", "oracle", "perfect")
    assert set(reference.elements.columns) == {
        "elemtype",
        "target.cls",
        "target.energy",
        "cand.cls",
        "cand.energy",
    }
