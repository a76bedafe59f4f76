import json

import numpy as np
import pytest
import tensorflow as tf

from mlpf.config.loading import load_config, write_resolved
from mlpf.errors import CheckpointError, DataError
from mlpf.evaluation.predictions import read_predictions
from mlpf.physics.features import NUM_CLIC_FEATURES
from mlpf.workflows import evaluate
from tests.support.configs import MINIMAL, write_config
from tests.support.events import dijet_events, prepared

DATASET = "clic_edm4hep/ttbar"
TWO_DATASETS = MINIMAL.replace("{batch_size: 4}", "{batch_size: 4}\n  clic_edm4hep/qq: {batch_size: 4}") + (
    "  clic_edm4hep/qq: {version: 1.0.0, data_dir: nowhere}\n"
)


class DijetSplit:
    """A prepared split of dijet events."""

    fields = ("X", "ygen", "ycand", "gen_particles", "oracle_particles", "perfect_particles", "event")

    def __init__(self, number: int):
        self._events = dijet_events(number)
        self.num_events = number
        self.lengths = np.array([len(event["X"]) for event in self._events], dtype=np.int64)

    def fetch(self, indices, fields=("X", "ygen")):
        return prepared([{field: self._events[i][field] for field in fields} for i in indices])


class Silent:
    """A model that finds nothing."""

    num_input_features = NUM_CLIC_FEATURES

    def __call__(self, X, training):
        assert not training
        one = 0 * X[..., :1]
        outputs = dict.fromkeys(("pt", "eta", "sin_phi", "cos_phi", "energy"), one)
        return outputs | {"cls": tf.repeat(one, 6, -1) + tf.one_hot(0, 6), "charge": tf.repeat(one, 3, -1)}


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    """A run whose first evaluation dataset is built and whose second one is not."""
    config_file = tmp_path / "c.yaml"
    config_file.write_text(TWO_DATASETS, encoding="utf-8")
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    config = load_config(config_file).with_data_dir(str(tmp_path / "data"))
    write_resolved(config, run_dir / "config.resolved.yaml")
    info = tmp_path / "data" / DATASET / "1.0.0" / "dataset_info.json"
    info.parent.mkdir(parents=True)
    info.write_text("{}", encoding="utf-8")
    monkeypatch.setattr(evaluate, "open_split", lambda *_: DijetSplit(6))
    monkeypatch.setattr(evaluate, "load_trained_model", lambda run_dir, *_: (Silent(), run_dir / "epoch_3"))
    return run_dir


def test_evaluation_writes_predictions_and_metrics(run_dir):
    returned = evaluate.run(run_dir)
    metrics = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))
    assert metrics == returned
    assert metrics["checkpoint"] == "epoch_3"
    numbers = metrics["datasets"][DATASET]
    assert (numbers["num_events"], numbers["split"], numbers["gen_reference"]) == (6, "test", "gen_particles")
    assert numbers["methods"]["pred"]["jet"]["matched_fraction"] == 0
    assert numbers["methods"]["perfect"]["jet"]["matched_fraction"] == 1
    assert numbers["inference_events_per_second"] > 0
    predictions = read_predictions(run_dir / "predictions" / "clic_edm4hep_ttbar.parquet")
    assert predictions.event == [f"dijet_{i}" for i in range(6)]


def test_events_without_generated_particles_are_judged_by_their_targets(
    run_dir, tmp_path, monkeypatch, capsys
):
    config = load_config(write_config(tmp_path, "dataset: {schema: delphes}\n", "delphes.yaml"))
    write_resolved(config.with_data_dir(str(tmp_path / "data")), run_dir / "config.resolved.yaml")
    opened = []

    class DelphesSplit(DijetSplit):
        fields = ("X", "ygen", "ycand", "event")

    def open_split(name, source, split, schema, detector):
        opened.append(schema.name)
        return DelphesSplit(6)

    monkeypatch.setattr(evaluate, "open_split", open_split)
    numbers = evaluate.run(run_dir)["datasets"][DATASET]
    assert opened == ["delphes"]
    assert numbers["gen_reference"] == "targets"
    assert set(numbers["methods"]) == {"pred", "cand", "target"}
    # Elements of type 1 are towers there.
    assert (numbers["num_towers"], numbers["num_tracks"]) == (36, 36)
    assert numbers["methods"]["target"]["jet"]["matched_fraction"] == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "its targets stand for them" in printed


def test_dataset_that_is_not_built_is_listed_when_another_one_is(run_dir, capsys):
    metrics = evaluate.run(run_dir)
    assert list(metrics["datasets"]) == [DATASET]
    assert "mlpf build clic_edm4hep/qq" in metrics["skipped"]["clic_edm4hep/qq"]
    assert "skipped clic_edm4hep/qq: not built" in capsys.readouterr().out


def test_no_dataset_built_is_an_error(run_dir, tmp_path):
    with pytest.raises(DataError, match="nothing to evaluate on: clic_edm4hep/ttbar: not built in"):
        evaluate.run(run_dir, data_dir=tmp_path / "elsewhere")
    assert not (run_dir / "metrics.json").exists()


def test_number_of_events_can_be_limited(run_dir):
    metrics = evaluate.run(run_dir, num_events=2)
    assert metrics["datasets"][DATASET]["num_events"] == 2


def test_split_without_events_is_an_error(run_dir, monkeypatch):
    monkeypatch.setattr(evaluate, "open_split", lambda *_: DijetSplit(0))
    with pytest.raises(DataError, match="split test has no events"):
        evaluate.run(run_dir)


def test_directory_without_a_run_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="not a run directory"):
        evaluate.run(tmp_path)


def test_event_larger_than_the_model_is_an_error(run_dir, monkeypatch):
    split = DijetSplit(2)
    split.lengths[1] = 10**6
    monkeypatch.setattr(evaluate, "open_split", lambda *_: split)
    with pytest.raises(DataError, match="1000000 elements, the model takes 51200"):
        evaluate.run(run_dir)


def on_disk(run_dir):
    return json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))


@pytest.fixture
def with_another(run_dir):
    """The run after evaluation of a dataset of its own, then of that of the configuration, with figures."""
    for name in ("clic_edm4hep/mine", f"{DATASET}_mine"):
        info = run_dir.parent / "data" / name / "1.0.0" / "dataset_info.json"
        info.parent.mkdir(parents=True)
        content = {"splits": [{"name": "test"}]}
        info.write_text(json.dumps(content), encoding="utf-8")
        width = {"featuresDict": {"features": {"X": {"tensor": {"shape": {"dimensions": ["-1", "17"]}}}}}}
        info.with_name("features.json").write_text(json.dumps(width), encoding="utf-8")
        evaluate.run(run_dir, datasets=[name])
    (run_dir / "figures").mkdir()
    for name in ("mine", "ttbar", "ttbar_mine"):
        (run_dir / "figures" / f"clic_edm4hep_{name}_met_response.png").write_text("", encoding="utf-8")
    (run_dir / "figures" / "loss.png").write_text("", encoding="utf-8")
    return run_dir


def test_numbers_of_other_datasets_with_the_same_checkpoint_stay(with_another):
    before = on_disk(with_another)["datasets"]
    evaluate.run(with_another)
    after = on_disk(with_another)["datasets"]
    assert set(after) == {"clic_edm4hep/mine", f"{DATASET}_mine", DATASET}
    assert {name: after[name] for name in before} == before
    assert len(list((with_another / "predictions").iterdir())) == 3
    assert len(list((with_another / "figures").iterdir())) == 4


def test_another_checkpoint_removes_what_other_datasets_have(with_another, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "load_trained_model", lambda run_dir, *_: (Silent(), run_dir / "epoch_4"))
    with pytest.raises(DataError, match="numbers of epoch_3, now asked for epoch_4"):
        evaluate.run(with_another, datasets=["clic_edm4hep/mine"])
    assert on_disk(with_another)["checkpoint"] == "epoch_3"
    capsys.readouterr()
    evaluate.run(with_another)
    assert (
        "removed clic_edm4hep/mine, clic_edm4hep/ttbar_mine: evaluated with another"
        in capsys.readouterr().out
    )
    assert list(on_disk(with_another)["datasets"]) == [DATASET]
    assert [path.name for path in (with_another / "predictions").iterdir()] == ["clic_edm4hep_ttbar.parquet"]
    figures = sorted(path.name for path in (with_another / "figures").iterdir())
    assert figures == ["clic_edm4hep_ttbar_met_response.png", "loss.png"]


def test_results_are_stored_before_tables_are_printed(run_dir, monkeypatch):
    def closed_pipe(*_):
        raise BrokenPipeError

    monkeypatch.setattr(evaluate, "response_table", closed_pipe)
    with pytest.raises(BrokenPipeError):
        evaluate.run(run_dir)
    assert list(on_disk(run_dir)["datasets"]) == [DATASET]
    assert (run_dir / "predictions" / "clic_edm4hep_ttbar.parquet").is_file()


def test_a_dataset_that_nobody_built_names_the_command(run_dir):
    with pytest.raises(
        DataError, match=r"clic_edm4hep/nope: not built in .*; run mlpf build clic_edm4hep/nope"
    ):
        evaluate.run(run_dir, datasets=["clic_edm4hep/nope"])
    assert not (run_dir / "metrics.json").exists()
