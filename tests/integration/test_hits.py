"""Events of hits from the generator to the exported network."""

import json

import numpy as np
import onnx
import pytest

from mlpf.config.loading import load_config
from mlpf.config.schema import Config
from mlpf.data.dataset.split import open_split
from mlpf.evaluation.predictions import read_predictions
from mlpf.files.run_directory import RunDirectory
from mlpf.physics.schemas import SCHEMAS
from mlpf.workflows import build, evaluate, export, plots, postprocess, simulate, train
from tests.support.models import TINY_GRAPH, TINY_NETWORK

# A gun needs no Pythia, and pions leave tracks and hits in all systems.
SAMPLE = "single_pi"
NAME = f"clic_edm4hep_hits/{SAMPLE}"
NUM_FILES, EVENTS_PER_FILE = 4, 2
SEED = 8  # puts two files into train, one into valid and test each
SCHEMA = SCHEMAS["clic_hits"]
TRACK, HIT = SCHEMA.kinds
GUNS = ("neutron", "kaon0l", "pi", "pi0", "mu", "electron", "gamma")


def prepare(sample, folder, num_files, **split):
    """Simulate, postprocess and build one sample; return the data directory."""
    number = num_files * EVENTS_PER_FILE
    raw = simulate.run(sample, number, folder / "root", events_per_file=EVENTS_PER_FILE, granularity="hits")
    summary = postprocess.run(raw, folder / "parquet", elements="hits")
    assert (summary.num_events, summary.num_failed) == (number, 0)
    build.run(f"clic_edm4hep_hits/{sample}", folder / "data", [folder / "parquet"], **split)
    return folder / "data"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hits")
    return prepare(SAMPLE, folder, NUM_FILES, split_seed=SEED, split_fractions=(0.5, 0.25, 0.25))


@pytest.fixture(scope="module")
def config(data_dir):
    graph = {**TINY_GRAPH, "position_scales": [20.0, 200.0], "bin_order": "projection"}
    return Config.model_validate(
        {
            "dataset": {"schema": "clic_hits"},
            "setup": {"num_epochs": 1},
            "parameters": {
                **TINY_NETWORK,
                "combined_graph_layer": graph,
                "input_encoding": "clic_helix",
                "use_normalizer": True,
            },
            "batching": {"bucket_by_sequence_length": False},
            "callbacks": {"tensorboard": False, "physics": {"every": 0}},
            "train_test_datasets": {"gun": {"batch_per_gpu": 2, "datasets": [NAME]}},
            "validation_dataset": NAME,
            "validation_batch_size": 2,
            "evaluation_datasets": {NAME: {"batch_size": 2}},
            "datasets": {NAME: {"version": "1.0.0", "data_dir": str(data_dir)}},
        }
    )


@pytest.fixture(scope="module")
def run_dir(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "hits"
    summary = train.run(config, folder)
    assert [record["num_events"] for record in summary.history] == [4]
    assert np.isfinite(summary.history[0]["val_loss"])
    evaluate.run(folder)
    return folder


def test_every_hit_is_an_element(config):
    split = open_split(NAME, config.datasets[NAME], "train", SCHEMA)
    event = split.fetch([0], ("X",))
    kind = event["X"][:, HIT.features.index("elemtype")]
    hits = event["X"][kind == HIT.elemtype]
    assert event["X"].shape[1] == 15
    assert np.sum(kind == TRACK.elemtype) >= 1
    assert len(hits) > 20
    x, y, z = (hits[:, HIT.features.index(f"position.{axis}")] for axis in "xyz")
    # Behind the face of the calorimeter, and where eta says.
    assert ((np.hypot(x, y) > 1490) | (np.abs(z) > 2290)).all()
    np.testing.assert_allclose(hits[:, HIT.features.index("eta")], np.arcsinh(z / np.hypot(x, y)), atol=1e-3)


def test_numbers_and_figures_count_hits(run_dir):
    numbers = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))["datasets"][NAME]
    assert numbers["num_tracks"] + numbers["num_hits"] == numbers["num_elements"]
    assert numbers["num_hits"] > 20
    predictions = read_predictions(RunDirectory(run_dir).predictions(NAME))
    assert predictions.schema == "clic_hits"
    assert predictions.elements_per_event["hits"].sum() == numbers["num_hits"]
    figures = dict(plots.dataset_figures(predictions))
    assert figures["num_elements"].axes[0].get_legend_handles_labels()[1] == ["all", "tracks", "hits"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_exported_network_names_the_columns_of_hits(run_dir):
    report = export.run(run_dir)["float32"]
    assert max(values["largest"] for values in report["parity"]["outputs"].values()) < 1e-4
    entries = {p.key: p.value for p in onnx.load(run_dir / report["file"]).metadata_props}
    assert entries["schema"] == "clic_hits"
    assert json.loads(entries["hit_columns"]) == list(HIT.features.names)
    assert json.loads(entries["track_columns"]) == list(TRACK.features.names)
    assert "cluster_columns" not in entries


@pytest.mark.parametrize("particle", GUNS)
def test_every_gun_can_be_prepared_as_the_configuration_expects(particle, tmp_path, repo_root):
    config = load_config(repo_root / "parameters" / "clic-hits.yaml")
    name = f"clic_edm4hep_hits/single_{particle}"
    data = prepare(f"single_{particle}", tmp_path, 1, split_fractions=(1.0, 0.0, 0.0))
    source = config.with_data_dir(str(data)).datasets[name]
    assert open_split(name, source, "train", config.dataset.event_schema).num_events == EVENTS_PER_FILE
