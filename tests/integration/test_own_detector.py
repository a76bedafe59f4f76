"""A second detector through the whole chain, and what happens where two detectors meet."""

import json
import re
import shutil

import click
import numpy as np
import onnx
import pytest
import yaml

from mlpf.cli import cli
from mlpf.config.data_schema import DatasetSourceConfig
from mlpf.config.detector import CLIC, find_detector
from mlpf.config.loading import load_config
from mlpf.data.dataset.split import open_split
from mlpf.data.events import Events, read_metadata
from mlpf.errors import CheckpointError, ConfigError, DataError, MLPFError, OutputExists
from mlpf.files.run_directory import RunDirectory
from mlpf.physics.features import CLUSTER_FEATURES, PARTICLE_COLUMNS, TRACK_FEATURES
from mlpf.runs.trained import load_trained_model
from mlpf.simulation.clic.edm4hep_writer import read_provenance
from tests.support.models import TINY_GRAPH, TINY_NETWORK

NAME = "clic_edm4hep/mine"
FACE = (1800.0, 2400.0)
NUM_EVENTS = 90
SAMPLE = ("single_pi", "-n", NUM_EVENTS, "--events-per-file", 30)


def mlpf(*arguments):
    """Run a command in this process."""
    return cli.main([str(argument) for argument in arguments], standalone_mode=False)


@pytest.fixture(scope="module")
def description(repo_root):
    """The file that docs/detector.md prints."""
    page = (repo_root / "docs" / "detector.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    return block


@pytest.fixture(scope="module")
def place(description, tmp_path_factory):
    """Simulated pions of the second detector, their parquet files, dataset, run and ONNX file."""
    place = tmp_path_factory.mktemp("own_detector")
    own = place / "mine.yaml"
    own.write_text(description, encoding="utf-8")
    mlpf("simulate", *SAMPLE, "-o", place / "root", "--detector", own, "--layout", "new")
    mlpf("postprocess", place / "root", "-o", place / "parquet", "--detector", own)
    mlpf("build", NAME, "--data-dir", place / "data", "-i", place / "parquet")
    config = {
        "dataset": {"detector": str(own)},
        "setup": {"num_epochs": 1, "lr_schedule": "none"},
        "parameters": {
            **TINY_NETWORK,
            "input_encoding": "clic_helix",
            "combined_graph_layer": {**TINY_GRAPH, "position_scales": [50.0]},
        },
        "callbacks": {"tensorboard": False, "physics": {"every": 0}},
        "train_test_datasets": {"physical": {"batch_per_gpu": 16, "datasets": [NAME]}},
        "validation_dataset": NAME,
        "evaluation_datasets": {NAME: {}},
        "datasets": {NAME: {"version": "1.0.0", "data_dir": str(place / "data")}},
    }
    (place / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    mlpf("train", "-c", place / "config.yaml", "-o", place / "run", "--ntrain", 32)
    own.unlink()  # nothing below depends on the file
    mlpf("evaluate", "-t", place / "run")
    mlpf("export", "-t", place / "run")
    own.write_text(description, encoding="utf-8")
    return place


def events_of(folder):
    return Events.concatenate([Events.from_parquet(path) for path in sorted(folder.glob("*.parquet"))])


pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning"
)  # of the export


def test_the_description_is_recorded_everywhere(place):
    own = find_detector(str(place / "mine.yaml"))
    assert own != CLIC
    for path in (place / "root").glob("*.root"):
        assert read_provenance(path).detector == own
    for path in (place / "parquet").glob("*.parquet"):
        assert read_metadata(path)["detector"] == own.model_dump()
    dataset = json.loads((place / "data" / NAME / "1.0.0" / "metadata.json").read_text(encoding="utf-8"))
    assert dataset["detector"] == own.model_dump()
    assert load_config(RunDirectory(place / "run").config).dataset.detector == own
    card = json.loads((place / "run" / "model_card.json").read_text(encoding="utf-8"))
    props = {p.key: p.value for p in onnx.load(place / "run" / "model.onnx").metadata_props}
    assert card["detector"] == json.loads(props["detector"]) == own.model_dump()
    metrics = json.loads((place / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert list(metrics["datasets"]) == [NAME]


def test_track_momenta_follow_from_the_field_and_close_against_the_generator(place):
    events = events_of(place / "parquet")
    x = events["track"]["X"]
    pt, omega = x[:, TRACK_FEATURES.index("pt")], x[:, TRACK_FEATURES.index("omega")]
    np.testing.assert_allclose(pt, 3e-4 * 2.0 / np.abs(omega), rtol=1e-6)  # float32
    # One pion per event; the first track is its own, split tracks follow.
    tracks, generated = events["track"], events["gen_particles"]
    first = tracks.offsets[:-1][tracks.counts > 0]
    truth = generated["gen_particles"][generated.offsets[:-1][tracks.counts > 0]]
    ratio = pt[first] / truth[:, PARTICLE_COLUMNS.index("pt")]
    assert len(ratio) > NUM_EVENTS / 2
    # Half of CLIC's field: reading with 4 T would give 2. 0.07 % are the rounding of 0.299792 to 0.3; the
    # resolution of a track is below 1 % and its median over so many is known to a tenth of that.
    assert np.median(ratio) == pytest.approx(1.0007, abs=2e-3)


def test_clusters_lie_behind_the_face(place):
    x = events_of(place / "parquet")["cluster"]["X"].astype(np.float64)
    position = x[:, CLUSTER_FEATURES.slice("position.x", "position.z")]
    radius, z = np.hypot(position[:, 0], position[:, 1]), np.abs(position[:, 2])
    depth = np.maximum(radius - FACE[0], z - FACE[1])
    assert len(x) > NUM_EVENTS / 2
    assert depth.min() > 0
    # with CLIC's face the same showers begin 300 mm further in
    assert np.median(depth) < 400


def test_points_of_the_network_lie_on_the_face(place):
    config = load_config(RunDirectory(place / "run").config)
    model, _ = load_trained_model(place / "run", config)
    x = events_of(place / "parquet")["cluster"]["X"][None]
    encoded = np.asarray(model.encoding(x, x), np.float64)[0]
    point = 1e3 * encoded[:, x.shape[-1] + 2 :][:, 3:6]  # behind the one-hot type and the other columns
    radius, z = np.hypot(point[:, 0], point[:, 1]), np.abs(point[:, 2])
    # 0.1 mm: float32 on 2 m
    np.testing.assert_allclose(np.maximum(radius / FACE[0], z / FACE[1]), 1.0, rtol=5e-5)


def test_what_does_not_tell_its_detector_is_of_clic(place, tmp_path):
    shutil.copytree(place / "data", tmp_path / "data")
    file = tmp_path / "data" / NAME / "1.0.0" / "metadata.json"
    metadata = json.loads(file.read_text(encoding="utf-8"))
    del metadata["detector"]
    file.write_text(json.dumps(metadata), encoding="utf-8")
    source = DatasetSourceConfig(version="1.0.0", data_dir=str(tmp_path / "data"))
    assert open_split(NAME, source, "train", detector=CLIC).num_events > 0
    with pytest.raises(DataError, match="name is clic in the dataset, mine in the configuration"):
        open_split(NAME, source, "train", detector=find_detector(str(place / "mine.yaml")))
    with pytest.raises(OutputExists, match=r"something else \(name is clic there, mine in the new inputs\)"):
        mlpf("build", NAME, "--data-dir", tmp_path / "data", "-i", place / "parquet")


def refused(match, error, *arguments):
    with pytest.raises(error, match=match):
        mlpf(*arguments)


def test_what_is_of_another_detector_is_refused(place, tmp_path):
    own, config, root = place / "mine.yaml", place / "config.yaml", place / "root"
    refused(
        r"pi_1.root: of another detector: name is mine in its simulation, clic in --detector",
        DataError,
        "postprocess", root, "-o", tmp_path / "parquet",
    )  # fmt: skip
    refused(
        r"parquet was made for another detector: name is mine there, clic asked for",
        OutputExists,
        "postprocess", root, "-o", place / "parquet",
    )  # fmt: skip
    refused(
        r"root holds events of another detector: name is mine there, clic asked for",
        OutputExists,
        "simulate", *SAMPLE, "-o", root, "--layout", "new",
    )  # fmt: skip
    refused(
        r"mine/1.0.0: of another detector: name is mine in the dataset, clic in the configuration; set",
        DataError,
        "train", "-c", config, "-o", tmp_path / "run", "--set", "dataset.detector=clic",
    )  # fmt: skip
    changed = own.read_text(encoding="utf-8").replace("field_T: 2.0", "field_T: 2.1")
    (tmp_path / "changed.yaml").write_text(changed, encoding="utf-8")
    shutil.copytree(place / "parquet", tmp_path / "both")
    sample = ("simulate", "single_pi", "--detector", tmp_path / "changed.yaml", "-o", tmp_path / "root")
    mlpf(*sample, "-n", 5, "--first-event", 500)
    mlpf("postprocess", tmp_path / "root", "-o", tmp_path / "both", "--detector", tmp_path / "changed.yaml")
    refused(
        r"of different detectors: field_T is 2.0 in \S+both/\S+.parquet, 2.1 in \S+both/\S+.parquet; build",
        DataError,
        "build", NAME, "--data-dir", tmp_path / "data", "-i", tmp_path / "both",
    )  # fmt: skip


def test_weights_of_another_detector_need_partial(place, tmp_path):
    text = (place / "mine.yaml").read_text(encoding="utf-8").replace("field_T: 2.0", "field_T: 3.0")
    (tmp_path / "other.yaml").write_text(text, encoding="utf-8")
    for step in ("root", "parquet"):
        (tmp_path / step).mkdir()
    other = ("--detector", tmp_path / "other.yaml")
    mlpf("simulate", "single_pi", "-n", 60, "-o", tmp_path / "root", *other)
    mlpf("postprocess", tmp_path / "root", "-o", tmp_path / "parquet", *other)
    mlpf("build", NAME, "--data-dir", tmp_path / "data", "-i", tmp_path / "parquet")
    train = ("train", "-c", place / "config.yaml", "--set", f"dataset.detector={tmp_path / 'other.yaml'}")
    train += ("--data-dir", tmp_path / "data", "-w", place / "run")
    refused(
        "another detector: field_T is 2.0 in the checkpoint, 3.0 in the configuration; .* --partial",
        CheckpointError,
        *train, "-o", tmp_path / "run",
    )  # fmt: skip
    assert not (tmp_path / "run").exists()
    resume = ("train", "--resume", place / "run", "--set", f"dataset.detector={tmp_path / 'other.yaml'}")
    refused(
        r"dataset.detector.field_T: 2.0 -> 3.0.*; \S+epoch_1: of a training for another",
        CheckpointError,
        *resume, "--data-dir", tmp_path / "data",
    )  # fmt: skip
    mlpf(*train, "-o", tmp_path / "run", "--partial")
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("epoch_*")
    refused(
        "another detector: field_T is 3.0 in the checkpoint, 2.0 in the configuration; give a ch",
        CheckpointError,
        "evaluate", "-t", place / "run", "-w", checkpoint,
    )  # fmt: skip
    refused(
        "field_T is 3.0 in the dataset, 2.0 in the configuration",
        DataError,
        "evaluate", "-t", place / "run", "--data-dir", tmp_path / "data",
    )  # fmt: skip


def test_detectors_that_do_not_exist(tmp_path):
    refused(
        r"detector clik: no such detector \(did you mean 'clic'\?\); the package has clic, or give a file",
        ConfigError,
        "simulate", "single_pi", "-n", 1, "-o", tmp_path / "root", "--detector", "clik",
    )  # fmt: skip
    refused(
        "no such file; the package has clic",
        ConfigError,
        "postprocess",
        "a",
        "-o",
        "b",
        "--detector",
        "x.yaml",
    )
    with pytest.raises(MLPFError, match="delphes_ttbar has no option --detector"):
        mlpf("simulate", "delphes_ttbar", "-n", 1, "-o", tmp_path / "root", "--detector", "clic")
    assert list(tmp_path.iterdir()) == []


def test_the_option_is_for_edm4hep_files(place, tmp_path):
    (parquet, *_) = (place / "parquet").glob("*.parquet")
    refused("names its own detector; drop", DataError, "data", "show", parquet, "--detector", "clic")
    (root, *_) = (place / "root").glob("*.root")
    refused("of another detector: name is mine", DataError, "data", "show", root, "-o", tmp_path / "a.png")
    mlpf("data", "show", root, "--detector", place / "mine.yaml", "-o", tmp_path / "a.png")
    mlpf("data", "show", parquet, "-o", tmp_path / "b.png")
    assert (tmp_path / "a.png").is_file()
    assert (tmp_path / "b.png").is_file()
    with pytest.raises(click.UsageError, match="No such option"):
        mlpf("build", NAME, "-i", parquet, "--detector", "clic")
