"""Options of the search, and what reaches the workflows."""

import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mlpf.cli.tuning import hypertune
from mlpf.config import load_config
from mlpf.engine.opening import Placement
from mlpf.workflows import hypertune as workflow
from mlpf.workflows import hypertune_report
from mlpf.workflows import hypertune_trial as trial
from tests.support.configs import write_config

SPACE = "hypertune: {space: {setup.lr: {float: [1.0e-4, 1.0e-2]}}, max_total_hours: 7}\n"


@pytest.fixture
def calls(monkeypatch):
    """Record the calls that reach a workflow, instead of what it does."""
    seen = []
    for module in (workflow, trial, hypertune_report):
        monkeypatch.setattr(module, "run", lambda *given, **options: seen.append((given, options)))
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")  # the command chooses another one for its process
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return seen


def invoke(*arguments):
    return CliRunner().invoke(hypertune, arguments, catch_exceptions=False, standalone_mode=False)


def searched(calls, tmp_path, line=""):
    """Return what the workflow of a search gets."""
    config = write_config(tmp_path, SPACE)
    invoke("-c", str(config), "-o", "D", *line.split())
    ((given, options),) = calls
    return *given, options


def test_without_options_a_search_runs_here(calls, tmp_path):
    config, directory, resources, options = searched(calls, tmp_path)
    assert config == load_config(tmp_path / "test.yaml")
    assert directory == Path("D")
    assert options == {"resume": False, "ntrain": None, "ntest": None, "config_path": tmp_path / "test.yaml"}
    assert resources.placement == Placement(workers=0, site=None, nodes=1, inside=False)
    assert (resources.gpus_per_trial, resources.cpus_per_trial, resources.time_limit) == (None, None, None)
    assert os.environ["KERAS_BACKEND"] == "numpy"


@pytest.mark.parametrize(
    ("line", "placement"),
    [
        ("--workers 3", Placement(3)),
        ("--site nersc", Placement(0, "nersc", 1)),
        ("--site nersc --nodes 4", Placement(0, "nersc", 4)),
        ("--site my.yaml --nodes 2 --inside", Placement(0, "my.yaml", 2, True)),
    ],
)
def test_where_trials_run(calls, tmp_path, line, placement):
    assert searched(calls, tmp_path, line)[2].placement == placement


def test_resources_and_limits_reach_the_search(calls, tmp_path):
    line = "--gpus-per-trial 2 --cpus-per-trial 3 --time-limit 55m --ntrain 5 --ntest 6 --resume"
    _, _, resources, options = searched(calls, tmp_path, line)
    assert (resources.gpus_per_trial, resources.cpus_per_trial, resources.time_limit) == (2, 3, 3300.0)
    assert options == {"resume": True, "ntrain": 5, "ntest": 6, "config_path": tmp_path / "test.yaml"}


@pytest.mark.parametrize(("line", "hours"), [("", 7), ("--total-time 90m", 1.5), ("--total-time 24h", 24)])
def test_the_time_of_a_whole_search(calls, tmp_path, line, hours):
    assert searched(calls, tmp_path, line)[0].hypertune.max_total_hours == pytest.approx(hours, abs=1e-12)


def test_a_search_is_resumed_with_its_own_configuration(calls, tmp_path):
    write_config(tmp_path, SPACE, name="config.resolved.yaml")
    invoke("-o", str(tmp_path), "--resume", "--data-dir", "/data", "--set", "hypertune.max_total_epochs=9")
    (((config, directory, _), options),) = calls
    assert (directory, options["resume"]) == (tmp_path, True)
    assert config.hypertune.max_total_epochs == 9
    assert {source.data_dir for source in config.datasets.values()} == {"/data"}


def test_options_of_a_trial_reach_it(calls):
    invoke("trial", "D", "r", "--epochs", "3", "--num-cpus", "2", "--ntrain", "5")
    assert calls == [((Path("D"), "r"), {"epochs": 3, "num_cpus": 2, "ntrain": 5, "ntest": None})]


def test_a_report_needs_the_directory_only(calls):
    invoke("report", "D")
    assert calls == [((Path("D"),), {})]


def test_the_hidden_command_is_not_listed():
    said = invoke("--help").output
    assert "report" in said
    assert not any(line.strip().startswith("trial ") for line in said.splitlines())


def test_without_anything_the_help_is_shown():
    assert "Usage" in invoke().output


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("-c x.yaml", "give -o DIR"),
        ("-o d", "give -c CONFIG for a new search"),
        ("-o d --resume", "nothing to resume"),
        ("-o d -c x --nodes 2", "--nodes and --inside belong to --site; give it, or --workers"),
        ("-o d -c x --inside", "--nodes and --inside belong to --site"),
        (
            "-o d -c x --site nersc --workers 2",
            "--workers are those of this machine; with --site give --nodes",
        ),
        ("-o d report d", "-o is no option of report"),
        ("-o d -c x --workers 0", "0 is not in the range"),
        ("-o d -c x --site nersc --nodes 0", "0 is not in the range"),
        ("-o d -c x --time-limit soon", "expected a time"),
        ("-o d -c x --total-time soon", "expected a time"),
        ("-o d -c x --join auto", "No such option"),
        ("-o d -c x --address h", "No such option"),
        ("-o d -c x --port 5", "No such option"),
        ("-o d -c x --name n", "No such option"),
    ],
)
def test_what_makes_no_sense_is_said(line, match):
    with pytest.raises(click.UsageError, match=match):
        invoke(*line.split())
