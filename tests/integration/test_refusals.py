"""A command that refuses to work leaves every directory as it was, and what was there still works."""

import ctypes
import json
import os
import shutil
import subprocess
import sys

import click
import pytest
import yaml

from mlpf.cli import cli
from mlpf.config.loading import load_config, write_resolved
from mlpf.ensemble.plan import Plan
from mlpf.ensemble.table import Row
from mlpf.errors import MLPFError, OutputExists
from mlpf.search.directory import lay_out
from mlpf.search.options import TrialOptions
from tests.support.folder_hash import folder_hash
from tests.support.models import TINY_NETWORK
from tests.support.parquet_files import write_parquet

NAME = "clic_edm4hep/mine"
CONFIG = {
    "setup": {"num_epochs": 1, "lr_schedule": "none"},
    "parameters": {**TINY_NETWORK, "use_normalizer": True},
    "callbacks": {"tensorboard": False, "physics": {"every": 0}},
    "train_test_datasets": {"physical": {"batch_per_gpu": 16, "datasets": [NAME]}},
    "validation_dataset": NAME,
    "evaluation_datasets": {NAME: {}},
    "datasets": {NAME: {"version": "1.0.0"}},
    "hypertune": {"space": {"setup.lr": {"float": [1e-4, 1e-2]}}, "num_trials": 2, "algorithm": "random"},
}


def mlpf(*arguments):
    """Run a command in this process."""
    return cli.main([str(argument) for argument in arguments], standalone_mode=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dataset of one file under an own name, a run, an ensemble, a search, and a folder with files."""
    place = tmp_path_factory.mktemp("made")
    (place / "parquet").mkdir()
    write_parquet(place / "parquet" / "reco_0.parquet", 80)
    mlpf("build", NAME, "--data-dir", place / "data", "-i", place / "parquet")
    config = CONFIG | {"datasets": {NAME: {"version": "1.0.0", "data_dir": str(place / "data")}}}
    (place / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    mlpf("train", "-c", place / "config.yaml", "-o", place / "run")
    mlpf("evaluate", "-t", place / "run")
    loaded = load_config(place / "config.yaml")
    (place / "ensemble" / "runs").mkdir(parents=True)
    Plan([Row()], seeds=[1, 2]).write(place / "ensemble")
    write_resolved(loaded, place / "ensemble" / "config.resolved.yaml")
    (place / "search").mkdir()
    lay_out(loaded, place / "search", TrialOptions())
    (place / "folder" / "below").mkdir(parents=True)
    for name in ("notes.txt", "reco_0.parquet", "reco_p8_ee_tt_ecm380_1.root", "below/model.onnx"):
        (place / "folder" / name).write_text("not to be lost", encoding="utf-8")
    return place


@pytest.fixture(autouse=True)
def _same_backend(monkeypatch):
    """Undo what the driver of a search does to its process."""
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")


@pytest.fixture
def place(made, tmp_path):
    """A copy of it all; the configuration finds the data of the original."""
    shutil.copytree(made, tmp_path / "place")
    return tmp_path / "place"


def in_place(place, words):
    """Words of a command that name the folders of a place."""
    return [str(word).replace("{place}", str(place)) for word in words]


def require_refusal(place, match, *arguments):
    """Run a command that must end with an error of the user and change nothing."""
    before = folder_hash(place)
    with pytest.raises((MLPFError, click.ClickException), match=match):
        mlpf(*in_place(place, arguments))
    assert folder_hash(place) == before, arguments


RESUME = ("train", "--resume", "{place}/run")
CHANGED_RUNS = [
    (r"--set parameters.num_graph_layers_id=2.*1 -> 2.*another model", ["parameters.num_graph_layers_id=2"]),
    (r"setup.optimizer: adam -> lion; .*state of Adam", ["setup.optimizer=lion"]),
    (r"setup.ema: null -> 0.5", ["setup.ema=0.5"]),
    (r"version 2.0.0 is not in .*has 1.0.0", [f"datasets.{NAME}.version=2.0.0"]),
    (r"expected delphes", ["dataset={schema: delphes}"]),
    (r"unknown key .did you mean 'lr'", ["setup.lrr=1"]),
    (r"one of: |input should be", ["setup.lr_schedule=triangle"]),
    (r"'val_los' is not recorded", ["callbacks.checkpoint.monitor=val_los"]),
]


def test_a_refused_resume_changes_nothing_and_the_run_still_works(place, capsys):
    for match, changes in CHANGED_RUNS:
        require_refusal(place, match, *RESUME, *[word for change in changes for word in ("--set", change)])
    require_refusal(place, "--stop-after 9: setup.num_epochs is 1", *RESUME, "--stop-after", 9)
    capsys.readouterr()

    mlpf(*in_place(place, RESUME))
    assert (
        "nothing is left to do, all 1 epochs are trained. To train longer: mlpf train"
        in capsys.readouterr().out
    )
    file = place / "run" / "config.resolved.yaml"
    before = file.read_bytes()
    mlpf(*in_place(place, RESUME), "--set", "setup.lr=1e-4")
    assert "Not used and not kept: setup.lr; give" in capsys.readouterr().out
    assert file.read_bytes() == before
    mlpf("evaluate", "-t", place / "run")
    changes = ("--set", "setup.lr=1e-4", "--set", "setup.lr_warmup_steps=500")
    mlpf(*in_place(place, RESUME), "--nepochs", 2, *changes)
    printed = capsys.readouterr().out
    assert "changed after epoch_1: setup.num_epochs: 1 -> 2" in printed
    assert "changed after epoch_1: setup.lr: 0.001 -> 0.0001" in printed
    history = json.loads((place / "run" / "history.json").read_text(encoding="utf-8"))
    updates = history[0]["num_steps"]
    assert f"500 updates of warm-up, but the whole training has {2 * updates} (2 epochs)" in printed
    warm = 1e-4 * (updates + 1) / 500  # the next update of a warm-up that is not over
    assert [record["learning_rate"] for record in history] == pytest.approx([1e-3, warm], rel=1e-6)
    mlpf("evaluate", "-t", place / "run")


def test_what_may_change_is_said_when_something_else_did(place):
    with pytest.raises(MLPFError) as caught:
        mlpf(*in_place(place, RESUME), "--set", "parameters.node_encoding_hidden_dim=9")
    first, may = str(caught.value).splitlines()
    assert first.startswith(
        "--set parameters.node_encoding_hidden_dim=9  parameters.node_encoding_hidden_dim: 8 -> 9"
    )
    assert "with --resume may change: epochs, learning rate" in may
    assert "seed, batch sizes and dropout. May not:" in may
    assert "widths and layers in parameters" in may


def test_a_change_in_the_file_of_the_run_is_named_by_its_line(place):
    file = place / "run" / "config.resolved.yaml"
    text = file.read_text(encoding="utf-8")
    line = next(i for i, row in enumerate(text.splitlines(), 1) if "num_graph_layers_id: 1" in row)
    file.write_text(text.replace("num_graph_layers_id: 1", "num_graph_layers_id: 2"), encoding="utf-8")
    require_refusal(place, rf"config\.resolved\.yaml:{line}  parameters.num_graph_layers_id: 1 -> 2", *RESUME)


def test_an_error_before_the_first_step_leaves_the_description_of_before(place, monkeypatch, capsys):
    from mlpf.training.loop.trainer import Trainer

    described = ("config.resolved.yaml", "environment.json")
    before = {name: (place / "run" / name).read_bytes() for name in described}

    def refuse(*_, **__):
        assert (place / "run" / described[0]).read_bytes() != before[described[0]]
        raise MemoryError("no memory")

    words = in_place(place, RESUME)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "fit", refuse)
        with pytest.raises(MemoryError):
            mlpf(*words, "--nepochs", 2)
    assert {name: (place / "run" / name).read_bytes() for name in described} == before
    capsys.readouterr()
    mlpf(*words)
    assert "nothing is left to do" in capsys.readouterr().out
    mlpf("evaluate", "-t", place / "run")


def test_a_run_that_another_process_continued_meanwhile_is_left_alone(place, monkeypatch):
    from mlpf.workflows.train import _Training

    checkpoints, read = place / "run" / "checkpoints", _Training._state

    def and_meanwhile(self, *arguments):
        found = read(self, *arguments)
        shutil.copytree(checkpoints / "epoch_1", checkpoints / "epoch_2")
        (checkpoints / "latest.json").write_text('{"folder": "epoch_2"}', encoding="utf-8")
        return found

    monkeypatch.setattr(_Training, "_state", and_meanwhile)
    before = (place / "run" / "config.resolved.yaml").read_bytes()
    with pytest.raises(OutputExists, match="another process trained there meanwhile; resume again"):
        mlpf(*in_place(place, RESUME), "--nepochs", 2)
    assert (place / "run" / "config.resolved.yaml").read_bytes() == before


CONFIGURATION = ("-c", "{place}/config.yaml")
DATA = ("--data-dir", "{place}/data")
NOTES = "{place}/folder/notes.txt"
OTHERS = [
    *[
        ("is not empty", "train", *CONFIGURATION, "-o", f"{{place}}/{kind}")
        for kind in ("run", "ensemble", "folder")
    ],
    *[
        ("is not empty", *command, *CONFIGURATION, "-o", f"{{place}}/{kind}")
        for command in (["hypertune"], ["train-many", "--seeds", "1,2"])
        for kind in ("run", "ensemble", "search", "folder")
    ],
    ("holds an ensemble", "train", "--resume", "{place}/ensemble"),
    ("holds a search", "train", "--resume", "{place}/search"),
    ("not a run directory", "train", "--resume", "{place}/folder"),
    ("not a run directory", "train", "--resume", "{place}/data"),
    ("no ensemble of", "train-many", "--resume", "-o", "{place}/run"),
    ("no ensemble of", "train-many", "--resume", "-o", "{place}/search"),
    ("nothing to resume", "train-many", "--resume", "-o", "{place}/folder"),
    ("no ensemble of", "train-many", "report", "{place}/run"),
    ("these differ", "train-many", "--resume", "-o", "{place}/ensemble", "--set", "setup.lr=0.1"),
    ("unknown key", "train-many", "--resume", "-o", "{place}/ensemble", "--set", "setup.lrr=0.1"),
    ("not a search", "hypertune", "--resume", "-o", "{place}/run"),
    ("an ensemble, not a search", "hypertune", "--resume", "-o", "{place}/ensemble"),
    ("nothing to resume", "hypertune", "--resume", "-o", "{place}/folder"),
    ("a training, not a search", "hypertune", "report", "{place}/run"),
    ("these differ", "hypertune", "--resume", "-o", "{place}/search", "--set", "setup.num_epochs=3"),
    *[
        (match, command, "-t", f"{{place}}/{kind}")
        for command in ("evaluate", "plots", "export", "infer")
        for kind, match in (("folder", "not a run"), ("ensemble", "an ensemble"), ("search", "a search"))
    ],
    ("no such checkpoint", "evaluate", "-t", "{place}/run", "-w", "{place}/nothing"),
    ("nothing to evaluate on", "evaluate", "-t", "{place}/run", "--data-dir", "{place}/folder"),
    ("no such checkpoint", "export", "-t", "{place}/run", "-w", "{place}/nothing"),
    ("opset", "export", "-t", "{place}/run", "--target", "cmssw", "--opset", "99"),
    ("not in the configuration", "infer", "-t", "{place}/run", "--dataset", "nothing"),
    ("the model takes", "infer", "-t", "{place}/run", "-n", "99999"),
    ("not built", "find-lr", *CONFIGURATION, "-o", "{place}/run", "--data-dir", "{place}/folder"),
    ("exists already", "import-weights", "{place}/folder/notes.txt", *CONFIGURATION, "-o", "{place}/run"),
    (
        "cannot be read|HDF5",
        "import-weights",
        "{place}/folder/notes.txt",
        *CONFIGURATION,
        "-o",
        "{place}/new",
    ),
    (
        "no complete output of mlpf postprocess",
        "postprocess",
        "{place}/folder/reco_0.root",
        "-o",
        "{place}/folder",
    ),
    ("no such file", "postprocess", "{place}/nothing", "-o", "{place}/folder"),
    ("not a complete file written by", "simulate", "ttbar", "-n", "1", "-o", "{place}/folder"),
    ("no sample 'nothing'", "simulate", "nothing", "-n", "1", "-o", "{place}/folder"),
    (
        "split_seed was 0, is 1",
        "build",
        NAME,
        "--data-dir",
        "{place}/data",
        "-i",
        "{place}/parquet",
        "--split-seed",
        "1",
    ),
    ("no recipe", "build", "nothing/mine", *DATA, "-i", "{place}/parquet"),
    ("not a complete parquet file", "build", NAME, *DATA, "-i", "{place}/folder"),
    ("dataset", "data", "check", "{place}/run"),
    ("dataset", "data", "show", "{place}/run", "-o", "{place}/folder/event.png"),
    ("no such sample", "download", "nothing", "-o", "{place}/folder"),
]


def test_refusals_of_all_commands_change_nothing(place):
    (place / "folder" / "reco_0.root").write_text("no file of ROOT", encoding="utf-8")
    problems = []
    for match, *arguments in OTHERS:
        try:
            require_refusal(place, match, *arguments)
        except BaseException as problem:  # noqa: BLE001 - all are told at once
            problems.append(f"{' '.join(arguments)}: {problem!r:.1000}")
    assert not problems, "\n".join(problems)


def test_every_command_that_writes_is_refused_here():
    tried = {arguments[1] for arguments in OTHERS} | {"train"}
    assert set(cli.commands) - tried == {"config", "site"}  # they only read


def test_a_version_that_is_no_finished_dataset_stays(place):
    version = place / "data" / "clic_edm4hep" / "other" / "1.0.0"
    version.mkdir(parents=True)
    (version / "notes.txt").write_text("not to be lost", encoding="utf-8")
    build = ("build", "clic_edm4hep/other", *DATA, "-i", "{place}/parquet")
    require_refusal(place, "no finished dataset", *build)


def test_predictions_of_before_stay_where_an_evaluation_fails(place, monkeypatch):
    from mlpf.workflows import evaluate

    before = folder_hash(place)

    def fail(*_):
        raise RuntimeError("in the middle")

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "evaluate_predictions", fail)
        with pytest.raises(RuntimeError, match="in the middle"):
            mlpf("evaluate", "-t", place / "run")
    assert folder_hash(place) == before


def test_damaged_predictions_leave_the_report_of_before(place):
    (file,) = (place / "run" / "predictions").glob("*.parquet")
    (place / "run" / "report.html").write_text("before", encoding="utf-8")
    file.write_bytes(b"damaged")
    require_refusal(place, "not a readable parquet file", "plots", "-t", "{place}/run")


def without_privileges():
    """In a child process: lose the right of root to write where nobody may (CAP_DAC_OVERRIDE)."""
    drop_from_bounding_set, override = 24, 1
    ctypes.CDLL(None).prctl(drop_from_bounding_set, override)


@pytest.mark.parametrize("command", [("train", "--resume"), ("evaluate", "-t")])
def test_a_directory_that_is_read_only(place, repo_root, command):
    run = place / "run"
    before = folder_hash(run)
    folders = [run, *(path for path in run.rglob("*") if path.is_dir())]
    for path in run.rglob("*"):
        path.chmod(0o444 if path.is_file() else 0o555)
    run.chmod(0o555)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "mlpf.pipeline", *command, str(run)],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(repo_root)},
            preexec_fn=without_privileges if os.geteuid() == 0 else None,
        )
    finally:
        for path in folders:
            path.chmod(0o755)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "Permission denied" in line
    assert "Traceback" not in done.stderr
    assert folder_hash(run) == before


def test_a_dataset_that_the_run_does_not_know_is_evaluated_beside_the_others(place):
    mlpf("build", "clic_edm4hep/later", "--data-dir", place / "data", "-i", place / "parquet")
    metrics = place / "run" / "metrics.json"
    before = json.loads(metrics.read_text(encoding="utf-8"))["datasets"]
    evaluate = ("evaluate", "-t", "{place}/run", "--dataset", "clic_edm4hep/later", *DATA)
    mlpf(*in_place(place, evaluate))
    after = json.loads(metrics.read_text(encoding="utf-8"))["datasets"]
    assert set(after) == {NAME, "clic_edm4hep/later"}
    assert after[NAME] == before[NAME]
    assert len(list((place / "run" / "predictions").glob("*.parquet"))) == 2
    require_refusal(
        place,
        "clic_edm4hep/nothing: not built in .*run mlpf build",
        *evaluate,
        "--dataset",
        "clic_edm4hep/nothing",
    )
    mlpf(*in_place(place, RESUME), "--nepochs", 2)
    require_refusal(place, "numbers of epoch_1, now asked for epoch_2", *evaluate, "-w", "latest")
