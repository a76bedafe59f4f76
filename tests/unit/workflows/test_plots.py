import json

import pytest

from mlpf.cli import main
from mlpf.config.loading import load_config, write_resolved
from mlpf.errors import CheckpointError, DataError
from mlpf.evaluation.metrics import evaluate_predictions
from mlpf.evaluation.predictions import write_predictions
from mlpf.files.run_directory import RunDirectory
from mlpf.plotting.figure_captions import figure_caption
from mlpf.workflows import plots
from tests.support.configs import write_config
from tests.support.events import dijet_events, predictions_of, rows_of

DATASET = "clic_edm4hep/ttbar"


@pytest.fixture
def run_dir(tmp_path):
    """A run directory after evaluation, without a training behind it."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    write_resolved(load_config(write_config(tmp_path)), run_dir / "config.resolved.yaml")
    events = dijet_events(10)
    predictions = predictions_of(DATASET, events, rows_of(events), "ee_genkt")
    write_predictions(predictions, RunDirectory(run_dir).predictions(DATASET))
    extra = {"split": "test", "inference_events_per_second": 3.0}
    metrics = {
        "checkpoint": "epoch_2",
        "datasets": {DATASET: extra | evaluate_predictions(predictions)},
        "skipped": {"clic/other": "clic/other: not built <here>"},
    }
    RunDirectory(run_dir).metrics.write_text(json.dumps(metrics), encoding="utf-8")
    history = [
        {"epoch": e, "loss": 1.5, "val_loss": 2.5, "seconds": 30.0, "val_seconds": 6.0, "num_events": 60}
        for e in (1, 2)
    ]
    (run_dir / "history.json").write_text(json.dumps(history), encoding="utf-8")
    starts = [{"time": f"day {i}", "command": f"mlpf train -c c{i}.yaml"} for i in (1, 2, 3)]
    environment = {"packages": {"numpy": "2.0"}, "starts": starts}
    (run_dir / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    parity = {"outputs": {"pt": {"largest": 1e-5, "percentile_99": 2e-6}}, "class_flip_share": 0.0125}
    card = {"files": {"int8": {"file": "model_int8.onnx", "parity": parity}}}
    (run_dir / "model_card.json").write_text(json.dumps(card), encoding="utf-8")
    return run_dir


def test_report_holds_tables_and_figures_and_loads_nothing(run_dir, monkeypatch):
    drawn = plots.dataset_figures
    # every figure is drawn in test_performance; two are enough to see them embedded
    monkeypatch.setattr(plots, "dataset_figures", lambda p: (f for f, _ in zip(drawn(p), "12", strict=False)))
    report = plots.run(run_dir)
    page = report.read_text(encoding="utf-8")
    assert report == run_dir / "report.html"
    for text in (
        DATASET,
        "<td>network</td>",
        "<td>perfect</td>",
        "<td>charged hadron</td>",
        "better than the baseline",
        "<td>epoch_2</td>",
        "<td>training time</td><td>1.0 min</td>",
        "<td>model_int8.onnx</td><td>pt</td><td>1.0e-05</td><td>2.0e-06</td>",
        "<td>class flips</td><td>1.25%</td>",
        "<td>packages.numpy</td><td>2.0</td>",
        "<td>setup.lr</td>",
        "<td>training datasets</td><td>clic_edm4hep/ttbar</td></tr>\n"
        "<tr><td>training events per epoch</td><td>60</td>",
        "<td>started</td><td>day 1: mlpf train -c c1.yaml</td>",
        "<td>last continued</td><td>day 3: mlpf train -c c3.yaml</td>",
        "<td>baseline</td><td>candidates of the rule-based particle flow (cand)</td>",
        "<figcaption>Reconstructed over generated pt of matched jets; below",
        "<figcaption>Total loss of training and validation",
        "not built &lt;here&gt;",
    ):
        assert text in page
    assert "starts" not in page
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page
    names = sorted(path.name for path in (run_dir / "figures").iterdir())
    assert names == [
        "clic_edm4hep_ttbar_jet_response.pdf",
        "clic_edm4hep_ttbar_jet_response.png",
        "clic_edm4hep_ttbar_jet_response_binned.pdf",
        "clic_edm4hep_ttbar_jet_response_binned.png",
        "loss.pdf",
        "loss.png",
    ]


def test_validation_physics_is_in_the_report_beside_the_baseline(run_dir, monkeypatch):
    monkeypatch.setattr(plots, "dataset_figures", lambda _: ())
    record = {"epoch": 1, "loss": 1.5, "val_loss": 2.5, "val_jet_response_iqr": 0.08, "seconds": 30.0}
    (run_dir / "history.json").write_text(json.dumps([record | {"num_elements": 600}]), encoding="utf-8")
    reference = {"methods": {"cand": {"jet_response_iqr": 0.06}}}
    (run_dir / "validation_reference.json").write_text(json.dumps(reference), encoding="utf-8")
    page = plots.run(run_dir).read_text(encoding="utf-8")
    row = "<td>last validation jet response IQR/median</td><td>0.0800 (baseline 0.0600)</td>"
    assert row in page
    assert "<td>training elements/s</td><td>20</td>" in page
    assert (run_dir / "figures" / "validation_jets.png").is_file()


def test_each_class_and_quantity_has_its_figure():
    events = dijet_events(3)
    predictions = predictions_of(DATASET, events, rows_of(events), "ee_genkt")
    stems = [stem for stem, _ in plots.dataset_figures(predictions)]
    assert len(stems) == len(set(stems)) == 16
    assert len({figure_caption(stem) for stem in stems}) == 16
    assert {"jet_response", "met_response", "confusion", "num_elements", "sums_neutral_hadron"} < set(stems)


def test_a_card_that_is_none_is_one_line_before_anything_is_drawn(run_dir, capsys):
    card = run_dir / "model_card.json"
    card.write_text("[]", encoding="utf-8")
    with pytest.raises(DataError, match=r"model_card.json: holds a list, expected a dict; run the command"):
        plots.run(run_dir)
    card.unlink()
    card.mkdir()
    with pytest.raises(SystemExit) as ended:
        main(lambda **_: plots.run(run_dir))
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"{card}: is a directory, expected a JSON file; remove it")
    assert not (run_dir / "figures").exists()


def test_missing_pieces_say_what_to_run(run_dir, tmp_path):
    with pytest.raises(CheckpointError, match="not a run directory"):
        plots.run(tmp_path)
    RunDirectory(run_dir).metrics.write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="not valid JSON"):
        plots.run(run_dir)
    RunDirectory(run_dir).metrics.unlink()
    with pytest.raises(DataError, match="run mlpf evaluate"):
        plots.run(run_dir)
