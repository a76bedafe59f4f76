"""Options of the commands that train, with a stand-in for the workflow."""

import sys
import types

import pytest
from click.testing import CliRunner

from mlpf.cli.training import train
from tests.support.configs import write_config


@pytest.fixture
def options_of(monkeypatch, tmp_path):
    """Run the command line; return the options that reach the workflow."""

    def run(*arguments):
        seen = {}
        workflow = types.ModuleType("mlpf.workflows.train")
        workflow.run = lambda *_, **options: seen.update(options)
        package = types.ModuleType("mlpf.workflows")
        package.train = workflow
        monkeypatch.setitem(sys.modules, "mlpf.workflows", package)
        monkeypatch.setitem(sys.modules, "mlpf.workflows.train", workflow)
        command = ["-c", str(write_config(tmp_path)), "-o", str(tmp_path / "run"), *arguments]
        CliRunner().invoke(train, command, catch_exceptions=False, standalone_mode=False)
        return seen

    return run


@pytest.mark.parametrize("option", ["-g", "--habana-enabled"])
def test_gaudi_is_asked_for_by_option(options_of, option):
    assert options_of()["habana_enabled"] is False
    assert options_of(option)["habana_enabled"] is True


def test_threads_are_limited_before_the_workflow_is_imported(options_of, monkeypatch):
    limits = []
    monkeypatch.setattr("mlpf.cli.training.limit_library_threads", limits.append)
    assert options_of("--num-cpus", "2")["num_cpus"] == 2
    assert limits == [2]
