"""Options of the commands that train, as they reach the workflow."""

import pytest
from click.testing import CliRunner

from mlpf.cli.training import train
from mlpf.workflows import train as workflow
from tests.support.configs import write_config


@pytest.fixture
def options_of(monkeypatch, tmp_path):
    """Run the command line; return the options that reach the workflow."""

    def run(*arguments):
        seen = {}
        monkeypatch.setattr(workflow, "run", lambda *_, **options: seen.update(options))
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
