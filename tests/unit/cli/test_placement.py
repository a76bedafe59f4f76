"""Where a command runs: which options go together, and what reaches the workflow."""

import importlib.util

import pytest
from click.testing import CliRunner

from mlpf.cli import cli
from mlpf.engine.opening import Placement
from mlpf.workflows import build, postprocess, simulate

COMMANDS = {
    "simulate": (simulate, ["simulate", "ttbar", "-n", "1", "-o", "out"]),
    "postprocess": (postprocess, ["postprocess", "a.root", "-o", "out"]),
    "build": (build, ["build", "clic_edm4hep/ttbar", "-i", "in"]),
}


@pytest.fixture(params=COMMANDS)
def command(request, monkeypatch):
    """Run a command with more options; return its result and the placements that its workflow got."""
    workflow, words = COMMANDS[request.param]
    placements = []
    monkeypatch.setattr(workflow, "run", lambda *_, placement, **__: placements.append(placement))
    return lambda line: (CliRunner().invoke(cli, [*words, *line.split()]), placements)


@pytest.mark.parametrize(
    ("line", "placement"),
    [
        ("", Placement(1)),
        ("-j 3", Placement(3)),
        ("--site this-machine", Placement(1, "this-machine", 1)),
        ("--site this-machine --nodes 2 --inside", Placement(1, "this-machine", 2, True)),
    ],
)
def test_options_become_a_placement(command, line, placement):
    result, placements = command(line)
    assert result.exit_code == 0, result.output
    assert placements == [placement]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--site this-machine -j 2", "-j starts processes on this machine, --site on the nodes of a cluster"),
        ("--nodes 2", "--nodes is about a cluster; name it with --site, or use -j N here"),
        ("--inside -j 2", "--inside is about a cluster"),
        ("--site this-machine --nodes 0", "0 is not in the range"),
    ],
)
def test_options_that_do_nothing_together_are_refused(command, line, message):
    result, placements = command(line)
    assert result.exit_code == 2
    assert message in result.output
    assert not placements


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("postprocess", "--shard 1/2", "--shard does one part of the work as one job of an array, --site"),
        ("build", "--shard 1/2", "--shard does one part of the work as one job of an array, --site"),
        ("build", "--merge", "--merge only puts together what shards wrote; give it without --site"),
    ],
)
def test_a_site_takes_all_of_the_work(name, line, message):
    result = CliRunner().invoke(cli, [*COMMANDS[name][1], "--site", "this-machine", *line.split()])
    assert result.exit_code == 2
    assert message in result.output


def test_a_site_is_looked_at_before_the_work(command, tmp_path, monkeypatch):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("description: one\nprovider: local\ncores_pernode: 2\n", encoding="utf-8")
    for site, message in (
        ("nowhere", "site nowhere: no such site; there are "),
        (str(wrong), "wrong.yaml:3  cores_pernode: unknown key"),
    ):
        result, placements = command(f"--site {site}")
        assert message in str(result.exception)
        assert result.exception.exit_code == 2
        assert not placements
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "parsl" else find(name))
    result, placements = command("--site this-machine")
    assert "pip install -e '.[cluster]'" in str(result.exception)
    assert result.exception.exit_code == 2
    assert not placements
