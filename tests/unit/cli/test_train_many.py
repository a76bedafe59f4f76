"""Options of ``mlpf train-many`` and how they reach the workflow."""

import json
import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from mlpf.cli.train_many import train_many
from mlpf.config.loading import write_resolved
from mlpf.engine.base import Slot, TaskLost
from mlpf.engine.opening import Placement
from mlpf.ensemble.plan import Plan
from mlpf.ensemble.table import Row
from mlpf.errors import CheckpointError, ConfigError, DataError, OutputExists
from mlpf.workflows import train_many as workflow
from tests.support.fake_training import tiny_config


@pytest.fixture
def config_path(tmp_path):
    path = tmp_path / "c.yaml"
    write_resolved(tiny_config(), path)
    return path


@pytest.fixture
def calls(monkeypatch):
    seen = []

    def record(config, directory, resources, **options):
        seen.append((config, directory, resources, options))

    monkeypatch.setattr(workflow, "run", record)
    return seen


def invoke(*words):
    runner = CliRunner()
    return runner.invoke(
        train_many, [str(word) for word in words], catch_exceptions=False, standalone_mode=False
    )


def test_options_reach_the_workflow(calls, config_path, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("setup.lr\n0.5\n", encoding="utf-8")
    invoke(
        "-c", config_path, "-o", tmp_path / "e", "--seeds", "1:3", "--table", table, "--nepochs", 2,
        "--ntrain", 5, "--ntest", 6, "--workers", 2, "--gpus-per-training", 0, "--cpus-per-training", 1,
        "--max-retries", 4, "--max-losses", 5, "--max-time", "1h", "--time-limit", "2h", "--data-dir", "d",
        "--set", "setup.lr=0.25",
    )  # fmt: skip
    ((config, directory, got, options),) = calls
    assert (config.setup.num_epochs, config.setup.lr, config.datasets["a"].data_dir) == (2, 0.25, "d")
    assert directory == tmp_path / "e"
    assert (got.placement, got.gpus, got.cpus) == (Placement(2, None, 1, False), 0, 1)
    assert (got.max_retries, got.max_losses, got.max_seconds, got.time_limit) == (4, 5, 3600.0, 7200.0)
    assert options == {
        "rows": [Row("row_1", {"setup.lr": 0.5}, f"{table}:2")], "seeds": [1, 2, 3], "ntrain": 5, "ntest": 6,
        "resume": False, "retry_failed": False,
    }  # fmt: skip


def test_site(calls, config_path, tmp_path):
    base = ["-c", config_path, "-o", tmp_path / "e", "--seeds", "1"]
    invoke(*base, "--site", "s", "--nodes", 3, "--inside")
    assert calls[0][2].placement == Placement(0, "s", 3, True)


def test_devices_are_those_that_the_ensemble_began_with(tmp_path):
    site = tmp_path / "s.yaml"
    site.write_text(
        "description: d\nprovider: slurm\ngpus_per_node: 4\ncores_per_node: 8\nmax_minutes: 60\n",
        encoding="utf-8",
    )
    resources = workflow.Resources(Placement(0, str(site)))
    assert resources.slot(1) == Slot(num_cpus=2, num_gpus=1)
    assert resources.slot(4) == Slot(num_cpus=8, num_gpus=4)
    assert workflow.Resources(Placement(0, str(site)), gpus=2, cpus=3).slot(4) == Slot(3, 2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("-c c.yaml", "give -o DIR"),
        ("-c c.yaml -o e", "give --seeds such as 1:20, or --table FILE"),
        ("-o e --seeds 1", "give -c CONFIG for a new ensemble"),
        ("-c c.yaml -o e --seeds 3:1", "the first seed is above the last"),
        ("-c c.yaml -o e --seeds 1 --nodes 2", "--nodes and --inside belong to --site"),
        ("-c c.yaml -o e --seeds 1 --inside", "--nodes and --inside belong to --site"),
        ("-c c.yaml -o e --seeds 1 --site s --workers 2", "--workers are those of this machine"),
        ("-c c.yaml -o e --seeds 1 --retry-failed", "--retry-failed is for an ensemble that has begun"),
        ("-o e --resume", "nothing to resume"),
        ("-o e report d", "-o is no option of report"),
    ],
)
def test_options_that_do_not_go_together(calls, words, said):
    with pytest.raises(click.UsageError, match=said):
        invoke(*words.split())
    assert calls == []


def refused(kind, config, directory, **options):
    with pytest.raises(kind) as caught:
        workflow.run(config, directory, workflow.Resources(Placement(1)), **options)
    return str(caught.value).splitlines()


def test_all_refused_rows_are_found_before_anything_starts(tmp_path):
    rows = [Row("a", {"setup.lr": -1}, "t:1"), Row("b", {}, "t:2"), Row("c", {"setup.lrr": 1}, "t:3")]
    lines = refused(ConfigError, tiny_config(), tmp_path / "e", rows=rows)
    assert [line[:6] for line in lines] == ["t:1  a", "t:3  c"]
    assert not (tmp_path / "e").exists()


def test_a_dataset_of_a_row_that_is_not_built(tmp_path):
    rows = [Row("a", {"datasets.a.data_dir": str(tmp_path)}, "t:1")]
    (line,) = refused(DataError, tiny_config(), tmp_path / "e", rows=rows)
    assert "not" in line
    assert not (tmp_path / "e").exists()


@pytest.fixture
def built(monkeypatch):
    monkeypatch.setattr(workflow, "require_built", lambda *_: None)


def test_directories_that_are_refused(tmp_path, built):
    (tmp_path / "x").touch()
    assert "is not empty" in refused(OutputExists, tiny_config(), tmp_path, seeds=[1])[0]
    assert "no ensemble of trainings" in refused(CheckpointError, tiny_config(), tmp_path, resume=True)[0]


def test_cores_that_are_not_there_name_our_options(tmp_path, built):
    with pytest.raises(ConfigError, match="fewer --workers or --cpus-per-training"):
        workflow.run(tiny_config(), tmp_path / "e", workflow.Resources(Placement(1), cpus=10_000), seeds=[1])


def test_other_settings_are_refused_with_resume(tmp_path, built):
    config = tiny_config()
    Plan([Row()], [1, 2], ntrain=5).write(tmp_path)
    write_resolved(config, tmp_path / "config.resolved.yaml")
    other = config.with_overrides({"setup.lr": 0.5})
    head, *lines = refused(ConfigError, other, tmp_path, seeds=[2, 3], ntrain=6, resume=True)
    assert "cannot be resumed with other settings" in head
    assert lines == [
        f"setup.lr: {config.setup.lr} -> 0.5", "--ntrain: 5 -> 6", "training seed_1: (given) -> (none)",
    ]  # fmt: skip
    assert json.loads((tmp_path / "ensemble.json").read_text(encoding="utf-8"))["seeds"] == [1, 2]


@pytest.mark.parametrize("losses", [0, 2])
def test_lost_workers_are_counted(tmp_path, losses):
    resources = workflow.Resources(Placement(1), cpus=1, max_losses=losses)
    with resources.open(resources.slot(1), tmp_path) as engine:
        future = engine.submit(os.abort)
        with pytest.raises(TaskLost, match=rf"tried {losses + 1} time"):
            future.result(60)


def test_the_driver_does_not_import_tensorflow(repo_root):
    code = "import sys, mlpf.workflows.train_many; print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
